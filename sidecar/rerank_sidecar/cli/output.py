"""Where the command line prints: results on standard output, everything else beside them."""

from __future__ import annotations

import json
import sys
import unicodedata
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

PIPE_WIDTH = 160
"""Columns of a table that goes into a file or a pipe, which has no width of its own."""


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
    safe = "".join(" " if unicodedata.category(each) == "Cc" else each for each in text)
    return Text(" ".join(safe.split()), no_wrap=True, overflow="ellipsis")


def print_json(value: Any) -> None:  # noqa: ANN401
    """Print one JSON document."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def complain(message: str) -> None:
    """Print one line on standard error."""
    sys.stderr.write(f"rerank-sidecar: {message}\n")
