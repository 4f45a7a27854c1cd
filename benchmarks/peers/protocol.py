"""How the benchmark talks with a contender in a process of its own: JSON lines.

Standard library only, since it runs in every peer's environment. The first line in is
`{"model": FOLDER, "options": {...}}`; the answer says what was loaded. Every further line is
`{"query": TEXT, "documents": [TEXT, ...]}`; the answer holds the scores in input order and what
they took. Time is taken here, so that this conversation is not part of it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

Score = Callable[[str, Sequence[str]], Sequence[float]]
"""Gives a score for each document, in input order; a probability from 0 to 1."""


@dataclass
class Runner:
    """A loaded contender; `what` says with which versions and options, and may change."""

    score: Score
    what: Callable[[], str]
    close: Callable[[], None] = field(default=lambda: None)


def serve(load: Callable[[str, dict[str, Any]], Runner]) -> None:
    """Answer on standard output until the input ends; what libraries print goes to the errors."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(**values: object) -> None:
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    first = json.loads(sys.stdin.readline())
    runner = load(first["model"], first["options"])
    answer(what=runner.what())
    for line in sys.stdin:
        request = json.loads(line)
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        scores = runner.score(request["query"], request["documents"])
        wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
        values = [float(score) for score in scores]
        answer(scores=values, wall_s=wall_s, cpu_s=cpu_s, what=runner.what())
    runner.close()


def versions(*packages: str) -> str:
    """Name installed packages with their versions."""
    return ", ".join(f"{package} {version(package)}" for package in packages)
