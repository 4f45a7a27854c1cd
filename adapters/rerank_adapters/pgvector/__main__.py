"""`python -m rerank_adapters.pgvector`: install reranking as a function of the database."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rerank_adapters.pgvector.install_sql import (
    DEFAULT_ADDRESS,
    DEFAULT_SCHEMA,
    DEFAULT_TIMEOUT_S,
    install_sql,
    uninstall_sql,
)

_PROGRAM = "python -m rerank_adapters.pgvector"

_INSTALL = f"""\
Writes the SQL that creates

  rerank(query text, documents text[], model text DEFAULT NULL)
    -> table (ord integer, score double precision)

so that any language reranks in one statement:

  SELECT ord, score FROM rerank('red fruit', ARRAY['the sky', 'an apple']);

It is PL/Python, so a superuser installs it, on a server that has plpython3u (Debian: apt install
postgresql-plpython3). Look at the SQL first, or pipe it on:

  {_PROGRAM} install-sql | psql -v ON_ERROR_STOP=1 app

Nobody but superusers may call the function until they are allowed to:

  GRANT EXECUTE ON FUNCTION rerank(text, text[], text) TO app;
"""  # noqa: S608 - help, which nobody runs

_SETTINGS = """\
Address, token and time limit can be set later and apart, for a session, role or database:

  SET rerank_sidecar.address = 'http://rerank:8080';
  ALTER ROLE app SET rerank_sidecar.timeout_s = '5';
  SET LOCAL rerank_sidecar.token = '...';

Running it again replaces the function and keeps what roles, but not PUBLIC, were granted.
"""

_UNINSTALL = "Writes the SQL that drops the function. Its schema and the language stay."


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the SQL to standard output, or run it in the database that `--dsn` names."""
    parser = _parser()
    given = vars(parser.parse_args(arguments))
    dsn, write = given.pop("dsn"), given.pop("write")
    try:
        script = write(**given)
    except ValueError as error:
        parser.error(str(error))
    if dsn is None:
        sys.stdout.write(script)
    else:
        _run(script, dsn, parser)


def _run(script: str, dsn: str, parser: argparse.ArgumentParser) -> None:
    try:
        import psycopg
    except ModuleNotFoundError:
        parser.error(
            "--dsn needs psycopg: pip install 'rerank-sidecar[pgvector]', or pipe the SQL to psql"
        )
    try:
        with psycopg.connect(dsn, autocommit=True, client_encoding="utf8") as connection:
            connection.execute(script.encode())
    except psycopg.Error as error:
        parser.exit(1, f"{error}\n")
    parser.exit(0, "done\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=_PROGRAM, description="Reranking as a function of a PostgreSQL database."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    install = _add_command(commands, "install-sql", "create the function", _INSTALL, _SETTINGS)
    install.add_argument(
        "--address",
        default=DEFAULT_ADDRESS,
        help="the sidecar's HTTP address as the database reaches it (default: %(default)s)",
    )
    install.add_argument(
        "--token-file",
        metavar="PATH",
        help="file with the token for that address, on the machine of the database; PostgreSQL's "
        "own user reads it at every call, so that the token is in no catalogue, log or dump",
    )
    install.add_argument(
        "--timeout-s",
        type=float,
        default=DEFAULT_TIMEOUT_S,
        metavar="SECONDS",
        help="how long a whole call may take (default: %(default)g)",
    )
    install.set_defaults(write=install_sql)
    uninstall = _add_command(commands, "uninstall-sql", "drop the function", _UNINSTALL)
    uninstall.set_defaults(write=uninstall_sql)
    return parser


def _add_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    short: str,
    description: str,
    epilog: str | None = None,
) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name,
        help=short,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument(
        "--schema", default=DEFAULT_SCHEMA, help="where the function is (default: %(default)s)"
    )
    command.add_argument(
        "--dsn",
        help="run the SQL in this database, such as 'dbname=app user=postgres', rather than write "
        "it to standard output; needs psycopg",
    )
    return command


if __name__ == "__main__":
    main()
