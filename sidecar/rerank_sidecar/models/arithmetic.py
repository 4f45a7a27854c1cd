"""Which arithmetic runs a model: what the settings ask for, or what is fastest on this CPU."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum

import numpy as np

from rerank_sidecar.errors import InvalidSetting
from rerank_sidecar.models.cpu import Cpu, read_cpu
from rerank_sidecar.models.runtime import OpenVinoModel, load_openvino
from rerank_sidecar.settings import EngineChoice, Quantization, Settings

_TIMED_SEQUENCES = 4
_TIMED_TOKENS = 96
_TIMED_S = 0.5
_LEAST_PASSES = 2

_WORTH_A_CHANGE = 1.03
"""Less exact arithmetic has to be this much faster: below that lies the noise of measuring."""


class Arithmetic(StrEnum):
    """In which numbers a model's matrices are multiplied and everything else is computed."""

    FLOAT32 = "float32"
    BF16 = "bf16"
    INT8 = "int8"
    """Matrices in 8-bit integers, the rest in float32."""

    INT8_BF16 = "int8+bf16"
    """Matrices in 8-bit integers, the rest in bfloat16."""

    @property
    def multiplies_int8(self) -> bool:
        """Tell whether matrices are multiplied as 8-bit integers."""
        return self in {Arithmetic.INT8, Arithmetic.INT8_BF16}

    @property
    def options(self) -> dict[str, str]:
        """Give the options with which OpenVINO compiles a model for this arithmetic."""
        has_bf16 = self in {Arithmetic.BF16, Arithmetic.INT8_BF16}
        options = {"INFERENCE_PRECISION_HINT": "bf16" if has_bf16 else "f32"}
        if not self.multiplies_int8:
            # Otherwise the embedded model's file asks for 8 bits itself.
            options["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = "0"
        return options


_EXPLICIT = {
    EngineChoice.OPENVINO_INT8: Arithmetic.INT8,
    EngineChoice.OPENVINO_BF16: Arithmetic.BF16,
    EngineChoice.OPENVINO_FLOAT32: Arithmetic.FLOAT32,
    EngineChoice.ONNXRUNTIME_INT8: Arithmetic.INT8,
    EngineChoice.ONNXRUNTIME_BF16: Arithmetic.BF16,
    EngineChoice.ONNXRUNTIME_FLOAT32: Arithmetic.FLOAT32,
}


def wanted_arithmetic(settings: Settings) -> Arithmetic | None:
    """Give the arithmetic that the settings name for a model that is converted; None: measure.

    `quantize=none` promises exact scores, so nothing is left to measure there.

    Raises:
        InvalidSetting: int8 kernels for a model that is not to be quantised, or arithmetic that the
            runtime does not have on this CPU.
    """
    if settings.engine is EngineChoice.ONNXRUNTIME_BF16 and not read_cpu().is_arm_with_bfloat16:
        raise InvalidSetting(
            "engine: `onnxruntime-bf16` needs an Arm CPU with bfloat16, on no other does ONNX "
            "Runtime multiply it; `openvino-bf16` does on x86"
        )
    wanted = _EXPLICIT.get(settings.engine)
    if settings.quantize is Quantization.INT8:
        return wanted
    if wanted is Arithmetic.INT8:
        raise InvalidSetting(f"engine: `{settings.engine.value}` needs `quantize` to be `int8`")
    return wanted or Arithmetic.FLOAT32


def builtin_arithmetic(engine: EngineChoice, cpu: Cpu) -> tuple[Arithmetic, str]:
    """Choose the embedded model's arithmetic, and say why.

    By rule and not by measurement, so that the server starts within two seconds and always alike;
    docs/embedded-model.md has the figures that the rule comes from.

    Raises:
        InvalidSetting: an engine that cannot read the embedded model.
    """
    wanted = _EXPLICIT.get(engine)
    if engine.is_onnxruntime or (wanted is None and engine is not EngineChoice.AUTO):
        raise InvalidSetting(
            f"engine: `{engine.value}` cannot read the embedded model, which is an OpenVINO file"
        )
    if wanted is not None:
        return wanted, f"the setting engine={engine.value}"
    if cpu.has_bfloat16:
        return Arithmetic.INT8_BF16, "this CPU multiplies bfloat16; measured in embedded-model.md"
    return Arithmetic.INT8, "this CPU does not multiply bfloat16"


def candidates(cpu: Cpu, *, multiplies_int8: Sequence[bool] = (False, True)) -> list[Arithmetic]:
    """List what may be fastest on a CPU, the most exact first."""
    return [
        arithmetic
        for arithmetic in Arithmetic
        if arithmetic.multiplies_int8 in multiplies_int8
        and (cpu.has_bfloat16 or arithmetic in {Arithmetic.FLOAT32, Arithmetic.INT8})
    ]


def tokens_per_s(model: OpenVinoModel, arithmetic: Arithmetic, max_tokens: int) -> float:
    """Time a model on one core: the best of the passes that fit into half a second, at least two.

    The best and not the mean, because what else the machine does only ever makes a pass slower.
    """
    run, tokens = _timed_pass(model, arithmetic, max_tokens)
    run()
    passes: list[float] = []
    end = time.perf_counter() + _TIMED_S
    while len(passes) < _LEAST_PASSES or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        passes.append(time.perf_counter() - start)
    return tokens / min(passes)


def fastest(timings: Mapping[Arithmetic, float]) -> Arithmetic:
    """Choose by tokens per second; the more exact one wins where the gain is within the noise."""
    in_order = sorted(timings, key=list(Arithmetic).index)
    best = in_order[0]
    for arithmetic in in_order[1:]:
        if timings[arithmetic] > timings[best] * _WORTH_A_CHANGE:
            best = arithmetic
    return best


def explain(timings: Mapping[Arithmetic, float]) -> str:
    """Tell the timings in a few words, the fastest first."""
    in_order = sorted(timings.items(), key=lambda item: -item[1])
    return "tokens/s on one core: " + ", ".join(f"{name} {rate:.0f}" for name, rate in in_order)


def _timed_pass(
    model: OpenVinoModel, arithmetic: Arithmetic, max_tokens: int
) -> tuple[Callable[[], object], int]:
    options = {"NUM_STREAMS": "1", "INFERENCE_NUM_THREADS": "1", **arithmetic.options}
    request = load_openvino().Core().compile_model(model, "CPU", options).create_infer_request()
    shape = (_TIMED_SEQUENCES, min(_TIMED_TOKENS, max_tokens))
    # Ids that every vocabulary has.
    ids = 5 + np.arange(shape[0] * shape[1], dtype=np.int64).reshape(shape) % 10
    inputs = {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "token_type_ids": np.zeros_like(ids),
    }
    batch = {name: inputs[name] for name in (port.get_any_name() for port in model.inputs)}
    return lambda: request.infer(batch, share_inputs=True, share_outputs=True), ids.size
