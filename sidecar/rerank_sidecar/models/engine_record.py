"""Remembers, in a converted model's folder, which arithmetic was fastest on which CPU."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from rerank_sidecar.errors import ModelNotServable
from rerank_sidecar.models.arithmetic import (
    Arithmetic,
    candidates,
    explain,
    fastest,
    tokens_per_s,
)
from rerank_sidecar.models.cpu import Cpu, read_cpu
from rerank_sidecar.models.json_files import read_json_object
from rerank_sidecar.models.runtime import OpenVinoModel, load_openvino

_LOG = logging.getLogger(__name__)

RECORD_FILE = "engine.json"


def choose_at_conversion(
    float32: OpenVinoModel, int8: OpenVinoModel, max_tokens: int, folder: Path
) -> Arithmetic:
    """Time both forms of a model in every arithmetic, record the result and give the fastest."""
    cpu = read_cpu()
    timings = {
        each: tokens_per_s(int8 if each.multiplies_int8 else float32, each, max_tokens)
        for each in candidates(cpu)
    }
    return _record(folder, cpu, timings)


def recorded_choice(model_path: Path, max_tokens: int, *, is_int8: bool) -> tuple[Arithmetic, str]:
    """Give the arithmetic that is fastest for a converted model on this CPU, and why.

    On a CPU, or with an OpenVINO, on which the model was not timed before, it is timed now.
    """
    cpu, folder = read_cpu(), model_path.parent
    timings = _read(folder).get(_key(cpu))
    if not timings:
        model = load_openvino().Core().read_model(model_path)
        possible = candidates(cpu, multiplies_int8=[is_int8])
        timings = {each: tokens_per_s(model, each, max_tokens) for each in possible}
        # A cache that is only readable is timed at each start.
        with suppress(OSError):
            _record(folder, cpu, timings)
    of_this_form = {each: rate for each, rate in timings.items() if each.multiplies_int8 == is_int8}
    return fastest(of_this_form), explain(timings)


def _key(cpu: Cpu) -> str:
    return f"{cpu}, OpenVINO {load_openvino().get_version().partition('-')[0]}"


def _record(folder: Path, cpu: Cpu, timings: Mapping[Arithmetic, float]) -> Arithmetic:
    records = {**_read(folder), _key(cpu): dict(timings)}
    content = {
        name: {each.value: round(rate) for each, rate in rates.items()}
        for name, rates in records.items()
    }
    unfinished = folder / f"{RECORD_FILE}.unfinished"
    unfinished.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    unfinished.replace(folder / RECORD_FILE)
    return fastest(timings)


def _read(folder: Path) -> dict[str, dict[Arithmetic, float]]:
    try:
        record = read_json_object(folder / RECORD_FILE)
        return {
            cpu: {Arithmetic(name): float(rate) for name, rate in rates.items()}
            for cpu, rates in record.values.items()
        }
    except (ModelNotServable, ValueError, TypeError, AttributeError):
        _LOG.warning("timing %s again: its record of engines is damaged", folder)
        return {}
