"""Reading the candidates that `rank` reorders: plain lines, or JSON Lines with `text` and `id`."""

from __future__ import annotations

import codecs
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from rerank_sidecar.errors import UnreadableInput
from rerank_sidecar.json_text import read_json
from rerank_sidecar.types import Document

_JSON_LINE = re.compile(rb'\{\s*("|$)')


@dataclass(frozen=True, slots=True)
class Candidate:
    """One text to rank and the line, from 1, that it stood on."""

    document: Document
    line: int


class _JsonLine(msgspec.Struct):
    text: str
    id: str | int | None = None


def read_candidates(file: Path | None) -> list[Candidate]:
    """Read a file, or standard input for None and `-`; blank lines are skipped.

    If the first line begins as a JSON object with a key does, every line must be one with `text`
    and perhaps `id`; other keys are ignored. Else each line is a text.

    Raises:
        UnreadableInput: nothing to read, not UTF-8, a malformed line, or no line at all.
    """
    name, content = _read(file)
    lines = content.removeprefix(codecs.BOM_UTF8).splitlines()
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not numbered:
        raise UnreadableInput(f"{name} has no text to rank")
    as_json = _JSON_LINE.match(numbered[0][1].lstrip()) is not None
    return list(_json_lines(name, numbered) if as_json else _text_lines(name, numbered))


def _read(file: Path | None) -> tuple[str, bytes]:
    piped = file is None or str(file) == "-"
    if piped and (sys.stdin is None or sys.stdin.isatty()):  # None: it was closed
        raise UnreadableInput("name a FILE, or pipe lines of text into the command")
    name = "standard input" if piped else str(file)
    try:
        return name, sys.stdin.buffer.read() if piped else Path(name).read_bytes()
    except OSError as error:
        raise UnreadableInput(f"cannot read {name}: {error.strerror or error}") from error


def _text_lines(name: str, numbered: list[tuple[int, bytes]]) -> Iterator[Candidate]:
    for number, line in numbered:
        try:
            yield Candidate(Document(line.decode().strip()), number)
        except UnicodeDecodeError as error:
            raise UnreadableInput(f"{name}, line {number}: not UTF-8 text") from error


def _json_lines(name: str, numbered: list[tuple[int, bytes]]) -> Iterator[Candidate]:
    for number, line in numbered:
        try:
            found = msgspec.convert(read_json(line.decode()), _JsonLine)
        except (msgspec.ValidationError, ValueError, RecursionError) as error:
            complaint = f'{name}, line {number}: not a JSON object with "text"'
            raise UnreadableInput(complaint) from error
        id = None if found.id is None else str(found.id)
        yield Candidate(Document(found.text, id), number)
