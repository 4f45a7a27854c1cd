"""The arithmetic is what the settings ask for, else the fastest by more than noise."""

from __future__ import annotations

import pytest

from rerank_sidecar.errors import InvalidSetting
from rerank_sidecar.models.arithmetic import (
    Arithmetic,
    builtin_arithmetic,
    candidates,
    explain,
    fastest,
    wanted_arithmetic,
)
from rerank_sidecar.models.cpu import Cpu
from rerank_sidecar.settings import EngineChoice, read_settings

FLOAT32, BF16 = Arithmetic.FLOAT32, Arithmetic.BF16
INT8, INT8_BF16 = Arithmetic.INT8, Arithmetic.INT8_BF16

OLD = Cpu("old", ("avx2",))
NEW = Cpu("new", ("avx2", "avx512_vnni", "avx512_bf16"))


@pytest.mark.parametrize(
    ("engine", "quantize", "expected"),
    [
        ("auto", "int8", None),
        ("auto", "none", FLOAT32),
        ("openvino-int8", "int8", INT8),
        ("openvino-bf16", "int8", BF16),
        ("openvino-bf16", "none", BF16),
        ("openvino-float32", "int8", FLOAT32),
        ("openvino-float32", "none", FLOAT32),
    ],
)
def test_settings_name_it(engine: str, quantize: str, expected: Arithmetic | None) -> None:
    settings = read_settings(engine=engine, quantize=quantize)
    assert wanted_arithmetic(settings) is expected


def test_int8_kernels_for_an_exact_model_contradict_each_other() -> None:
    with pytest.raises(InvalidSetting, match="quantize"):
        wanted_arithmetic(read_settings(engine="openvino-int8", quantize="none"))


@pytest.mark.parametrize(
    ("engine", "cpu", "expected"),
    [
        ("auto", OLD, INT8),
        ("auto", NEW, INT8_BF16),
        ("openvino-int8", NEW, INT8),
        ("openvino-bf16", NEW, BF16),
        ("openvino-float32", NEW, FLOAT32),
    ],
)
def test_the_embedded_model_follows_a_rule(engine: str, cpu: Cpu, expected: Arithmetic) -> None:
    assert builtin_arithmetic(EngineChoice(engine), cpu)[0] is expected


@pytest.mark.parametrize("engine", ["torch-float32", "torch-bf16", "onnxruntime-int8"])
def test_other_engines_cannot_read_the_embedded_model(engine: str) -> None:
    with pytest.raises(InvalidSetting, match=f"engine: `{engine}` cannot read the embedded model"):
        builtin_arithmetic(EngineChoice(engine), NEW)


def test_bfloat16_is_tried_only_where_the_cpu_multiplies_it() -> None:
    assert candidates(OLD) == [FLOAT32, INT8]
    assert candidates(NEW) == [FLOAT32, BF16, INT8, INT8_BF16]
    assert candidates(NEW, multiplies_int8=[True]) == [INT8, INT8_BF16]


@pytest.mark.parametrize(
    ("timings", "expected"),
    [
        ({FLOAT32: 1000, BF16: 1500, INT8: 2500, INT8_BF16: 3000}, INT8_BF16),
        ({FLOAT32: 1000, BF16: 1500, INT8: 2500, INT8_BF16: 2550}, INT8),
        ({INT8: 900, FLOAT32: 1000}, FLOAT32),
        ({INT8_BF16: 1015, INT8: 1000, FLOAT32: 990}, FLOAT32),
    ],
)
def test_fastest(timings: dict[Arithmetic, float], expected: Arithmetic) -> None:
    assert fastest(timings) is expected


def test_timings_in_words() -> None:
    text = explain({FLOAT32: 1000.4, INT8: 2500.0})
    assert text == "tokens/s on one core: int8 2500, float32 1000"


def test_only_bfloat16_arithmetic_lets_openvino_use_it() -> None:
    hints = {each: each.options["INFERENCE_PRECISION_HINT"] for each in Arithmetic}
    assert hints == {FLOAT32: "f32", BF16: "bf16", INT8: "f32", INT8_BF16: "bf16"}
