"""Where a forward pass of the int8 cross-encoder spends its time, by OpenVINO's own counters."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino
from tokenizers import Tokenizer

from benchmarks.machine import table
from benchmarks.minilm import MAX_TOKENS, count_operations, count_weight_operations
from benchmarks.passages import Request
from rerank_sidecar.backends.cores import available_cores
from rerank_sidecar.models.servable import ServableModel

BATCH_SIZE = 8
MULTIPLE = 16
"""To how many tokens a batch is padded, as the engine does."""

WEIGHTS, ATTENTION, OTHER = "products with weights", "attention", "other nodes"

Tensors = dict[str, npt.NDArray[np.int64]]


class Worker:
    """The model on one core, with a request of its own."""

    def __init__(self, model: ServableModel) -> None:
        options: dict[str, Any] = {"NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 1}
        options |= {"PERF_COUNT": True}
        options |= model.arithmetic.options if model.arithmetic else {}
        options |= {"ENABLE_CPU_PINNING": False}
        compiled = openvino.Core().compile_model(str(model.model_path), "CPU", options)
        self.input_names = [port.get_any_name() for port in compiled.inputs]
        self._request = compiled.create_infer_request()
        self._runs = 0
        self._infer_s = 0.0

    def run(self, batch: Tensors) -> None:
        """Run one batch."""
        started = time.perf_counter()
        self._request.infer(batch, share_outputs=True)
        self._infer_s += time.perf_counter() - started
        self._runs += 1

    def counters(self) -> Counters:
        """Give what all runs so far took; OpenVINO tells the mean of them."""
        counters = Counters(infer_s=self._infer_s)
        for node in self._request.get_profiling_info():
            seconds = node.real_time.total_seconds() * self._runs
            if seconds:
                counters.nodes_s[node.node_type, node.exec_type] += seconds
                counters.counts[node.node_type, node.exec_type] += self._runs
        return counters


@dataclass
class Counters:
    """Seconds by kind of node and its kernel, how often they ran, and what the runs took."""

    nodes_s: Counter[tuple[str, str]] = field(default_factory=Counter)
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    infer_s: float = 0.0

    def add(self, other: Counters, sign: int = 1) -> None:
        """Add another's figures to these, or take them away."""
        self.infer_s += sign * other.infer_s
        for name, seconds in other.nodes_s.items():
            self.nodes_s[name] += sign * seconds
            self.counts[name] += sign * other.counts[name]


def profile(model: ServableModel, requests: Sequence[Request], rounds: int) -> Iterator[str]:
    """Run all pairs, a thread for each core, and tell what each kind of node took."""
    workers = [Worker(model) for _ in range(available_cores())]
    names = workers[0].input_names
    batches = [batch for request in requests for batch in _batches(model, request, names)]
    _run(workers, batches)  # to warm up
    before = [worker.counters() for worker in workers]
    wall_s = sum(_run(workers, batches) for _ in range(rounds))
    counters = Counters()
    for worker, earlier in zip(workers, before, strict=True):
        counters.add(worker.counters())
        counters.add(earlier, -1)
    yield from _nodes(counters, wall_s, rounds)
    yield from _account(counters, wall_s)
    lengths = [length for request in requests for length in request.lengths]
    yield from _rates(counters, rounds, lengths, batches)


def _batches(model: ServableModel, request: Request, names: Sequence[str]) -> Iterator[Tensors]:
    tokenizer = Tokenizer.from_file(str(model.tokenizer_path))
    tokenizer.no_padding()
    tokenizer.enable_truncation(model.max_tokens or MAX_TOKENS)
    encodings = tokenizer.encode_batch([(request.query, each) for each in request.documents])
    encodings.sort(key=lambda encoding: len(encoding.ids), reverse=True)
    for start in range(0, len(encodings), BATCH_SIZE):
        batch = encodings[start : start + BATCH_SIZE]
        longest = -(-len(batch[0].ids) // MULTIPLE) * MULTIPLE
        tensors = {name: np.zeros((len(batch), longest), dtype=np.int64) for name in names}
        for row, encoding in enumerate(batch):
            values = {"input_ids": encoding.ids, "token_type_ids": encoding.type_ids}
            values |= {"attention_mask": encoding.attention_mask}
            for name, tensor in tensors.items():
                tensor[row, : len(encoding.ids)] = values[name]
        yield tensors


def _run(workers: Sequence[Worker], batches: Sequence[Tensors]) -> float:
    idle: SimpleQueue[Worker] = SimpleQueue()
    for worker in workers:
        idle.put(worker)

    def run(batch: Tensors) -> None:
        worker = idle.get()
        worker.run(batch)
        idle.put(worker)

    started = time.perf_counter()
    with ThreadPoolExecutor(len(workers)) as pool:
        list(pool.map(run, batches))
    return time.perf_counter() - started


def _nodes(counters: Counters, wall_s: float, rounds: int) -> Iterator[str]:
    cores_s = wall_s * available_cores()
    yield "## Where the time goes"
    yield ""
    yield (
        f"OpenVINO's counters over {rounds} rounds of the same pairs, {available_cores()} models "
        f"on a core each, batches of {BATCH_SIZE} neighbours in length padded to multiples of "
        f"{MULTIPLE}; counting slows it a little. Shares are of the cores' time."
    )
    rows = [
        [kind, kernel, _part(kind), f"{count // rounds}", f"{seconds / cores_s:.1%}"]
        for (kind, kernel), seconds in counters.nodes_s.most_common()
        for count in [counters.counts[kind, kernel]]
        if seconds / cores_s >= 0.002
    ]
    yield from table(("node", "kernel", "is", "times a round", "share"), rows)


def _part(kind: str) -> str:
    if kind.startswith("FullyConnected"):
        return WEIGHTS
    # OpenVINO makes one kernel (a `Subgraph`) of attention's products and the softmax between.
    return ATTENTION if kind in {"MatMul", "ScaledDotProductAttention", "Subgraph"} else OTHER


def _by_part(counters: Counters) -> dict[str, float]:
    parts: dict[str, float] = defaultdict(float)
    for (kind, _), seconds in counters.nodes_s.items():
        parts[_part(kind)] += seconds
    return parts


def _account(counters: Counters, wall_s: float) -> Iterator[str]:
    cores_s = wall_s * available_cores()
    parts = _by_part(counters)
    parts["in the runtime, between nodes"] = counters.infer_s - counters.nodes_s.total()
    parts["outside the runtime: Python, waiting for the last batch"] = cores_s - counters.infer_s
    rows = ([part, f"{seconds / cores_s:.1%}"] for part, seconds in parts.items())
    yield from table(("of the cores' time", "share"), rows)


def _rates(
    counters: Counters, rounds: int, lengths: Sequence[int], batches: Sequence[Tensors]
) -> Iterator[str]:
    """Tell how fast the two kinds of products are while they run, padding counted as work."""
    padded = [each["input_ids"].shape[1] for each in batches for _ in each["input_ids"]]
    real, done = sum(map(count_operations, lengths)), sum(map(count_operations, padded))
    with_weights = sum(map(count_weight_operations, padded))
    seconds = _by_part(counters)
    works = {WEIGHTS: with_weights, ATTENTION: done - with_weights}
    rates = (
        f"{part}, {works[part] * rounds / seconds[part] / 1e9 * available_cores():.0f} GOP/s"
        for part in works
        if seconds[part]
    )
    yield f"Padding adds {done / real - 1:.1%} of operations."
    yield f"While they run, padding counted as work, all cores together: {'; '.join(rates)}."
    yield ""
