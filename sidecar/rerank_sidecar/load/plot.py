"""A picture of a run: how latency is spread under each load, and what each load got done."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rerank_sidecar.errors import MissingExtra, UnreadableInput
from rerank_sidecar.load.measurement import Measurement

_TAIL = 1000
"""The curves end at the 99.9th percentile: one request in so many is slower."""


def require_plotting() -> None:
    """Check that a picture can be drawn, which is better known before the load than after it.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401 - the check itself
    except ModuleNotFoundError as error:
        raise MissingExtra("bench", "--plot") from error


def plot(measurements: Sequence[Measurement], title: str, file: Path) -> None:
    """Draw latency by percentile and requests per second by load; the file's name says the format.

    The percentiles are spaced by how rare the slower requests are, as in HdrHistogram's plots.

    Raises:
        UnreadableInput: the file cannot be written, or matplotlib does not know its format.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    latency, rates = figure.subplots(1, 2)
    _plot_latency(latency, measurements)
    _plot_rates(rates, measurements)
    figure.suptitle(title, fontsize=10)
    try:
        figure.savefig(file, dpi=130)
    except (OSError, ValueError) as error:
        raise UnreadableInput(f"cannot write {file}: {error}") from error


def _plot_latency(axes: Any, measurements: Sequence[Measurement]) -> None:  # noqa: ANN401
    from matplotlib.ticker import LogLocator

    rarity = np.geomspace(1, _TAIL, 100)
    for measured in measurements:
        if (found := measured.latencies_s).size:
            shown = rarity[rarity <= max(2, found.size)]
            values = np.percentile(found, 100 * (1 - 1 / shown), method="inverted_cdf")
            axes.plot(shown, values * 1000, label=str(measured.load))
            axes.legend(title="load", fontsize=8)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="percentile of answered requests",
        ylabel="latency in ms",
        xticks=[1, 2, 10, 100, _TAIL],
        xticklabels=["0", "50", "90", "99", "99.9"],
    )
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")
    axes.grid(visible=True, alpha=0.25)


def _plot_rates(axes: Any, measurements: Sequence[Measurement]) -> None:  # noqa: ANN401
    places = np.arange(len(measurements))
    for shift, name in enumerate(("offered", "answered", "goodput")):
        heights = [getattr(measured, f"{name}_per_s") for measured in measurements]
        axes.bar(places + 0.27 * (shift - 1), heights, width=0.25, label=name)
    axes.margins(y=0.25)  # room for the legend
    axes.set(ylabel="requests per second", xticks=places)
    axes.set_xticklabels([str(measured.load) for measured in measurements], fontsize=8)
    axes.legend(fontsize=8)
    axes.grid(visible=True, axis="y", alpha=0.25)
