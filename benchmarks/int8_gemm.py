"""Int8 matrix products by several libraries, to find what this machine's cores can do at best.

Each candidate multiplies activations [m, k] of 8 bits with constant weights [k, n] of 8 bits,
packed beforehand as each library likes it, with all cores at work.
"""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.machine import progress

Run = Callable[[], object]


@dataclass(frozen=True)
class Shape:
    """A product [m, k] x [k, n], done `repeats` times in a call, so that calling costs nothing."""

    m: int
    k: int
    n: int
    repeats: int

    @property
    def operations(self) -> int:
        """Count the operations of a call: a multiply-add is two."""
        return 2 * self.m * self.k * self.n * self.repeats

    def __str__(self) -> str:
        return f"{self.m}x{self.k}x{self.n}"


SHAPES = (Shape(512, 384, 1536, 8), Shape(2048, 2048, 2048, 1))


@dataclass
class Candidate:
    """A library's product: `make` gives a function that does it once, one for each stream."""

    library: str
    shape: Shape
    streams: int
    make: Callable[[], Run]
    kernel: str = ""
    rates: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Give operations per second of all cores together, the median of the rounds."""
        return statistics.median(self.rates)

    def measure(self, seconds: float) -> None:
        """Keep all streams busy for so many seconds and note the rate."""
        barrier = threading.Barrier(self.streams + 1)
        with ThreadPoolExecutor(self.streams) as pool:
            runs = [pool.submit(self._repeat, barrier, seconds) for _ in range(self.streams)]
            barrier.wait()
            started = time.perf_counter()
            calls = sum(run.result() for run in runs)
            self.rates.append(calls * self.shape.operations / (time.perf_counter() - started))

    def _repeat(self, barrier: threading.Barrier, seconds: float) -> int:
        run = self.make()
        for _ in range(2):
            run()
        barrier.wait()
        end, calls = time.perf_counter() + seconds, 0
        while time.perf_counter() < end:
            run()
            calls += 1
        return calls


def candidates(cores: int) -> Iterator[Candidate]:
    """Give what works here; a library that is missing or refuses is named on standard error."""
    for shape in SHAPES:
        for streams in sorted({1, cores}):
            for make in (_openvino, _onnxruntime, _torch_int_mm, _torch_linear):
                try:
                    yield from make(shape, streams, cores // streams)
                except (ImportError, RuntimeError) as error:
                    progress(f"{make.__name__[1:]} cannot do {shape}: {error}")


def _weights(shape: Shape) -> list[npt.NDArray[np.int8]]:
    random = np.random.default_rng(7)
    size = (shape.k, shape.n)
    return [random.integers(-63, 64, size, dtype=np.int8) for _ in range(shape.repeats)]


def _activations(shape: Shape) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(8).integers(0, 256, (shape.m, shape.k), dtype=np.uint8)


def _openvino(shape: Shape, streams: int, threads: int) -> Iterator[Candidate]:
    import openvino

    options: dict[str, Any] = {"NUM_STREAMS": streams, "INFERENCE_NUM_THREADS": streams * threads}
    options |= {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(_openvino_model(shape), "CPU", options)
    values = _activations(shape)

    def make() -> Run:
        request = compiled.create_infer_request()
        request.set_input_tensor(openvino.Tensor(values))
        return lambda: request.infer(share_outputs=True)

    kernels = {
        f"{node.rt_info['primitiveType'].value} {node.rt_info['runtimePrecision'].value}"
        for node in compiled.get_runtime_model().get_ops()
        if node.rt_info["layerType"].value in {"FullyConnected", "MatMul"}
    }
    yield Candidate("OpenVINO", shape, streams, make, ", ".join(sorted(kernels)))


def _openvino_model(shape: Shape) -> Any:  # noqa: ANN401
    """Make it of u8 activations and quantised weights, the form that NNCF's models come down to."""
    import openvino
    from openvino import opset13 as ops

    parameter = ops.parameter([shape.m, shape.k], np.uint8)
    activations = ops.multiply(ops.convert(parameter, "f32"), np.float32(0.02))
    products = []
    for weights in _weights(shape):
        low, high = np.float32(-1.27), np.float32(1.27)
        values = ops.constant(weights.astype(np.float32) / 100)
        quantized = ops.fake_quantize(values, low, high, low, high, levels=255)
        products.append(ops.matmul(activations, quantized, False, False))
    return openvino.Model(products, [parameter])


def _onnxruntime(shape: Shape, streams: int, threads: int) -> Iterator[Candidate]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    feed = {"activations": _activations(shape)}
    for operator, model in (
        ("MatMulInteger", _matmul_integer(shape)),
        ("QLinearMatMul", _qlinear_matmul(shape)),
    ):
        session = _session(onnxruntime, model, options)
        run = _bind(session, feed)
        yield Candidate("ONNX Runtime", shape, streams, run, operator)


def _bind(session: Any, feed: dict[str, npt.NDArray[np.uint8]]) -> Callable[[], Run]:  # noqa: ANN401
    return lambda: lambda: session.run(None, feed)


def _session(onnxruntime: Any, model: Any, options: Any) -> Any:  # noqa: ANN401
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "product.onnx")
        path.write_bytes(model.SerializeToString())
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _matmul_integer(shape: Shape) -> Any:  # noqa: ANN401
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("MatMulInteger", ["activations", f"w{i}", "zero"], [f"y{i}"])
        for i in range(shape.repeats)
    ]
    return _onnx_model(shape, nodes, TensorProto.INT32)


def _qlinear_matmul(shape: Shape) -> Any:  # noqa: ANN401
    from onnx import TensorProto, helper

    scales = ["scale", "zero"], ["scale", "weight_zero"], ["out_scale", "zero"]
    nodes = [
        helper.make_node(
            "QLinearMatMul",
            ["activations", *scales[0], f"w{i}", *scales[1], *scales[2]],
            [f"y{i}"],
        )
        for i in range(shape.repeats)
    ]
    return _onnx_model(shape, nodes, TensorProto.UINT8)


def _onnx_model(shape: Shape, nodes: list[Any], output: int) -> Any:  # noqa: ANN401
    from onnx import TensorProto, helper, numpy_helper

    constants = {f"w{i}": weights for i, weights in enumerate(_weights(shape))}
    constants |= {"zero": np.array(128, np.uint8), "weight_zero": np.array(0, np.int8)}
    constants |= {"scale": np.array(0.02, np.float32), "out_scale": np.array(2.0, np.float32)}
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "product",
        [helper.make_tensor_value_info("activations", TensorProto.UINT8, [shape.m, shape.k])],
        [
            helper.make_tensor_value_info(f"y{i}", output, [shape.m, shape.n])
            for i in range(shape.repeats)
        ],
        [numpy_helper.from_array(v, name) for name, v in constants.items() if name in used],
    )
    opset = [helper.make_opsetid("", 13)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8)


def _torch_int_mm(shape: Shape, streams: int, threads: int) -> Iterator[Candidate]:
    import torch

    activations = torch.from_numpy(_activations(shape).view(np.int8))
    weights = [torch.from_numpy(each) for each in _weights(shape)]
    torch._int_mm(activations, weights[0])  # refuses here where it cannot

    def make() -> Run:
        torch.set_num_threads(threads)
        return lambda: [torch._int_mm(activations, each) for each in weights]

    yield Candidate("torch", shape, streams, make, "_int_mm (oneDNN)")


def _torch_linear(shape: Shape, streams: int, threads: int) -> Iterator[Candidate]:
    import torch

    for engine in ("fbgemm", "onednn", "x86"):
        if engine not in torch.backends.quantized.supported_engines:
            continue
        torch.backends.quantized.engine = engine
        weights = [_packed(torch, each) for each in _weights(shape)]
        values = torch.from_numpy(_activations(shape).astype(np.float32))
        activations = torch.quantize_per_tensor(values, 1.0, 128, torch.quint8)
        make = _torch_linear_run(torch, activations, weights, threads)
        yield Candidate("torch", shape, streams, make, f"quantized linear ({engine})")


def _packed(torch: Any, weights: npt.NDArray[np.int8]) -> Any:  # noqa: ANN401
    values = torch.from_numpy(weights.T.astype(np.float32).copy())
    quantized = torch.quantize_per_tensor(values, 1.0, 0, torch.qint8)
    return torch.ops.quantized.linear_prepack(quantized, None)


def _torch_linear_run(
    torch: Any,  # noqa: ANN401
    activations: Any,  # noqa: ANN401
    weights: list[Any],
    threads: int,
) -> Callable[[], Run]:
    def make() -> Run:
        torch.set_num_threads(threads)
        linear = torch.ops.quantized.linear
        return lambda: [linear(activations, each, 2.0, 128) for each in weights]

    return make
