"""`rerank` as an SQL function, in Debian's PostgreSQL with PL/Python, and what its page says."""

import ast
import contextlib
import json
import re
import socket
import ssl
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
import trustme
from psycopg import errors

from rerank_adapters.pgvector.in_database import SQLSTATES
from rerank_adapters.pgvector.install_sql import install_sql, uninstall_sql
from tests.contract.conftest import Running
from tests.contract.running import RunningSidecar, running_sidecar
from tests.integration.debian_postgres import PACKAGE, DebianPostgres, debian_postgres, programs
from tests.integration.far_side import (
    WAIT_S,
    answer_one,
    drip,
    full,
    hang_up,
    mute,
    ranked,
    scripted,
    talking,
)

PAGE = (Path(__file__).parents[2] / "docs" / "pgvector-sql.md").read_text("utf-8")
MODULE = (sys.executable, "-m", "rerank_adapters.pgvector")
TOKEN = "a-token-that-nobody-may-see"  # noqa: S105
TEXTS = (
    "the sky is blue",
    "an apple is a red fruit",
    "cherries are red",
    "a bus",
    "Äpfel und Birnen 🍎",
    "",
)
SCORES = "SELECT ord, score FROM rerank($1, $2) ORDER BY score DESC NULLS LAST, ord"

Connection = psycopg.Connection[tuple[Any, ...]]
Rows = list[tuple[Any, ...]]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def postgres(authority: trustme.CA) -> Iterator[DebianPostgres]:
    bin_folder = programs()
    if bin_folder is None:
        pytest.skip(f"needs PostgreSQL with PL/Python: apt-get install {PACKAGE}")
    with debian_postgres(bin_folder, authority.cert_pem.bytes().decode()) as server:
        yield server


@pytest.fixture(scope="module")
def guarded() -> Iterator[RunningSidecar]:
    with running_sidecar(auth_tokens=TOKEN) as running:
        yield running


@pytest.fixture
def sql(postgres: DebianPostgres, sidecar: Running) -> Iterator[Connection]:
    """A superuser's session in which the function is installed, for the tests' sidecar."""
    with connect(postgres) as connection:
        run(connection, install_sql(address=f"http://127.0.0.1:{sidecar.http_port}"))
        yield connection
        run(connection, uninstall_sql())


def connect(postgres: DebianPostgres, user: str = "postgres") -> Connection:
    """Open a session whose parameters are written $1, as PostgreSQL has them."""
    return psycopg.connect(
        postgres.dsn, user=user, autocommit=True, cursor_factory=psycopg.RawCursor
    )


def run(connection: Connection, query: str, *parameters: object) -> Rows:
    cursor = connection.execute(query.encode(), parameters or None)
    return cursor.fetchall() if cursor.description else []


def point(connection: Connection, address: str, timeout_s: float = 60, token: str = "") -> None:
    settings = {"address": address, "timeout_s": str(timeout_s), "token": token}
    for name, value in settings.items():
        run(connection, "SELECT set_config('rerank_sidecar.' || $1, $2, false)", name, value)


def of_native_door(port: int, query: str, documents: Sequence[str], token: str = "") -> Rows:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/v1/rerank",
        json.dumps({"query": query, "documents": documents}).encode(),
        {"Authorization": f"Bearer {token}"},
    )
    with urllib.request.urlopen(request) as response:  # noqa: S310
        results = json.load(response)["results"]
    return [(each["index"] + 1, each["score"]["value"]) for each in results]


def refused(connection: Connection, query: str, *parameters: object) -> errors.Diagnostic:
    """Give what PostgreSQL says of a statement that fails; the session goes on."""
    with pytest.raises(psycopg.Error) as caught:
        run(connection, query, *parameters)
    assert run(connection, "SELECT 1") == [(1,)]
    return caught.value.diag


def every_word(told: errors.Diagnostic) -> str:
    """Everything that an error says, its context included."""
    return " ".join(
        filter(None, (told.message_primary, told.message_detail, told.message_hint, told.context))
    )


def page_blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


# What comes back


def test_the_statement_of_the_page(sql: Connection, sidecar: Running) -> None:
    statement, *_ = page_blocks("sql")
    run(
        sql,
        """
        CREATE TABLE items (id bigint, body varchar(200), embedding float8[]);
        CREATE FUNCTION distance(float8[], float8[]) RETURNS float8 IMMUTABLE LANGUAGE sql
          AS 'SELECT sqrt(sum((a - b) ^ 2)) FROM unnest($1, $2) AS pair(a, b)';
        CREATE OPERATOR <=> (FUNCTION = distance, LEFTARG = float8[], RIGHTARG = float8[]);
    """,
    )
    try:
        for number, text in enumerate(TEXTS):
            run(sql, "INSERT INTO items VALUES ($1, $2, $3)", number, text, [float(number), 0.0])
        rows = run(sql, statement, "red fruit", [2.2, 0.0])
    finally:
        run(sql, "DROP OPERATOR <=> (float8[], float8[]); DROP FUNCTION distance; DROP TABLE items")
    nearest = [2, 3, 1, 4, 0, 5]
    expected = of_native_door(sidecar.http_port, "red fruit", [TEXTS[each] for each in nearest])
    ids = [(nearest[position - 1], score) for position, score in expected]
    assert rows == [(number, TEXTS[number], score) for number, score in ids]
    assert [number for number, *_ in rows] != nearest


def test_rows_come_best_first_of_themselves(sql: Connection, sidecar: Running) -> None:
    rows = run(sql, "SELECT * FROM rerank($1, $2, 'embedded')", "red fruit", list(TEXTS))
    assert rows == of_native_door(sidecar.http_port, "red fruit", TEXTS)


def test_null_documents_are_empty_ones(sql: Connection) -> None:
    rows: dict[int, float] = dict(run(sql, SCORES, "red fruit", ["an apple", None, ""]))
    assert rows[2] == rows[3] < rows[1]


@pytest.mark.parametrize("none", [[], None])
def test_no_documents_give_no_rows(sql: Connection, none: list[str] | None) -> None:
    assert run(sql, "SELECT * FROM rerank($1, $2)", "red fruit", none) == []


def test_a_document_that_fails_alone_comes_last_without_a_score(sql: Connection) -> None:
    rows = run(sql, SCORES, "red fruit", ["x" * 200_001, "an apple", "the sky"])
    assert [position for position, _ in rows] == [2, 3, 1]
    assert [score is None for _, score in rows] == [False, False, True]


def test_two_thousand_documents(sql: Connection, guarded: RunningSidecar) -> None:
    texts = [
        f"document {number} about {'apples' if number % 7 else 'red fruit'}"
        for number in range(2000)
    ]
    point(sql, f"http://127.0.0.1:{guarded.http_port}", token=TOKEN)
    rows = run(sql, SCORES, "red fruit", texts)
    assert rows == of_native_door(guarded.http_port, "red fruit", texts, TOKEN)


def test_concurrent_sessions(sql: Connection, postgres: DebianPostgres, sidecar: Running) -> None:
    def session(number: int) -> None:
        with connect(postgres) as connection:
            for turn in range(5):
                query = f"red fruit {number} {turn}"
                texts = [f"{text} {number}" for text in TEXTS]
                expected = of_native_door(sidecar.http_port, query, texts)
                assert run(connection, SCORES, query, texts) == expected

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(session, range(8)))


def test_it_works_where_queries_are_parallel(sql: Connection) -> None:
    names = "name IN ('force_parallel_mode', 'debug_parallel_query')"
    [[name]] = run(sql, f"SELECT name FROM pg_settings WHERE {names}")  # noqa: S608
    run(sql, f"SET {name} = on")
    assert len(run(sql, "SELECT * FROM rerank($1, $2)", "red fruit", list(TEXTS))) == len(TEXTS)


# Time


@pytest.mark.parametrize("texts", [["a"], ["a" * 20_000_000]], ids=["waiting", "sending"])
def test_the_deadline_holds_where_nobody_answers(sql: Connection, texts: list[str]) -> None:
    with mute() as address:
        point(sql, address, timeout_s=0.3)
        told = refused(sql, SCORES, "q", texts)
    assert told.sqlstate == errors.ConfigurationLimitExceeded.sqlstate
    assert told.message_primary == f"plpy.Error: rerank: {address}: no answer within 0.3 s"


def test_the_deadline_holds_where_nobody_connects(sql: Connection) -> None:
    with full() as address:
        point(sql, address, timeout_s=0.3)
        assert refused(sql, SCORES, "q", ["a"]).sqlstate == "53400"


def test_the_deadline_holds_where_bytes_come_slowly(sql: Connection) -> None:
    with talking(drip) as address:
        point(sql, address, timeout_s=0.5)
        assert refused(sql, SCORES, "q", ["a"]).sqlstate == "53400"


def test_the_deadline_holds_in_the_middle_of_tls(sql: Connection) -> None:
    with mute() as address:
        point(sql, address.replace("http:", "https:"), timeout_s=0.3)
        assert refused(sql, SCORES, "q", ["a"]).sqlstate == "53400"


@pytest.mark.parametrize("server", [mute, lambda: talking(drip)], ids=["silent", "slow"])
def test_statement_timeout_counts(sql: Connection, server: Any) -> None:
    with server() as address:
        point(sql, address)
        run(sql, "SET statement_timeout = 300")
        with pytest.raises(errors.QueryCanceled, match="statement timeout"):
            run(sql, SCORES, "q", ["a"])
        run(sql, "RESET statement_timeout")


def test_a_cancel_ends_the_call_and_the_work(sql: Connection) -> None:
    asked, ended = threading.Event(), threading.Event()

    def listen(taken: socket.socket) -> None:
        taken.recv(65536)
        asked.set()
        while taken.recv(65536):
            pass
        ended.set()

    with talking(listen) as address, ThreadPoolExecutor(1) as pool:
        point(sql, address)
        call = pool.submit(run, sql, SCORES, "q", ["a"])
        assert asked.wait(WAIT_S)
        sql.cancel()
        with pytest.raises(errors.QueryCanceled):
            call.result()
        assert ended.wait(WAIT_S)


def test_the_sidecar_is_told_what_time_is_left(sql: Connection) -> None:
    with scripted(200, ranked(1.0)) as (address, server):
        point(sql, address, timeout_s=7.5)
        assert run(sql, SCORES, "q", ["a"]) == [(1, 1.0)]
    [seen] = server.seen
    assert 0 < int(seen["X-Request-Timeout-Ms"]) <= 7500


# The connection


def test_a_session_keeps_its_connection(sql: Connection) -> None:
    with scripted(200, ranked(1.0)) as (address, server):
        point(sql, address)
        for _ in range(3):
            run(sql, SCORES, "q", ["a"])
        assert (len(server.seen), server.connections) == (3, 1)


def test_a_connection_that_will_be_closed_is_not_kept(sql: Connection) -> None:
    with scripted(200, ranked(1.0), {"Connection": "close"}) as (address, server):
        point(sql, address)
        for _ in range(2):
            assert run(sql, SCORES, "q", ["a"]) == [(1, 1.0)]
        assert (len(server.seen), server.connections) == (2, 2)


def test_a_sidecar_that_was_killed_and_comes_back(sql: Connection) -> None:
    with running_sidecar() as first:
        point(sql, f"http://127.0.0.1:{first.http_port}")
        before = run(sql, SCORES, "red fruit", list(TEXTS))
        first.process.kill()
        first.process.wait()
        told = refused(sql, SCORES, "red fruit", list(TEXTS))
    assert told.sqlstate == "58030"
    assert told.message_primary is not None
    assert told.message_primary.endswith(f":{first.http_port}: Connection refused")
    with running_sidecar("--http-port", str(first.http_port)):
        assert run(sql, SCORES, "red fruit", list(TEXTS)) == before


def test_a_sidecar_that_goes_away_in_the_middle(sql: Connection) -> None:
    with talking(lambda taken: taken.recv(1)) as address:
        point(sql, address)
        assert refused(sql, SCORES, "q", ["a"]).sqlstate == "58030"


def test_a_connection_that_was_closed_meanwhile_is_replaced(sql: Connection) -> None:
    with running_sidecar() as first:
        point(sql, f"http://127.0.0.1:{first.http_port}")
        before = run(sql, SCORES, "red fruit", list(TEXTS))
    with running_sidecar("--http-port", str(first.http_port)):
        assert run(sql, SCORES, "red fruit", list(TEXTS)) == before


def test_a_connection_that_is_closed_at_that_moment_is_replaced(sql: Connection) -> None:
    with talking(hang_up, answer_one) as address:
        point(sql, address)
        for _ in range(2):
            assert run(sql, SCORES, "q", ["a"]) == [(1, 1.0)]


def test_tls_with_a_certificate_that_the_system_trusts(
    sql: Connection, authority: trustme.CA
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    texts = ["a" * 100_000, "b" * 100_000]
    with scripted(200, ranked(2.0, 1.0), tls=context) as (address, server):
        point(sql, address)
        for _ in range(2):
            assert run(sql, SCORES, "q", texts) == [(1, 2.0), (2, 1.0)]
        assert server.connections == 1


def test_tls_with_a_certificate_that_nobody_knows(sql: Connection) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with scripted(200, ranked(1.0), tls=context) as (address, server):
        point(sql, address)
        told = refused(sql, SCORES, "q", ["a"])
    assert told.sqlstate == "58030"
    assert "CERTIFICATE_VERIFY_FAILED" in str(told.message_primary)
    assert not server.seen


# Tokens


def test_a_token_of_the_session(sql: Connection, guarded: RunningSidecar) -> None:
    address = f"http://127.0.0.1:{guarded.http_port}"
    point(sql, address)
    assert refused(sql, SCORES, "q", ["a"]).sqlstate == "28000"
    point(sql, address, token=TOKEN + "-stale")
    assert TOKEN not in every_word(refused(sql, SCORES, "q", ["a"]))
    point(sql, address, token=TOKEN)
    assert run(sql, SCORES, "q", ["a"]) == of_native_door(guarded.http_port, "q", ["a"], TOKEN)


def test_a_token_that_is_none_is_not_repeated(sql: Connection) -> None:
    point(sql, "http://127.0.0.1:1", token=TOKEN + "\r\nX-Other: 1")
    told = refused(sql, SCORES, "q", ["a"])
    assert told.sqlstate == "22023"
    assert TOKEN not in every_word(told)


def test_the_installed_token_is_for_the_installed_address(
    sql: Connection, postgres: DebianPostgres
) -> None:
    file = postgres.write("token", TOKEN + "\n")
    with scripted(200, ranked(1.0)) as (theirs, server), scripted(200, ranked(1.0)) as (other, spy):
        run(sql, install_sql(address=theirs, token_file=str(file)))
        run(sql, SCORES, "q", ["a"])
        postgres.write("token", "another")
        run(sql, SCORES, "q", ["a"])
        run(sql, "SELECT set_config('rerank_sidecar.address', $1, false)", other)
        run(sql, SCORES, "q", ["a"])
    sent = [seen.get("Authorization") for seen in (*server.seen, *spy.seen)]
    assert sent == [f"Bearer {TOKEN}", "Bearer another", None]
    assert TOKEN not in install_sql(address=theirs, token_file=str(file))


def test_a_token_file_that_cannot_be_read(sql: Connection) -> None:
    run(sql, install_sql(address="http://127.0.0.1:1", token_file="/nowhere/it"))  # noqa: S106
    told = refused(sql, SCORES, "q", ["a"])
    assert told.sqlstate == "22023"
    assert "No such file" in str(told.message_primary)


# Errors


def test_a_model_that_is_not_served(sql: Connection) -> None:
    told = refused(sql, "SELECT * FROM rerank('q', '{a}', 'nonesuch')")
    assert told.sqlstate == errors.UndefinedObject.sqlstate
    assert "served are embedded" in str(told.message_primary)


def test_a_query_that_is_null(sql: Connection) -> None:
    assert refused(sql, "SELECT * FROM rerank(NULL, '{a}')").sqlstate == "22004"


def test_documents_in_two_dimensions(sql: Connection) -> None:
    assert refused(sql, "SELECT * FROM rerank('q', '{{a,b},{c,d}}')").sqlstate == "2202E"


def test_more_documents_than_the_sidecar_takes(sql: Connection) -> None:
    told = refused(sql, "SELECT * FROM rerank('q', array_fill('secret'::text, '{1001}'))")
    assert told.sqlstate == errors.ProgramLimitExceeded.sqlstate
    assert "more than 1000" in str(told.message_primary)
    assert "secret" not in every_word(told)


OVERLOADED = {"error": {"reason": "OVERLOADED", "message": "the queue is full"}}
NOT_READY = {"error": {"reason": "NOT_READY", "message": "warming up", "retry_after_s": 1.5}}


@pytest.mark.parametrize(
    ("answer", "sqlstate", "hint"),
    [
        ((429, OVERLOADED, {"Retry-After": "3"}), "53000", "Try again in 3 s."),
        ((503, NOT_READY), "55000", "Try again in 1.5 s."),
        ((500, {"error": {"reason": "INTERNAL", "message": "oh"}}), "58000", "Its log"),
        ((504, {"error": {"reason": "DEADLINE_EXCEEDED", "message": ""}}), "53400", "timeout_s"),
        ((502, b"<html>"), "58030", "Does the sidecar run"),
        ((301, b"", {"Location": "/elsewhere"}), "58000", "Is rerank_sidecar.address"),
        ((200, b"<html>"), "58000", "Is rerank_sidecar.address"),
        ((200, ranked(1.0, 2.0)), "58000", "Is rerank_sidecar.address"),
        ((200, {"results": [{"index": 7, "score": {"value": 1}}]}), "58000", "Its log"),
        ((200, {"results": [{"index": 0, "score": {"value": "high"}}]}), "58000", "Its log"),
        ((200, {"results": [{"index": 0, "score": {"value": 10**400}}]}), "58000", "Its log"),
        ((200, b"[" * 200_000), "58000", "Its log"),
        ((500, b"[" * 200_000), "58000", "Its log"),
    ],
)
def test_answers_without_scores(
    sql: Connection, answer: tuple[Any, ...], sqlstate: str, hint: str
) -> None:
    with scripted(*answer) as (address, _):
        point(sql, address)
        told = refused(sql, SCORES, "q", ["a"])
    assert told.sqlstate == sqlstate
    assert str(told.message_primary).startswith(f"plpy.Error: rerank: {address}: ")
    assert hint in str(told.message_hint)


def test_a_message_of_any_kind_is_an_error_and_the_server_goes_on(sql: Connection) -> None:
    messages = {
        "m" * 5_000_000: "INTERNAL: mmm",
        "nul \0 newline \n": "INTERNAL: nul   newline",
        "half \ud800 of a pair": "INTERNAL: half   of a pair",
        "100%s %d": "INTERNAL: 100%s %d",
    }
    for message, told in messages.items():
        answer = {"error": {"reason": "INTERNAL", "message": message}}
        with scripted(500, answer) as (address, _):
            point(sql, address)
            found = refused(sql, SCORES, "q", ["a"])
        assert found.sqlstate == "58000"
        assert told in str(found.message_primary)
        assert len(str(found.message_primary)) < 1200


def test_a_message_that_the_databases_encoding_lacks(
    sql: Connection, postgres: DebianPostgres, sidecar: Running
) -> None:
    run(sql, "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    dsn = postgres.dsn.replace("dbname=postgres", "dbname=latin")
    address = f"http://127.0.0.1:{sidecar.http_port}"
    try:
        with psycopg.connect(dsn, autocommit=True, cursor_factory=psycopg.RawCursor) as latin:
            run(latin, install_sql(address=address))
            rows = run(latin, SCORES, "\xc4pfel", ["a bus", "\xc4pfel"])
            assert rows == of_native_door(sidecar.http_port, "\xc4pfel", ["a bus", "\xc4pfel"])
            told = refused(latin, "SELECT * FROM rerank('q', '{a}', U&'\\00e4')")
            assert told.sqlstate == "42704"
            with scripted(500, {"error": {"reason": "R", "message": "\u6a21"}}) as (other, _):
                point(latin, other)
                told = refused(latin, SCORES, "q", ["a"])
            assert (told.sqlstate, "R: \\u6a21" in str(told.message_primary)) == ("58000", True)
    finally:
        run(sql, "DROP DATABASE latin WITH (FORCE)")


def test_an_answer_without_an_end(sql: Connection) -> None:
    def flood(taken: socket.socket) -> None:
        taken.recv(65536)
        taken.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while True:
                taken.sendall(b" " * 1_000_000)

    with talking(flood) as address:
        point(sql, address)
        told = refused(sql, SCORES, "q", ["a"])
    assert told.sqlstate == "58030"
    assert "its answer is longer than" in str(told.message_primary)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("address", "http://127.0.0.1:0"),
        ("address", "http://" + "secret" * 500_000),
        ("address", "127.0.0.1:8080"),
        ("address", "http://user:secret@127.0.0.1:8080"),
        ("address", "http://127.0.0.1:secret"),
        ("address", "http://127.0.0.1:8080/?secret"),
        ("address", "http://127.0.0.1:8080/ secret"),
        ("timeout_s", "soon"),
        ("timeout_s", "nan"),
        ("timeout_s", "-1"),
    ],
)
def test_settings_that_mean_nothing(sql: Connection, name: str, value: str) -> None:
    run(sql, "SELECT set_config('rerank_sidecar.' || $1, $2, false)", name, value)
    told = refused(sql, SCORES, "q", ["a"])
    assert told.sqlstate == "22023"
    assert str(told.message_primary).startswith(f"plpy.Error: rerank: rerank_sidecar.{name}: ")
    assert "secret" not in every_word(told)


def test_a_host_that_has_no_address(sql: Connection) -> None:
    point(sql, f"http://{'a' * 64}.invalid:8080")
    assert refused(sql, SCORES, "q", ["a"]).sqlstate == "58030"


def test_the_page_lists_every_sqlstate() -> None:
    listed = dict(re.findall(r"^\| `(\w{5})` \| `(\w+)` \|", PAGE, re.MULTILINE))
    assert {*SQLSTATES.values(), "22004", "2202E", "58000", "57014"} == set(listed)


def test_the_page_shows_how_to_keep_the_order(sql: Connection) -> None:
    [function] = [block for block in page_blocks("sql") if "rerank_or_keep" in block]
    run(sql, function)
    point(sql, "http://127.0.0.1:1")
    rows = run(sql, "SELECT * FROM rerank_or_keep('q', '{a,b}')")
    run(sql, "DROP FUNCTION rerank_or_keep")
    assert rows == [(1, None), (2, None)]


def test_conditions_of_the_page_are_those_of_plpgsql(sql: Connection) -> None:
    for sqlstate, condition in re.findall(r"^\| `(\w{5})` \| `(\w+)` \|", PAGE, re.MULTILINE):
        raised = f"DO $$ BEGIN RAISE {condition}; END $$"
        assert refused(sql, raised).sqlstate == sqlstate


# Installing


def test_only_those_who_may_call_it(sql: Connection, postgres: DebianPostgres) -> None:
    run(sql, "DROP ROLE IF EXISTS app; CREATE ROLE app LOGIN")
    with connect(postgres, "app") as session:
        assert refused(session, SCORES, "q", ["a"]).sqlstate == "42501"
        [grant] = [block for block in page_blocks("sql") if block.startswith("GRANT")]
        run(sql, grant)
        assert [position for position, _ in run(session, SCORES, "q", ["a"])] == [1]
        run(sql, "ALTER ROLE app SET rerank_sidecar.address = 'http://127.0.0.1:1'")
    with connect(postgres, "app") as session:
        assert refused(session, SCORES, "q", ["a"]).sqlstate == "58030"
    run(sql, "DROP OWNED BY app; DROP ROLE app")


def test_installing_again_keeps_what_roles_were_granted(
    sql: Connection, postgres: DebianPostgres, sidecar: Running
) -> None:
    run(sql, "CREATE ROLE app LOGIN; CREATE ROLE other LOGIN")
    for grantee in ("app", "PUBLIC"):
        run(sql, f"GRANT EXECUTE ON FUNCTION rerank(text, text[], text) TO {grantee}")
    run(sql, install_sql(address=f"http://127.0.0.1:{sidecar.http_port}"))
    with connect(postgres, "app") as session:
        assert len(run(session, SCORES, "q", ["a"])) == 1
    with connect(postgres, "other") as session:
        assert refused(session, SCORES, "q", ["a"]).sqlstate == "42501"
    run(sql, "DROP OWNED BY app; DROP ROLE app; DROP ROLE other")


def test_names_of_the_sessions_search_path_are_not_used(sql: Connection) -> None:
    run(
        sql,
        """
        CREATE SCHEMA evil;
        CREATE FUNCTION evil.current_setting(text, boolean) RETURNS text LANGUAGE sql
          AS $$SELECT 'http://127.0.0.1:1'$$;
        SET search_path = evil, public, pg_catalog;
    """,
    )
    try:
        assert [position for position, _ in run(sql, SCORES, "q", ["a"])] == [1]
    finally:
        run(sql, "RESET search_path; DROP SCHEMA evil CASCADE")


def test_settings_of_the_page(sql: Connection) -> None:
    [settings] = [block for block in page_blocks("sql") if "SET LOCAL" in block]
    run(sql, "CREATE ROLE app")
    run(sql, "CREATE DATABASE app")
    run(sql, f"BEGIN; {settings}; COMMIT")
    run(sql, "DROP DATABASE app")
    run(sql, "DROP ROLE app")


def test_an_older_function_is_taken_over(sql: Connection) -> None:
    run(
        sql,
        uninstall_sql()
        + """
        CREATE ROLE other; GRANT CREATE ON SCHEMA public TO other; SET ROLE other;
        CREATE FUNCTION rerank(query text, documents text[], model text DEFAULT NULL)
        RETURNS TABLE (ord integer, score double precision) LANGUAGE sql AS 'SELECT 1, 1.0::float8';
        RESET ROLE;
    """,
    )
    run(sql, install_sql())
    owner = "SELECT proowner::regrole::text FROM pg_proc WHERE proname = 'rerank'"
    assert run(sql, owner) == [("postgres",)]
    run(sql, "DROP OWNED BY other; DROP ROLE other")


def test_a_schema_and_a_file_with_odd_names(sql: Connection, postgres: DebianPostgres) -> None:
    file = postgres.write("$rerank$ 'tökén'", TOKEN)
    schema = 'odd "schema'
    with scripted(200, ranked(1.0)) as (address, server):
        run(sql, install_sql(schema=schema, address=address, token_file=str(file)))
        call = 'SELECT * FROM "odd ""schema".rerank($1, $2)'
        assert run(sql, call, "q", ["a"]) == [(1, 1.0)]
        assert server.seen[0]["Authorization"] == f"Bearer {TOKEN}"
    run(sql, uninstall_sql(schema=schema))
    assert refused(sql, call, "q", ["a"]).sqlstate == errors.UndefinedFunction.sqlstate
    run(sql, 'DROP SCHEMA "odd ""schema"')


def command(*arguments: str, text: str | None = None) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        arguments, input=text, capture_output=True, text=True, check=False, timeout=60
    )


def test_the_command_writes_sql_that_psql_runs(
    sql: Connection, postgres: DebianPostgres, sidecar: Running
) -> None:
    run(sql, uninstall_sql())
    written = command(*MODULE, "install-sql", "--address", f"http://127.0.0.1:{sidecar.http_port}")
    psql = (str(postgres.psql), "-v", "ON_ERROR_STOP=1", postgres.dsn)
    ran = command(*psql, text=written.stdout)
    assert ran.returncode == 0, ran.stderr
    [example] = [block for block in page_blocks("sql") if block.startswith("SELECT ord")]
    assert [position for position, _ in run(sql, example)] == [2, 1]
    assert command(*psql, text=command(*MODULE, "uninstall-sql").stdout).returncode == 0
    assert refused(sql, SCORES, "q", ["a"]).sqlstate == errors.UndefinedFunction.sqlstate


def test_the_command_runs_the_sql_itself(sql: Connection, postgres: DebianPostgres) -> None:
    run(sql, uninstall_sql())
    ran = command(*MODULE, "install-sql", "--dsn", postgres.dsn, "--timeout-s", "0.3")
    assert (ran.returncode, ran.stdout) == (0, "")
    with mute() as address:
        run(sql, "SELECT set_config('rerank_sidecar.address', $1, false)", address)
        assert "within 0.3 s" in str(refused(sql, SCORES, "q", ["a"]).message_primary)
    assert command(*MODULE, "uninstall-sql", "--dsn", postgres.dsn).returncode == 0
    assert refused(sql, SCORES, "q", ["a"]).sqlstate == errors.UndefinedFunction.sqlstate


def test_the_command_tells_why_the_database_refused(postgres: DebianPostgres) -> None:
    ran = command(*MODULE, "install-sql", "--dsn", postgres.dsn + " user=nobody-of-that-name")
    assert ran.returncode == 1
    assert "nobody-of-that-name" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    "wrong",
    [
        ("--address", "localhost:8080"),
        ("--timeout-s", "0"),
        ("--token-file", "relative"),
        ("--schema", ""),
    ],
)
def test_the_command_refuses_what_means_nothing(wrong: tuple[str, str]) -> None:
    ran = command(*MODULE, "install-sql", *wrong)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert wrong[0].removeprefix("--").replace("-", "_") in ran.stderr


def test_the_command_needs_no_driver() -> None:
    program = """
import sys, runpy
sys.modules["psycopg"] = None
sys.argv = ["", *sys.argv[1:]]
runpy.run_module("rerank_adapters.pgvector", run_name="__main__", alter_sys=True)
"""
    assert "CREATE" in command(sys.executable, "-c", program, "install-sql").stdout
    ran = command(sys.executable, "-c", program, "install-sql", "--dsn", "dbname=app")
    assert ran.returncode == 2
    assert "pip install 'rerank-sidecar[pgvector]'" in ran.stderr


def test_the_function_is_for_older_pythons_and_any_encoding() -> None:
    [body] = re.findall(r"(?s)\$rerank\$\n(.*?)\$rerank\$", install_sql())
    wrapped = "def body():\n" + "".join(f"\t{line}" for line in body.splitlines(keepends=True))
    assert ast.parse(wrapped, feature_version=(3, 9))
    assert body.isascii()
