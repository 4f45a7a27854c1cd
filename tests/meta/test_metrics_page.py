"""docs/metrics.md and telemetry/metrics.py name the same metrics, in the same words."""

import re
from pathlib import Path

import pytest
from prometheus_client.metrics import MetricWrapperBase

from rerank_sidecar.telemetry import metrics

PAGE = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text("utf-8")
METRICS = [each for each in vars(metrics).values() if isinstance(each, MetricWrapperBase)]
_ROW = re.compile(r"^\| `(rerank_sidecar_\w+)` \| (\w+) \| (.*?) \| (.*) \|$", re.MULTILINE)
_SUFFIXES = {"counter": ["_total"], "gauge": [""], "histogram": ["", "_bucket", "_sum", "_count"]}


def _names(metric: MetricWrapperBase) -> list[str]:
    """Give the name under which the page lists a metric, then those of its other samples."""
    return [f"{metric._name}{suffix}" for suffix in _SUFFIXES[str(metric._type)]]


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: _names(metric)[0])
def test_every_metric_has_its_row(metric: MetricWrapperBase) -> None:
    rows = {name: row for name, *row in _ROW.findall(PAGE)}
    kind, labels, meaning = rows[_names(metric)[0]]
    assert kind == metric._type
    assert labels == ", ".join(f"`{each}`" for each in metric._labelnames)
    assert meaning == metric._documentation


def test_every_name_on_the_page_is_a_metrics() -> None:
    known = {name for metric in METRICS for name in _names(metric)}
    assert set(re.findall(r"\brerank_sidecar_\w+", PAGE)) <= known
