"""What every table says of the machine, and markdown tables."""

from __future__ import annotations

import datetime
import os
import platform
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rerank_sidecar.backends.cores import available_cores

_FLAGS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8")


def machine(packages: Sequence[str]) -> Iterator[str]:
    """Tell the date, the processor, the cores and the versions that count, one a line."""
    model, flags = _processor()
    now = datetime.datetime.now(datetime.UTC)
    load = os.getloadavg()[0]
    yield f"- date: {now:%Y-%m-%d %H:%M} UTC"
    yield f"- CPU: {model}; {available_cores()} cores usable of {os.cpu_count()}"
    yield f"- instructions: {', '.join(flag for flag in _FLAGS if flag in flags) or 'unknown'}"
    yield f"- load average at the end, the benchmark's own work included: {load:.1f}"
    yield f"- Python {platform.python_version()}, {', '.join(_versions(packages))}"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Give a markdown table line by line, between blank lines."""
    yield ""
    yield f"| {' | '.join(heads)} |"
    yield f"|{' --- |' * len(heads)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


def progress(text: str) -> None:
    """Tell on standard error what is being done."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def write(lines: Iterable[str], output: Path | None) -> None:
    """Print the report and, if asked, keep it in a file."""
    text = "\n".join(lines).rstrip() + "\n"
    sys.stdout.write(text)
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text, encoding="utf-8")


def _processor() -> tuple[str, set[str]]:
    facts: dict[str, str] = {}
    path = Path("/proc/cpuinfo")
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        name, _, value = line.partition(":")
        facts.setdefault(name.strip(), value.strip())
    name = facts.get("model name", platform.processor() or "unknown")
    if {"cpu family", "model"} <= facts.keys():
        name += f" (family {facts['cpu family']}, model {facts['model']})"
    return name, set(facts.get("flags", "").split())


def _versions(packages: Sequence[str]) -> Iterator[str]:
    for package in packages:
        try:
            yield f"{package} {version(package)}"
        except PackageNotFoundError:
            yield f"{package} not installed"
