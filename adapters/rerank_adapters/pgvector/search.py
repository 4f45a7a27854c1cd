"""`Search`: a query for the nearest neighbours of a vector, written so that an index serves it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from rerank_adapters.pgvector.statement import Parameter, Sql, check_count, quoted, with_places

Metric = Literal["cosine", "l2", "inner_product", "l1", "hamming", "jaccard"]

OPERATORS: Mapping[str, str] = MappingProxyType(
    {
        "cosine": "<=>",
        "l2": "<->",
        "inner_product": "<#>",
        "l1": "<+>",
        "hamming": "<~>",
        "jaccard": "<%>",
    }
)
"""pgvector's operators. All of them give distances: `<#>` is the inner product times -1."""

_BITS = ("hamming", "jaccard")
_SIGNS: Mapping[str, str] = MappingProxyType({"gt": ">", "gte": ">=", "lt": "<", "lte": "<="})


@dataclass(frozen=True, slots=True)
class Range:
    """The values of a column between two bounds, either of which may be left out.

    `gt` and `lt` leave out the bound itself, `gte` and `lte` do not.

    Raises:
        ValueError: there is no bound at all.
    """

    gt: object = None
    gte: object = None
    lt: object = None
    lte: object = None

    def __post_init__(self) -> None:
        if not self.bounds:
            raise ValueError("a Range must have a bound: gt, gte, lt or lte")

    @property
    def bounds(self) -> Mapping[str, object]:
        """Give the bounds that there are, by their operators."""
        every = {sign: getattr(self, name) for name, sign in _SIGNS.items()}
        return {sign: value for sign, value in every.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Condition:
    """SQL of the caller's own, for what filters cannot say; true for the rows that are wanted.

    `sql` has `%s` for each of the parameters, in their order and with every driver, and `%%` for a
    percent sign. Only `parameters` may hold what users type.

    Raises:
        ValueError: places and parameters are not as many, or a percent sign stands alone.
    """

    sql: str
    parameters: Sequence[object] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        list(with_places(self.sql, self.parameters))


@dataclass(frozen=True, slots=True)
class Search:
    """The rows of a table that are nearest to a vector, the nearest first.

    `table` is a name or (schema, name). `columns` come back, and the distance as one more, which
    `distance` names. `vector` is a list of numbers or what NumPy and pgvector make of it; of bits
    for `hamming` and `jaccard`. `filters` gives the values that columns must have: one value, None
    for NULL, a list of which any will do, or a `Range`; `condition` says the rest. Rows without an
    embedding are not found.

    The store's score of a row is its distance; for `inner_product` the inner product itself.

    Raises:
        TypeError: a name is no text, `columns` is one string, `vector` is no vector, or `limit` or
            `offset` no int.
        ValueError: a value is out of range, or two columns have one name; the message names it.
    """

    table: str | tuple[str, str]
    columns: Sequence[str]
    embedding: str
    vector: object = field(repr=False)
    metric: Metric = "cosine"
    filters: Mapping[str, object] = field(default_factory=dict, repr=False)
    condition: Condition | None = None
    limit: int = 10
    offset: int = 0
    distance: str = "distance"

    def __post_init__(self) -> None:
        if self.metric not in OPERATORS:
            raise ValueError(f"metric: must be one of {', '.join(OPERATORS)}")
        if isinstance(self.columns, str):
            raise TypeError("columns: must be a list of names, not one string")
        if not self.columns:
            raise ValueError("columns: must name at least one")
        check_count("limit", self.limit, 1)
        check_count("offset", self.offset, 0)
        names = [*self.columns, self.distance]
        if len(set(names)) < len(names):
            raise ValueError(f"columns: two have one name, or one is named {self.distance!r}")
        self.sql(1)

    def sql(self, count: int) -> Sql:
        """Write the query for so many rows from the first one on."""
        columns = ", ".join(map(quoted, self.columns))
        embedding, distance = quoted(self.embedding), quoted(self.distance)
        return (
            f"WITH ann AS MATERIALIZED (SELECT {columns}, {embedding} {OPERATORS[self.metric]} ",
            *_cast(self.vector, self.metric),
            f" AS {distance} FROM {_table(self.table)} WHERE {embedding} IS NOT NULL",
            *self._conditions(),
            f" ORDER BY {distance} LIMIT ",
            Parameter(count),
            # An index that scans on gives rows only roughly in order. The sum is there because the
            # planner thinks otherwise, and would leave out the sort (PostgreSQL 17 and later).
            ") SELECT * FROM ann ORDER BY ",
            f"{distance} + 0",
        )

    def score(self, distance: float) -> float:
        """Make the store's score of a distance."""
        return -distance if self.metric == "inner_product" else distance

    def _conditions(self) -> Iterator[str | Parameter]:
        for name, wanted in self.filters.items():
            yield " AND "
            yield from _condition(quoted(name), wanted)
        if self.condition is not None:
            yield " AND ("
            yield from with_places(self.condition.sql, self.condition.parameters)
            yield "\n)"  # behind a comment, should it end with one


def _table(table: str | tuple[str, str]) -> str:
    names = (table,) if isinstance(table, str) else table
    if len(names) not in {1, 2}:
        raise ValueError("table: must be a name or (schema, name)")
    return ".".join(map(quoted, names))


def _condition(column: str, wanted: object) -> Iterator[str | Parameter]:
    if wanted is None:
        yield f"{column} IS NULL"
    elif isinstance(wanted, Range):
        for position, (sign, bound) in enumerate(wanted.bounds.items()):
            yield f"{' AND ' if position else ''}{column} {sign} "
            yield Parameter(bound)
    elif isinstance(wanted, (list, tuple, set, frozenset)):
        yield from _any_of(column, wanted)
    else:
        yield f"{column} = "
        yield Parameter(wanted)


def _any_of(column: str, wanted: Iterable[object]) -> Iterator[str | Parameter]:
    wanted = list(wanted)
    values = [value for value in wanted if value is not None]
    yield "(FALSE" if len(values) == len(wanted) else f"({column} IS NULL"
    for position, value in enumerate(values):
        yield ", " if position else f" OR {column} IN ("
        yield Parameter(value)
    yield "))" if values else ")"


def _cast(vector: object, metric: Metric) -> Sql:
    """Write a vector as text and its type: what any driver sends without knowing pgvector."""
    text = _text(vector, is_bits=metric in _BITS)
    # A list of numbers is a vector, which PostgreSQL makes a halfvec or sparsevec of if need be.
    kind = "varbit" if metric in _BITS else "sparsevec" if text.startswith("{") else "vector"
    return "CAST(CAST(", Parameter(text), f" AS text) AS {kind})"


def _text(vector: object, *, is_bits: bool) -> str:
    if isinstance(vector, str):
        return vector
    written = getattr(vector, "to_text", None)
    if written is not None:
        return str(written())
    if not isinstance(vector, Collection):  # what can be read once only would be empty here
        raise TypeError(f"vector: must be a list of numbers, not {type(vector).__name__}")
    if is_bits:
        return "".join(map(_bit, vector))
    return f"[{','.join(repr(float(each)) for each in vector)}]"


def _bit(value: object) -> str:
    if value not in {0, 1}:  # an embedding of floats would be nothing but ones
        raise ValueError("vector: for hamming and jaccard must be of bits, each 0 or 1")
    return "1" if value else "0"
