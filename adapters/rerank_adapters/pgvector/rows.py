"""What every driver's `fetch` takes and gives: a plan before the query, new rows after it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypedDict, TypeVar, overload

from rerank_adapters.candidates import Arrangement, Candidates
from rerank_adapters.errors import RerankCallError
from rerank_adapters.messages import DocumentError, RerankResponse
from rerank_adapters.pgvector.search import Search
from rerank_adapters.pgvector.statement import Sql, check_count
from rerank_adapters.pgvector.vectors import vectors_of
from rerank_adapters.rerank import Rerank, WeightedSum, fields, render
from rerank_adapters.vectors import Vectors

Row_co = TypeVar("Row_co", covariant=True)
Row = TypeVar("Row")

Field = Callable[[Any, str], object]
"""Reads a column of a row, or raises `LookupError` or `AttributeError` if there is none."""

StoreScore = str | Callable[[Any], float | None] | None


class FetchOptions(TypedDict, total=False):
    """The keyword arguments that every driver's `fetch` has, and that may be left out.

    `store_score` is the store's own score of a row, such as its distance: the name of a column, or
    a function of the row; a `Search` has its own. `candidates` is the LIMIT of SQL that searches an
    HNSW index, whose settings are raised for so many while it runs; a `Search` and a `Select` tell
    that themselves.
    """

    store_score: StoreScore
    candidates: int | None


@dataclass(frozen=True, slots=True)
class RerankedRow(Generic[Row_co]):
    """A row in its new place: the driver's row as it came, and both scores.

    `score` is what the row stands here by, higher is better: the model's or, with `fuse`, the fused
    one; the store's own where the order is the store's. `store_score` is None where none was asked
    for, or it is NULL or NaN. `error` says why this row alone could not be scored: it
    stands last, with the worst score.
    """

    row: Row_co
    score: float | None
    store_score: float | None = None
    error: DocumentError | None = None


@dataclass(frozen=True, slots=True)
class RerankedRows(Sequence[RerankedRow[Row_co]]):
    """The rows of a query, best first, and how their order came about.

    `response` is the sidecar's answer about all candidates, None if the store found none.
    `missing_texts` is how many of the candidates had no text to read; they were scored as empty.
    `missing_vectors` is how many had no vectors to be reranked by; each has an `error`.
    """

    rows: tuple[RerankedRow[Row_co], ...]
    response: RerankResponse | None = None
    missing_texts: int = 0
    missing_vectors: int = 0

    @property
    def passed_through(self) -> RerankCallError | None:
        """Give the error for which the order is the store's own; None: it was reranked."""
        return None if self.response is None else self.response.passed_through

    @overload
    def __getitem__(self, index: int) -> RerankedRow[Row_co]: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[RerankedRow[Row_co], ...]: ...

    def __getitem__(
        self, index: int | slice
    ) -> RerankedRow[Row_co] | tuple[RerankedRow[Row_co], ...]:
        return self.rows[index]

    def __iter__(self) -> Iterator[RerankedRow[Row_co]]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, slots=True)
class Plan:
    """What `fetch` was asked for, checked before the database is.

    `text` is the query's. `count` is how many rows an index must be able to give; None: its
    settings stay. `limit` and `offset` are the page that is cut from the reranked rows.
    """

    rerank: Rerank
    text: str
    store_score: StoreScore = None
    count: int | None = None
    limit: int | None = None
    offset: int = 0
    search: Search | None = None

    @classmethod
    def of(
        cls,
        rerank: Rerank,
        query: object,
        params: object,
        options: Mapping[str, Any],
        page: tuple[int, int] | None = None,
    ) -> Plan:
        """Read the arguments of a `fetch`; `page` is limit and offset of a query that tells them.

        Raises:
            TypeError: an argument is unknown, or there are parameters beside a `Search`.
            ValueError: they ask for what cannot be done; the message says what.
        """
        unknown = options.keys() - FetchOptions.__annotations__.keys()
        if unknown:
            raise TypeError(f"fetch() has no argument {', '.join(sorted(unknown))}")
        plan = cls(rerank, rerank.query_text(), options.get("store_score"))
        count = options.get("candidates")
        if isinstance(query, Search):
            plan = plan._searching(query, params, count)
        else:
            plan = plan._reading(count, page)
        if isinstance(rerank.fuse, WeightedSum) and plan.store_score is None:
            raise ValueError("store_score: a WeightedSum needs it")
        return plan

    @property
    def sql(self) -> Sql | None:
        """Give the query that is written here; None: it is the caller's own."""
        if self.search is None or self.count is None:
            return None
        return self.search.sql(self.count)

    def candidates(
        self, rows: Sequence[Any], field: Field, columns: Sequence[str] = ()
    ) -> Candidates:
        """Read the rows that the store found; `columns` are those of its answer.

        Raises:
            ValueError: they have no such column or two, or the store's score is no number.
        """
        self._check_names(columns)
        contents = tuple(self._contents(rows, field))
        if self.store_score is None:
            return Candidates(contents)
        return Candidates(contents, tuple(self._score(row, field) for row in rows))

    def reranked(self, rows: Sequence[Row], arrangement: Arrangement) -> RerankedRows[Row]:
        """Make new rows of those that the store found."""
        page = arrangement.page(self.rerank, self.limit, self.offset)
        placed = (
            RerankedRow(rows[each.index], each.score, each.store_score, each.error) for each in page
        )
        return RerankedRows(
            tuple(placed),
            arrangement.response,
            arrangement.missing_texts,
            arrangement.missing_vectors,
        )

    def _searching(self, search: Search, params: object, count: int | None) -> Plan:
        if params:
            raise TypeError("params: a Search has its own")
        if count is not None:
            raise ValueError("candidates: a Search has its limit and oversample")
        plan = replace(self, search=search, store_score=self.store_score or search.distance)
        return plan._paged(search.limit, search.offset)

    def _reading(self, count: int | None, page: tuple[int, int] | None) -> Plan:
        if count is not None:
            check_count("candidates", count, 1)
        if page is not None:
            return replace(self, count=count)._paged(*page)
        if self.rerank.oversample is not None:
            raise ValueError(
                "oversample: this query's LIMIT is not known here: raise it and give top_n, or use "
                "a Search"
            )
        return replace(self, count=count)

    def _paged(self, limit: int, offset: int) -> Plan:
        """Let the store find enough rows for this page, from its first one on."""
        wanted = self.rerank.candidates(limit, offset)
        return replace(self, count=max(self.count or 0, wanted), limit=limit, offset=offset)

    def _contents(self, rows: Sequence[Any], field: Field) -> Iterator[str | Vectors | None]:
        """Read what the model is given of each row."""
        if self.rerank.vectors is None:
            read = _checked("prop", field)
            return (render(self.rerank.prop, row, read) for row in rows)
        read = _checked("vectors", field)
        return (vectors_of(read(row, self.rerank.vectors)) for row in rows)

    def _check_names(self, columns: Sequence[str]) -> None:
        asked = {
            "prop": fields(self.rerank.prop),
            "vectors": (self.rerank.vectors,),
            "store_score": (self.store_score,),
        }
        for argument, names in asked.items():
            for name in names:
                if columns.count(name) > 1:
                    raise ValueError(f"{argument}: the rows have several columns {name!r}")

    def _score(self, row: object, field: Field) -> float | None:
        name = self.store_score
        value = name(row) if callable(name) else _checked("store_score", field)(row, str(name))
        if value is None:
            return None
        score = _number(value)
        if math.isnan(score):
            return None
        if self.search is not None and name == self.search.distance:
            return self.search.score(score)
        return score


def by_column(columns: Sequence[str]) -> Field:
    """Read rows of any kind that has a query's columns as keys, as attributes or in their order."""
    positions = {name: position for position, name in enumerate(columns)}

    def field(row: Any, name: str) -> object:  # noqa: ANN401
        if isinstance(row, Mapping):
            return row[name]
        if isinstance(row, (tuple, list)) and len(row) == len(columns):
            return row[positions[name]]
        if isinstance(row, str):  # of scalar_row; the methods of a text are no columns
            raise LookupError(name)
        return getattr(row, name)

    return field


def _checked(argument: str, field: Field) -> Field:
    def read(row: Any, name: str) -> object:  # noqa: ANN401
        try:
            return field(row, name)
        except (LookupError, AttributeError) as error:
            raise ValueError(f"{argument}: the rows have no column {name!r}") from error

    return read


def _number(value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]  # whatever the column holds
    except (TypeError, ValueError):
        # The value may be a document's text, which no message may carry.
        raise ValueError(f"store_score: must be a number, not {type(value).__name__}") from None
