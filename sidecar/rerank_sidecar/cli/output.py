"""Where the command line prints: results on standard output, everything else beside them."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

PIPE_WIDTH = 160
"""Columns of a table that goes into a file or a pipe, which has no width of its own."""

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""General category Cc, and Bidi_Control (Unicode's PropList.txt), which reorders what is shown."""


def results_console() -> Console:
    """Give the console for results; as wide as the terminal, or `PIPE_WIDTH` in a pipe."""
    width = None if sys.stdout.isatty() else PIPE_WIDTH
    return Console(width=width, highlight=False, markup=False, emoji=False)


def progress_console() -> Console:
    """Give the console for progress and complaints, on standard error."""
    return Console(stderr=True, highlight=False)


def plain_table(*columns: str) -> Table:
    """Make a table without lines, readable in a terminal, a file and an e-mail.

    The last column alone gives way when the table is too wide; see `one_line`.
    """
    table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for column in columns:
        table.add_column(column, no_wrap=column != columns[-1])
    return table


def one_line(text: str) -> Text:
    """Make a cell that is cut with an ellipsis, not wrapped; control characters become spaces."""
    return Text(_on_one_line(text), no_wrap=True, overflow="ellipsis")


def print_json(value: Any) -> None:  # noqa: ANN401
    """Print one JSON document."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def complain(message: str) -> None:
    """Print one line on standard error."""
    sys.stderr.write(f"rerank-sidecar: {_on_one_line(message)}\n")


def ensure_standard_output() -> None:
    """Take closed standard output (`>&-`, as some daemons are started) for `/dev/null`."""
    if sys.stdout is None:
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - open to the end


def leave_standard_output() -> None:
    """Let go of what standard output could not take, or it would fail once more at exit.

    See https://docs.python.org/3/library/signal.html#note-on-sigpipe.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())


def _on_one_line(text: str) -> str:
    return " ".join(_CONTROLS.sub(" ", text).split())
