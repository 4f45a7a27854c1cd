"""Flags made from `Settings`, so that name, help and default of a setting are written once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection
from inspect import Parameter
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import typer

from rerank_sidecar.cli.settings_reference import UNSET, SettingRow, setting_rows
from rerank_sidecar.settings import Settings, read_settings

Command = Callable[..., None]

_CONFIG = Annotated[
    Path | None,
    typer.Option(
        help="TOML file with settings.", rich_help_panel="Settings file", show_default=False
    ),
]


def takes_settings(*groups: str, but: Collection[str] = ()) -> Callable[[Command], Command]:
    """Give a command `--config` and a flag for each setting of these groups but some.

    The command is called with `settings`, read from the flags, the environment and the file. A
    flag that is not given is None and so overrides nothing.
    """
    rows = [row for row in setting_rows() if row.group in groups and row.name not in but]

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def with_settings(*, config: Path | None, **arguments: Any) -> None:  # noqa: ANN401
            given = {row.name: arguments.pop(row.name, None) for row in rows}
            command(settings=read_settings(config, **given), **arguments)

        own = inspect.signature(command, eval_str=True).parameters.values()
        options = [(row, row.flag) for row in rows if row.flag is not None]
        flags = [
            _flag("config", _CONFIG),
            *(_flag(row.name, _annotation(row, flag)) for row, flag in options),
        ]
        with_settings.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [*(each for each in own if each.name != "settings"), *flags]
        )
        return with_settings

    return decorate


def _flag(name: str, annotation: object) -> Parameter:
    return Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _annotation(row: SettingRow, flag: str) -> object:
    annotation = Settings.model_fields[row.name].annotation
    plain = next(iter(get_args(annotation)), annotation)
    if get_origin(annotation) in {tuple, dict}:
        plain = list[str]  # a flag that may be given more than once
    on_or_off = f"{flag}/--no-{flag.removeprefix('--')}" if plain is bool else flag
    default = "" if row.default == UNSET else f" Default: {row.default}."
    return Annotated[
        plain | None,  # type: ignore[operator]
        typer.Option(
            on_or_off,
            help=row.description + default,
            rich_help_panel=row.group,
            show_default=False,
        ),
    ]
