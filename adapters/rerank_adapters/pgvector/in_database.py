"""What `rerank` does inside PostgreSQL: one call of the sidecar over HTTP, in PL/Python.

This file becomes the body of the SQL function: `install_sql` copies it between the quotes of CREATE
FUNCTION, so that the database needs no package of ours. Hence its rules: the standard library only,
syntax of Python 3.9, ASCII, and no name of the SQL function's arguments at the top level.
"""

import json
import math
import re
import ssl
from http.client import HTTPException
from pathlib import Path
from typing import Any

from rerank_adapters.pgvector.in_database_http import Call, Clock, Service, TimeUp

MOST_SECONDS = 86_400
MOST_CHARACTERS = 1000  # PL/Python breaks down on a message of megabytes, and all sessions with it
INVALID, UNREACHABLE, OVERTIME, UNEXPECTED = "22023", "58030", "53400", "58000"

# Pools of connections take the classes 08, 57 and 0A for a broken connection to the database, and
# PL/pgSQL's WHEN OTHERS passes over 57014: errors of ours are in other classes.
SQLSTATES = {
    "INVALID_FIELD": INVALID,
    "MALFORMED_BODY": INVALID,
    "NOT_SUPPORTED_BY_MODEL": INVALID,
    "LIMIT_EXCEEDED": "54000",
    "BODY_TOO_LARGE": "54000",
    "MODEL_NOT_FOUND": "42704",
    "UNAUTHENTICATED": "28000",
    "OVERLOADED": "53000",
    "NOT_READY": "55000",
    "SHUTTING_DOWN": "55000",
    "DEADLINE_EXCEEDED": OVERTIME,
    401: "28000",
    403: "28000",
    413: "54000",
    429: "53000",
    502: UNREACHABLE,
    503: UNREACHABLE,
    504: UNREACHABLE,
}
HINTS = {
    UNREACHABLE: "Does the sidecar run, and does rerank_sidecar.address say where?",
    OVERTIME: "rerank_sidecar.timeout_s is how long a call may take; fewer documents take less.",
    UNEXPECTED: "Is rerank_sidecar.address that of a rerank-sidecar? Its log may say more.",
    "28000": "The sidecar takes calls with one of its tokens only: see rerank_sidecar.token.",
}
TRUST = "Is it https there, and does the database's machine trust who signed the certificate?"


class Trouble(Exception):
    """Why there are no scores, as SQL is told."""

    def __init__(self, sqlstate: str, message: str, hint: str = "") -> None:
        text = "".join(each if each.isprintable() else " " for each in message[:MOST_CHARACTERS])
        # Not every database's encoding has every character.
        super().__init__(text.encode("ascii", "backslashreplace").decode())
        self.sqlstate = sqlstate
        self.hint = hint or HINTS.get(sqlstate, "")


def refusal(status: int, content: bytes, retry_after: Any) -> Trouble:  # noqa: ANN401
    """Read why the sidecar, or a proxy before it, gave no scores."""
    try:
        error = json.loads(content)["error"]
        reason, message = str(error["reason"]), f"{error['reason']}: {error['message']}"
        retry_after = error.get("retry_after_s", retry_after)
    except (LookupError, RecursionError, TypeError, ValueError):
        reason, message = "", f"answered with HTTP status {status}"
    sqlstate = SQLSTATES.get(reason) or SQLSTATES.get(status, UNEXPECTED)
    is_known = re.fullmatch("[0-9.]+", str(retry_after))
    return Trouble(sqlstate, message, f"Try again in {retry_after} s." if is_known else "")


def ranking(content: bytes, count: int) -> "list[tuple[int, Any]]":
    """Read positions, from 1, and scores, best first; None is the score of what failed alone."""
    try:
        results = json.loads(content)["results"]
        rows = [(int(each["index"]) + 1, each.get("score", {}).get("value")) for each in results]
        if sorted(position for position, _ in rows) == list(range(1, count + 1)):
            return [(position, None if value is None else float(value)) for position, value in rows]
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError):
        pass
    raise Trouble(UNEXPECTED, "its answer does not rank every document once")


def read_timeout_s(text: str) -> float:
    """Read how many seconds a call may take.

    Raises:
        ValueError: it is no such number.
    """
    try:
        timeout_s = float(text)
    except ValueError:
        timeout_s = math.nan
    if not 0 < timeout_s <= MOST_SECONDS:
        raise ValueError(f"timeout_s: must be seconds, more than 0 and at most {MOST_SECONDS}")
    return timeout_s


def read_token(file: str) -> str:
    """Read the token of the installation; there is none without a file.

    Raises:
        ValueError: the file cannot be read.
    """
    try:
        return Path(file).read_text("utf-8").strip() if file else ""
    except OSError as error:
        raise ValueError(f"token: the installed file cannot be read: {error.strerror}") from None
    except UnicodeError:
        raise ValueError("token: the installed file is no text") from None


def headers_with(token: str) -> "dict[str, str]":
    """Make the headers of a request.

    Raises:
        ValueError: the token cannot be sent; the message does not repeat it.
    """
    if not re.fullmatch("[!-~]*", token):
        raise ValueError("token: must be visible ASCII characters without spaces")
    headers = {"Content-Type": "application/json"}
    return {**headers, "Authorization": f"Bearer {token}"} if token else headers


def settled(plpy: Any, installed: "dict[str, str]") -> "tuple[Service, float, dict[str, str]]":  # noqa: ANN401
    """Give service, time limit and headers: as the session has them set, else as installed.

    The installed token goes to the installed address only: who sets another brings their own.
    """
    [given] = plpy.execute(
        "SELECT pg_catalog.current_setting('rerank_sidecar.address', true) AS address,"
        " pg_catalog.current_setting('rerank_sidecar.token', true) AS token,"
        " pg_catalog.current_setting('rerank_sidecar.timeout_s', true) AS timeout_s"
    )
    try:
        service = Service(given["address"] or installed["address"])
        timeout_s = read_timeout_s(given["timeout_s"] or installed["timeout_s"])
        file = installed["token_file"] if service.address == installed["address"] else ""
        return service, timeout_s, headers_with(given["token"] or read_token(file))
    except ValueError as error:
        raise Trouble(INVALID, f"rerank_sidecar.{error}") from None


def request_body(query: Any, documents: "list[Any]", model: Any) -> bytes:  # noqa: ANN401
    """Write the request; a document that is NULL is an empty one."""
    if query is None:
        raise Trouble("22004", "query: must not be null")
    if any(isinstance(each, list) for each in documents):
        raise Trouble("2202E", "documents: must be an array of one dimension")
    texts = [each or "" for each in documents]
    body = {"query": query, "documents": texts, "options": {"model": model}}
    return json.dumps(body, ensure_ascii=False).encode()


def ranked(
    call: Call, body: bytes, headers: "dict[str, str]", count: int
) -> "list[tuple[int, Any]]":
    """Ask the sidecar for a ranking of so many documents."""
    try:
        status, retry_after, content = call.answer(body, headers)
    except TimeUp as limit:
        raise Trouble(OVERTIME, str(limit)) from None
    except (HTTPException, OSError, UnicodeError) as error:
        cause = getattr(error, "strerror", None) or str(error)
        hint = TRUST if isinstance(error, ssl.SSLError) else ""
        raise Trouble(UNREACHABLE, cause, hint) from None
    if status != 200:
        raise refusal(status, content, retry_after)
    return ranking(content, count)


def rerank(
    plpy: Any,  # noqa: ANN401
    kept: "dict[str, Any]",
    arguments: "tuple[Any, Any, Any]",
    installed: "dict[str, str]",
) -> "list[tuple[int, Any]]":
    """Give the rows for the SQL function's arguments; `kept` lives as long as the session."""
    asked_for, texts, name = arguments
    where = ""
    try:
        body = request_body(asked_for, texts or [], name)
        if not texts:
            return []
        service, timeout_s, headers = settled(plpy, installed)
        where = f"{service.address}: "
        return ranked(Call(service, Clock(plpy, timeout_s), kept), body, headers, len(texts))
    except Trouble as trouble:
        hint = {"hint": trouble.hint} if trouble.hint else {}
        plpy.error(f"rerank: {where}{trouble}", sqlstate=trouble.sqlstate, **hint)
        raise
