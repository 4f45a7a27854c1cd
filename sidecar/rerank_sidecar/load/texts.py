"""Queries and documents to send: made from the package's own passages, or read from files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np

from rerank_sidecar.errors import UnreadableInput
from rerank_sidecar.evaluation.files import first_existing, malformed, numbered_lines
from rerank_sidecar.json_text import read_json
from rerank_sidecar.models.calibration import read_calibration_pairs

MEAN_WORDS = 56
"""Words of an MS MARCO passage, on average (Bajaj et al., arXiv:1611.09268)."""

_SPREAD = 0.39
"""Standard deviation of the logarithm of a passage's words, as in MS MARCO."""


class Texts(Protocol):
    """A supply of texts that does not end."""

    @property
    def source(self) -> str:
        """Say where the texts come from, in a few words."""
        ...

    def query(self) -> str:
        """Give a query, hardly ever the same one twice."""
        ...

    def documents(self, count: int) -> tuple[str, ...]:
        """Give the next documents."""
        ...


class _Queries:
    """Queries of words that are drawn from a stock, and so differ from one another.

    Searches for the same thing are known by their query; load of few queries would flatter.
    """

    def __init__(self, examples: Sequence[str], rng: np.random.Generator) -> None:
        self._words = " ".join(examples).split()
        self._lengths = [len(each.split()) for each in examples]
        self._rng = rng

    def draw(self) -> str:
        length = self._lengths[self._rng.integers(len(self._lengths))]
        drawn = self._rng.integers(len(self._words), size=length)
        return " ".join(self._words[place] for place in drawn)


class MadeTexts:
    """Documents of two spans of words from the package's passages, practically all different.

    Their lengths in words are log-normal with the spread of MS MARCO's passages around
    `mean_words`; at least a tenth and at most four times that.
    """

    def __init__(self, rng: np.random.Generator, mean_words: int = MEAN_WORDS) -> None:
        pairs = read_calibration_pairs()
        self._words = " ".join(passage for _, passage in pairs).split()
        self._queries = _Queries([query for query, _ in pairs], rng)
        self._mean_words = mean_words
        self._rng = rng

    @property
    def source(self) -> str:
        """Name the package's passages and the mean length."""
        return f"made of the package's own passages, {self._mean_words} words on average"

    def query(self) -> str:
        """Give a query of a few words."""
        return self._queries.draw()

    def documents(self, count: int) -> tuple[str, ...]:
        """Make documents."""
        mean = self._mean_words
        lengths = self._rng.lognormal(np.log(mean) - _SPREAD**2 / 2, _SPREAD, count)
        words = np.clip(lengths.round(), max(1, mean // 10), 4 * mean).astype(int)
        return tuple(
            f"{self._span((length + 1) // 2)} {self._span(length // 2)}".rstrip()
            for length in words.tolist()
        )

    def _span(self, length: int) -> str:
        stock = self._words
        start = int(self._rng.integers(len(stock)))
        span = stock[start : start + length]
        while len(span) < length:  # on from the beginning
            span += stock[: length - len(span)]
        return " ".join(span)


class GivenTexts:
    """Documents as they are, in an order drawn once, from the first again after the last."""

    def __init__(
        self,
        passages: Sequence[str],
        rng: np.random.Generator,
        *,
        source: str,
        queries: Sequence[str] = (),
    ) -> None:
        self._passages = [passages[place] for place in rng.permutation(len(passages))]
        self._queries = _Queries(queries or _beginnings(self._passages), rng)
        self._source = source
        self._next = 0

    @property
    def source(self) -> str:
        """Name the file or folder and the number of its texts."""
        return f"{len(self._passages)} texts of {self._source}"

    def query(self) -> str:
        """Give a query made of words of the collection's queries, or else of its texts."""
        return self._queries.draw()

    def documents(self, count: int) -> tuple[str, ...]:
        """Give the next documents of the order."""
        places = range(self._next, self._next + count)
        self._next += count
        return tuple(self._passages[place % len(self._passages)] for place in places)


def read_texts(path: Path, rng: np.random.Generator) -> GivenTexts:
    """Read the documents of a file, or those and the queries of a BEIR-style folder.

    A file, gzipped if its name ends in `.gz`, holds JSON Lines with `text` and perhaps `title`, or
    one text a line. A folder holds `corpus.jsonl[.gz]` and `queries.jsonl[.gz]`.

    Raises:
        UnreadableInput: a file is missing, malformed or empty.
    """
    if not path.is_dir():
        return GivenTexts(_read_lines(path), rng, source=path.name)
    corpus = _read_lines(first_existing(path, "corpus.jsonl", "corpus.jsonl.gz"))
    queries = _read_lines(first_existing(path, "queries.jsonl", "queries.jsonl.gz"))
    return GivenTexts(corpus, rng, source=path.resolve().name, queries=queries)


class _Line(msgspec.Struct):
    text: str
    title: str = ""


def _read_lines(path: Path) -> list[str]:
    lines = list(numbered_lines(path))
    if not lines:
        raise UnreadableInput(f"{path} has no texts")
    as_json = lines[0][1].startswith(b"{")
    return [_read_line(path, number, line, as_json) for number, line in lines]


def _read_line(path: Path, number: int, line: bytes, as_json: bool) -> str:
    try:
        if not as_json:
            return line.decode()
        found = msgspec.convert(read_json(line.decode()), _Line)
    except (msgspec.ValidationError, ValueError, RecursionError) as error:
        expected = 'a JSON object with "text"' if as_json else "UTF-8 text"
        raise malformed(path, number, expected) from error
    return f"{found.title} {found.text}".lstrip()


def _beginnings(passages: Sequence[str]) -> list[str]:
    return [" ".join(each.split()[:6]) for each in passages]
