"""ONNX Runtime by itself, on a fused graph: small sorted batches, a thread for each core."""

from __future__ import annotations

from typing import Any

import onnxruntime
from tokenizers import Encoding

from benchmarks.peers.batches import BATCH_SIZE, Logits, batched, cores, padded
from benchmarks.peers.protocol import Runner, serve, versions


def load(model: str, options: dict[str, Any]) -> Runner:
    """Run the file `options["onnx"]`."""
    session_options = onnxruntime.SessionOptions()
    session_options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        options["onnx"], session_options, providers=["CPUExecutionProvider"]
    )

    def forward(batch: list[Encoding]) -> Logits:
        logits: Logits = session.run(None, padded(batch))[0]
        return logits[:, 0]

    what = f"{versions('onnxruntime')}, {cores()} x 1 threads, sorted batches of {BATCH_SIZE}"
    return Runner(batched(model, forward), lambda: what)


if __name__ == "__main__":
    serve(load)
