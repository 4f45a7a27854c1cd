"""What an HNSW index has to be told for many candidates, and never less than it has been told.

Source: pgvector's README, "Query Options", "Iterative Index Scans" and "Filtering".
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from rerank_adapters.pgvector.statement import Parameter, Sql

EF_SEARCH = "hnsw.ef_search"
ITERATIVE_SCAN = "hnsw.iterative_scan"
MAX_SCAN_TUPLES = "hnsw.max_scan_tuples"
SCAN_MEM_MULTIPLIER = "hnsw.scan_mem_multiplier"

DEFAULTS: Mapping[str, str] = MappingProxyType(
    {
        EF_SEARCH: "40",
        ITERATIVE_SCAN: "off",
        MAX_SCAN_TUPLES: "20000",
        SCAN_MEM_MULTIPLIER: "1",
    }
)
"""What holds in a session that has not loaded pgvector yet, where nothing else has been set."""

READ: Sql = (
    "SELECT (SELECT extversion FROM pg_extension WHERE extname = 'vector')",
    *(
        piece
        for name in DEFAULTS
        for piece in (", current_setting(CAST(", Parameter(name), " AS text), true)")
    ),
)
"""Gives one row: the version of pgvector, NULL if it is not there, and the settings as they are."""

_MOST_EF_SEARCH = 1000
_TUPLES_PER_CANDIDATE = 20
"""As many as pgvector's own 20,000 are for 1,000 candidates."""
_TUPLES_PER_MULTIPLE = 20_000
"""A tuple that is scanned takes about 160 bytes; the default of `work_mem` is 4 MB."""
_MOST_MULTIPLES = 1000
_MOST_TUPLES = 2**31 - 1


class PgvectorError(RuntimeError):
    """The database's pgvector is too old for what is asked of it."""


@dataclass(frozen=True, slots=True)
class IndexSettings:
    """The settings as they are, and the version of pgvector: None if the database has none."""

    version: str | None
    values: Mapping[str, str]

    @classmethod
    def of(cls, row: Sequence[str | None]) -> IndexSettings:
        """Take what `READ` gave."""
        version, *values = row
        # After a placeholder was set for one transaction, it is empty and no longer NULL.
        pairs = zip(DEFAULTS, values, strict=True)
        return cls(version, {name: value or DEFAULTS[name] for name, value in pairs})

    def raised(self, count: int) -> dict[str, str]:
        """Give the settings that must change for so many candidates, with their new values.

        Raises:
            PgvectorError: an index of this version cannot give so many.
        """
        if self.version is None:
            return {}
        wanted = {EF_SEARCH: min(count, _MOST_EF_SEARCH)}
        scans_on = _is_at_least(self.version, (0, 8))
        if count > _MOST_EF_SEARCH and not scans_on:
            raise PgvectorError(
                f"{count} candidates need pgvector 0.8 or newer: an HNSW index of {self.version} "
                f"gives {_MOST_EF_SEARCH} at most"
            )
        if count > _MOST_EF_SEARCH:
            wanted |= _enough(count)
        raised = {
            name: str(value) for name, value in wanted.items() if value > float(self.values[name])
        }
        # Filters and dead rows take from what the index finds, so it has to scan on if need be.
        if scans_on and (count > _MOST_EF_SEARCH or self.values[ITERATIVE_SCAN] == "off"):
            raised[ITERATIVE_SCAN] = "relaxed_order"
        return raised

    def before(self, raised: Mapping[str, str]) -> dict[str, str]:
        """Give the values that these settings had."""
        return {name: self.values[name] for name in raised}


def write(settings: Mapping[str, str]) -> Sql:
    """Write the statement that changes settings until the transaction ends."""
    return (
        "SELECT set_config(name, value, true) FROM unnest(CAST(",
        Parameter(list(settings)),
        " AS text[]), CAST(",
        Parameter(list(settings.values())),
        " AS text[])) AS changed (name, value)",
    )


def _enough(count: int) -> dict[str, int]:
    tuples = min(count * _TUPLES_PER_CANDIDATE, _MOST_TUPLES)
    multiples = min(math.ceil(tuples / _TUPLES_PER_MULTIPLE), _MOST_MULTIPLES)
    return {MAX_SCAN_TUPLES: tuples, SCAN_MEM_MULTIPLIER: multiples}


def _is_at_least(version: str, wanted: tuple[int, ...]) -> bool:
    return tuple(int(digits) for digits in re.findall(r"\d+", version)) >= wanted
