"""The commands together: `serve`, `rank`, `eval`, `bench`, `probe` and `models`."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from rerank_sidecar import __version__
from rerank_sidecar.cli.bench import bench
from rerank_sidecar.cli.evaluate import evaluate_run
from rerank_sidecar.cli.models import models, pull
from rerank_sidecar.cli.output import complain, ensure_standard_output, leave_standard_output
from rerank_sidecar.cli.probe import probe
from rerank_sidecar.cli.rank import rank
from rerank_sidecar.cli.serve import serve
from rerank_sidecar.errors import InvalidSetting, RequestError, RerankError, UnreadableInput

USAGE_ERRORS = (InvalidSetting, UnreadableInput, RequestError)
"""A wrong flag, setting or input file: exit code 2, not 1."""


class _Commands(TyperGroup):
    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401
        try:
            return super().invoke(ctx)
        except RerankError as error:
            complain(error.message)
            raise typer.Exit(2 if isinstance(error, USAGE_ERRORS) else 1) from error


commands = typer.Typer(
    name="rerank-sidecar",
    cls=_Commands,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_show_locals=False,
    add_completion=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"rerank-sidecar {__version__}\n")
        raise typer.Exit


@commands.callback(epilog="Begin with `rerank-sidecar serve`, then `curl -s localhost:8080/meta`.")
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Rerank the candidates of a vector database with a better model."""


def _examples(*lines: str) -> str:
    return "\n\n".join(("Examples:", *(f"- `{line}`" for line in lines)))


commands.command(
    epilog=_examples(
        "rerank-sidecar serve",
        "rerank-sidecar serve --host 0.0.0.0 --http-port 9000 --config sidecar.toml",
        "rerank-sidecar serve --model cross-encoder/ms-marco-MiniLM-L6-v2",
    )
)(serve)
commands.command(
    epilog=_examples(
        "rerank-sidecar rank --query 'red fruit' --top-n 3 fruits.txt",
        "grep -h fruit *.txt | rerank-sidecar rank --query 'red fruit'",
        "rerank-sidecar rank --query 'red fruit' --json documents.jsonl",
    )
)(rank)
commands.command(
    "eval",
    epilog=_examples(
        "rerank-sidecar eval --dataset trec-dl19 --run trec-dl19/bm25.trec --min-grade 2",
        "rerank-sidecar eval --dataset scifact --run bm25.trec --model ./my-model --json",
    ),
)(evaluate_run)
commands.command(
    epilog=_examples(
        "rerank-sidecar bench",
        "rerank-sidecar bench --target localhost:50051 --rate 10,20,40 --timeout 1",
        "rerank-sidecar bench --door weaviate --documents 100 --plot bench.png",
    )
)(bench)
commands.command(
    epilog=_examples("rerank-sidecar probe", "rerank-sidecar probe --http-port 9000 --timeout 1")
)(probe)

_models = typer.Typer(
    invoke_without_command=True,
    rich_markup_mode="markdown",
    epilog=_examples(
        "rerank-sidecar models",
        "rerank-sidecar models pull cross-encoder/ms-marco-MiniLM-L6-v2",
    ),
)
_models.callback()(models)
_models.command()(pull)
commands.add_typer(_models, name="models")


def run() -> None:
    """Run the command that the arguments name; output that cannot be written is one line."""
    ensure_standard_output()
    try:
        try:
            commands()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # as in `| head`: the reader has seen enough
        leave_standard_output()
        raise SystemExit(1) from None
    except OSError as error:
        if error.errno is None or error.filename is not None:  # no failed write, or not of output
            raise
        leave_standard_output()
        complain(f"cannot write: {error.strerror or error}")
        raise SystemExit(1) from None
