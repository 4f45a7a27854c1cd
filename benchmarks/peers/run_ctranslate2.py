"""CTranslate2's encoder: small sorted batches, a worker for each core; the last layer in numpy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
from ctranslate2.converters import TransformersConverter
from tokenizers import Encoding
from transformers import AutoModelForSequenceClassification

from benchmarks.peers.batches import BATCH_SIZE, Logits, batched, cores
from benchmarks.peers.protocol import Runner, serve, versions


def load(model: str, options: dict[str, Any]) -> Runner:
    """Convert with the weights stored as `options["quantization"]`."""
    converted = Path(options["cache_dir"], options["quantization"])
    TransformersConverter(model).convert(
        str(converted), quantization=options["quantization"], force=True
    )
    encoder = ctranslate2.Encoder(str(converted), "cpu", inter_threads=cores(), intra_threads=1)
    classifier = AutoModelForSequenceClassification.from_pretrained(model).classifier
    weight, bias = classifier.weight.detach().numpy()[0], classifier.bias.item()

    def forward(batch: list[Encoding]) -> Logits:
        ids, types = [each.ids for each in batch], [each.type_ids for each in batch]
        output = encoder.forward_batch(ids, token_type_ids=types)
        pooled = np.array(output.pooler_output)
        logits: Logits = pooled @ weight + bias
        return logits

    threads = f"{cores()} x 1 threads, sorted batches of {BATCH_SIZE}"
    what = f"{versions('ctranslate2', 'transformers')}, {encoder.compute_type}, {threads}"
    return Runner(batched(model, forward), lambda: what)


if __name__ == "__main__":
    serve(load)
