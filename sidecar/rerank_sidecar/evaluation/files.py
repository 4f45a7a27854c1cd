"""Reading files line by line, gzipped or not, with errors that name the file and the line."""

from __future__ import annotations

import codecs
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

from rerank_sidecar.errors import UnreadableInput


def first_existing(folder: Path, *names: str) -> Path:
    """Find the first of these files that the folder has.

    Raises:
        UnreadableInput: it has none of them.
    """
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise UnreadableInput(f"{folder} has no {' or '.join(names)}")


def numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield each line that is not blank with its number from 1; a name in `.gz` is unpacked.

    Raises:
        UnreadableInput: the file cannot be opened or unpacked.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if stripped := line.removeprefix(codecs.BOM_UTF8).strip():
                    yield number, stripped
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UnreadableInput(f"cannot read {path}: {reason}") from error


def numbered_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the columns, parted by spaces or tabs, of each line that is not blank.

    Raises:
        UnreadableInput: the file cannot be read, or is not UTF-8.
    """
    for number, line in numbered_lines(path):
        try:
            yield number, [column.decode() for column in line.split()]
        except UnicodeDecodeError as error:
            raise malformed(path, number, "UTF-8 text") from error


def malformed(path: Path, number: int, expected: str) -> UnreadableInput:
    """Say that a line is not what it should be, without quoting it."""
    return UnreadableInput(f"{path}, line {number}: not {expected}")
