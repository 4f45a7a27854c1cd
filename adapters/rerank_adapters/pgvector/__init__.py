"""PostgreSQL with pgvector: `fetch` with `rerank=`, in a module for each driver.

`rerank_adapters.pgvector.psycopg`, `.asyncpg` and `.sqlalchemy` have the same verbs; what they
share is here and needs no driver.
"""

from rerank_adapters.pgvector.index_settings import PgvectorError
from rerank_adapters.pgvector.rows import FetchOptions, RerankedRow, RerankedRows
from rerank_adapters.pgvector.search import Condition, Range, Search

__all__ = [
    "Condition",
    "FetchOptions",
    "PgvectorError",
    "Range",
    "RerankedRow",
    "RerankedRows",
    "Search",
]
