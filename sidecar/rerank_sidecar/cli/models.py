"""`rerank-sidecar models` and `rerank-sidecar models pull`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated

import typer
from rich.filesize import decimal

from rerank_sidecar.cli.options import takes_settings
from rerank_sidecar.cli.output import plain_table, print_json, results_console
from rerank_sidecar.models.listing import ModelListing, list_models
from rerank_sidecar.settings import Settings


@takes_settings("Model", but=("model", "quantize", "revision", "trust_remote_code", "offline"))
def models(
    settings: Settings,
    context: typer.Context,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """List what can be served and from where: built in, on disk, or known on the hub.

    What stands under `model` is what `--model` takes. Any model of a family that runs here can be
    served, not only those listed, and models of other servers. Nothing is asked over the network.
    """
    if context.invoked_subcommand is not None:
        _refuse_options(context)
        return
    from rerank_sidecar.loading.families import family_name

    found = list_models(settings, family_name)
    if as_json:
        print_json([asdict(listing) for listing in found])
    else:
        _print_table(found)


@takes_settings("Model", but=("model",))
def pull(
    settings: Settings,
    model: Annotated[
        str, typer.Argument(help="A Hugging Face model id, or the name of a [[models]] table.")
    ],
    *,
    download_only: Annotated[
        bool, typer.Option("--download-only", help="Leave converting it to `serve`.")
    ] = False,
) -> None:
    """Fetch a model from the hub and convert it, so that `serve` finds it on disk.

    Prints the folder that it was downloaded to.
    """
    from rerank_sidecar.loading.pull import pull_model

    tables = [each for each in settings.models if each.name == model]
    wanted = (
        settings.of_model(tables[0]) if tables else settings.model_copy(update={"model": model})
    )
    sys.stdout.write(f"{pull_model(wanted, prepare=not download_only)}\n")


def _refuse_options(context: typer.Context) -> None:
    if any(context.params.values()):
        raise typer.BadParameter(f"options belong after `{context.invoked_subcommand}`")


def _print_table(listings: list[ModelListing]) -> None:
    table = plain_table("model", "state", "size", "about")
    for each in listings:
        size = decimal(each.size_bytes) if each.size_bytes else ""
        facts = ", ".join(filter(None, (each.family, each.note, each.licence)))
        table.add_row(each.id, each.state, size, f"{facts}\n{each.place}")
    results_console().print(table)
