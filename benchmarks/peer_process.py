"""A contender in a process of its own, run by the Python of its own virtual environment."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.machine import progress
from benchmarks.passages import Request

_ROOT = Path(__file__).resolve().parent.parent
_STAMP = "installed.txt"
_GRACE_S = 30


class PeerFailed(Exception):
    """A contender could not be installed, loaded or run; the text tells the last of its errors."""


@dataclass(frozen=True)
class Answer:
    """What a contender made of a request, and what that took."""

    scores: list[float]
    wall_s: float
    cpu_s: float


class PeerProcess:
    """Runs `benchmarks.peers.RUNNER`; a context that ends the process.

    Raises:
        PeerFailed: the process ended instead of answering.
    """

    def __init__(
        self, python: Path, runner: str, model: Path, options: dict[str, Any], log: Path
    ) -> None:
        self._log = log
        command = [str(python), "-m", f"benchmarks.peers.{runner}"]
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true"}
        if python != Path(sys.executable):
            environment.pop("PYTHONPATH", None)  # it names packages of this environment
        with log.open("w") as errors:
            self._process = subprocess.Popen(  # noqa: S603
                command,
                cwd=_ROOT,
                env=environment,
                text=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        self.what: str = self._ask(model=str(model), options=options)["what"]

    def __enter__(self) -> PeerProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._process.communicate(timeout=_GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()

    def answer(self, request: Request) -> Answer:
        """Have a request scored."""
        told = self._ask(query=request.query, documents=request.documents)
        self.what = told["what"]
        return Answer(told["scores"], told["wall_s"], told["cpu_s"])

    def _ask(self, **values: object) -> dict[str, Any]:
        try:
            assert self._process.stdin and self._process.stdout  # noqa: S101 - they are pipes
            self._process.stdin.write(json.dumps(values) + "\n")
            self._process.stdin.flush()
            told: dict[str, Any] = json.loads(self._process.stdout.readline())
        except (OSError, ValueError) as error:
            raise PeerFailed(_last_line(self._log.read_text(errors="replace"))) from error
        return told


def install(venvs: Path, name: str, requirements: Sequence[str], constraints: Path | None) -> Path:
    """Give the Python of a virtual environment with these packages, made if it is not there yet.

    Raises:
        PeerFailed: pip could not install them.
    """
    folder = venvs.expanduser().absolute() / name
    python, stamp = folder / "bin" / "python", folder / _STAMP
    wanted = "\n".join([*requirements, f"constraints: {_text(constraints)}"])
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    progress(f"installing {name}: {' '.join(requirements)}")
    shutil.rmtree(folder, ignore_errors=True)
    _run([sys.executable, "-m", "venv", str(folder)])
    options = ["-c", str(constraints.absolute())] if constraints else []
    _run([str(python), "-m", "pip", "install", "--quiet", *options, *requirements])
    stamp.write_text(wanted, encoding="utf-8")
    return python


def _text(path: Path | None) -> str:
    return path.read_text(encoding="utf-8") if path else ""


def _run(command: list[str]) -> None:
    result = subprocess.run(  # noqa: S603
        command, check=False, capture_output=True, text=True
    )
    if result.returncode:
        raise PeerFailed(_last_line(result.stderr))


def _last_line(errors: str) -> str:
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    return lines[-1] if lines else "it ended without a word"
