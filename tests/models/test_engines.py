"""`auto` times what could run a model on this CPU, keeps the result and says it."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from rerank_sidecar.app import build_engine
from rerank_sidecar.models.arithmetic import Arithmetic
from rerank_sidecar.models.cpu import read_cpu
from rerank_sidecar.models.engine_record import RECORD_FILE
from rerank_sidecar.models.prepared import read_prepared
from rerank_sidecar.models.servable import ServableModel
from rerank_sidecar.settings import Settings, read_settings
from tests.models.prepared import prepared_model
from tests.models.tiny_models import save_tiny_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_tiny_model(tmp_path / "tiny", "bert")


def settings_for(folder: Path, engine: str = "auto", quantize: str = "int8") -> Settings:
    return read_settings(
        model=str(folder), cache_dir=folder.parent / "cache", engine=engine, quantize=quantize
    )


def place(model: ServableModel) -> Path:
    assert model.model_path is not None
    return model.model_path.parent


def test_conversion_times_every_engine_and_records_it(folder: Path) -> None:
    model = prepared_model(settings_for(folder))
    [(cpu, rates)] = json.loads((place(model) / RECORD_FILE).read_text("utf-8")).items()
    assert cpu.startswith(str(read_cpu()))
    assert {"float32", "int8"} <= set(rates)
    assert all(rate > 0 for rate in rates.values())
    assert model.arithmetic is not None
    assert model.arithmetic.multiplies_int8 is read_prepared(place(model)).is_int8
    assert "tokens/s on one core" in model.arithmetic_reason


def test_the_next_start_reads_the_record(folder: Path) -> None:
    model = prepared_model(settings_for(folder))
    path = place(model) / RECORD_FILE
    [(cpu, _)] = json.loads(path.read_text("utf-8")).items()
    is_int8 = read_prepared(place(model)).is_int8
    slow, fast = ("int8", "int8+bf16") if is_int8 else ("float32", "bf16")
    path.write_text(json.dumps({cpu: {slow: 1, fast: 5000}}), encoding="utf-8")
    assert prepared_model(settings_for(folder)).arithmetic is Arithmetic(fast)
    path.write_text(json.dumps({cpu: {slow: 5000, fast: 1}}), encoding="utf-8")
    assert prepared_model(settings_for(folder)).arithmetic is Arithmetic(slow)


@pytest.mark.parametrize("content", ['{"another CPU": {"float32": 5}}', "{", '{"x": 5}', None])
def test_an_unknown_cpu_or_a_damaged_record_is_timed_anew(
    folder: Path, content: str | None
) -> None:
    model = prepared_model(settings_for(folder))
    path = place(model) / RECORD_FILE
    [(cpu, _)] = json.loads(path.read_text("utf-8")).items()
    path.unlink() if content is None else path.write_text(content, encoding="utf-8")
    again = prepared_model(settings_for(folder))
    assert again.arithmetic is not None
    assert again.arithmetic.multiplies_int8 is read_prepared(place(model)).is_int8
    assert cpu in json.loads(path.read_text("utf-8"))


@pytest.mark.parametrize(
    ("engine", "quantize", "arithmetic", "is_int8"),
    [
        ("auto", "none", Arithmetic.FLOAT32, False),
        ("openvino-int8", "int8", Arithmetic.INT8, True),
        ("openvino-bf16", "int8", Arithmetic.BF16, False),
        ("openvino-float32", "int8", Arithmetic.FLOAT32, False),
    ],
)
def test_named_engines_are_not_timed(
    folder: Path, engine: str, quantize: str, arithmetic: Arithmetic, *, is_int8: bool
) -> None:
    model = prepared_model(settings_for(folder, engine, quantize))
    assert model.arithmetic is arithmetic
    assert read_prepared(place(model)).is_int8 is is_int8
    assert not (place(model) / RECORD_FILE).exists()


async def test_replies_and_the_log_name_the_engine(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        async with build_engine(settings_for(folder, "openvino-bf16", "none")) as engine:
            description = engine.models()[0]
    assert description.engine.endswith(" bf16")
    assert description.model.version.endswith("-bf16")
    assert "tiny runs on openvino" in caplog.text
    assert "the setting engine=openvino-bf16" in caplog.text
