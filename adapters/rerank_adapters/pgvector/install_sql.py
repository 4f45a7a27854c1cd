"""The SQL that creates `rerank(query, documents, model)` in a database, and that drops it."""

from __future__ import annotations

from importlib.metadata import version
from importlib.resources import files
from itertools import count

from rerank_adapters.pgvector.in_database import read_timeout_s
from rerank_adapters.pgvector.in_database_http import Service

DEFAULT_ADDRESS = "http://127.0.0.1:8080"
DEFAULT_SCHEMA = "public"
DEFAULT_TIMEOUT_S = 30.0

_SOURCES = ("in_database_http.py", "in_database.py")
_ARGUMENTS = "(text, text[], text)"


def install_sql(
    *,
    schema: str = DEFAULT_SCHEMA,
    address: str = DEFAULT_ADDRESS,
    token_file: str | None = None,
    timeout_s: float = DEFAULT_TIMEOUT_S,
) -> str:
    """Write the SQL with which a superuser installs the function, or replaces an older one.

    `schema` is created if it is not there. `address`, such as `https://rerank.example:8080`, and
    `timeout_s`, the seconds of a whole call, hold where a session has no settings of its own.
    `token_file` is the absolute path, on the machine of the database, of a file with the token that
    goes to that address; it is read at every call, and the token itself is not in the SQL.

    Raises:
        ValueError: an argument is out of range; the message names it.
    """
    if token_file is not None and not token_file.startswith("/"):
        raise ValueError("token_file: must be an absolute path on the machine of the database")
    installed = {
        "address": Service(address).address,
        "token_file": token_file or "",
        "timeout_s": repr(read_timeout_s(str(timeout_s))),
    }
    return _INSTALL.format(
        version=version("rerank-sidecar"),
        create_schema=_create_schema(schema),
        function=f"{_quoted(schema)}.rerank",
        arguments=_ARGUMENTS,
        body=_in_dollars(_body(installed)),
    )


def uninstall_sql(*, schema: str = DEFAULT_SCHEMA) -> str:
    """Write the SQL that drops the function; schema and language stay.

    Raises:
        ValueError: the schema's name is none.
    """
    return f"DROP FUNCTION IF EXISTS {_quoted(schema)}.rerank{_ARGUMENTS};\n"


def _body(installed: dict[str, str]) -> str:
    folder = files(__package__)
    sources = [folder.joinpath(name).read_text("utf-8") for name in _SOURCES]
    lines = [line for source in sources for line in source.splitlines(keepends=True)]
    body = "".join(line for line in lines if not line.startswith("from rerank_adapters."))
    call = "return rerank(plpy, GD, (query, documents, model), INSTALLED)"
    return f"{body}\n\nINSTALLED = {installed!a}\n\n{call}\n"


def _in_dollars(body: str) -> str:
    """Quote with a tag that is not in it: the path of a file may be anything."""
    tags = (f"$rerank{number or ''}$" for number in count())
    tag = next(tag for tag in tags if tag not in body)
    return f"{tag}\n{body}{tag}"


def _quoted(identifier: str) -> str:
    if not identifier or "\0" in identifier:
        raise ValueError("schema: must be a name")
    return '"' + identifier.replace('"', '""') + '"'


def _create_schema(schema: str) -> str:
    return "" if schema == DEFAULT_SCHEMA else f"CREATE SCHEMA IF NOT EXISTS {_quoted(schema)};\n"


# VOLATILE, because another call may give other scores; UNSAFE, because a parallel query may not
# open the subtransactions in which PL/Python runs SQL. ALTER takes an older function from whoever
# owned it. Everybody may call a new function unless that is revoked.
_INSTALL = """\
-- rerank(query, documents, model) of rerank-sidecar {version}, to be run by a superuser.
BEGIN;
CREATE EXTENSION IF NOT EXISTS plpython3u;
{create_schema}CREATE OR REPLACE FUNCTION {function}(
  query text, documents text[], model text DEFAULT NULL
) RETURNS TABLE (ord integer, score double precision)
LANGUAGE plpython3u VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE COST 100000 ROWS 100
AS {body};
ALTER FUNCTION {function}{arguments} OWNER TO CURRENT_USER;
COMMENT ON FUNCTION {function}{arguments} IS
  'Scores documents against a query, best first; ord is the position in documents, from 1.
rerank-sidecar {version}';
REVOKE ALL ON FUNCTION {function}{arguments} FROM PUBLIC;
COMMIT;
"""
