"""Every setting in words, read from `Settings` itself: for `--help` and for docs/settings.md.

`make settings-page` runs this module and writes the page.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType, NoneType
from typing import Any, get_args

from pydantic import AliasChoices
from pydantic.fields import FieldInfo

from rerank_sidecar.settings import ENV_PREFIX, Settings

SETTING_GROUPS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "Model": (
            "model",
            "quantize",
            "engine",
            "revision",
            "trust_remote_code",
            "offline",
            "cache_dir",
        ),
        "Long documents": ("long_document_policy", "max_windows"),
        "Doors": (
            "host",
            "http_port",
            "grpc_port",
            "keep_alive_timeout_s",
            "shutdown_grace_s",
            "max_body_bytes",
        ),
        "Limits": ("max_documents", "max_document_bytes", "max_query_bytes"),
        "Computing": (
            "workers",
            "threads_per_worker",
            "max_batch_tokens",
            "max_batch_size",
            "max_batch_wait_ms",
            "enable_cuda",
            "cuda_core",
        ),
        "Admission": ("request_timeout_s", "admission", "max_queue_tokens", "search_window_s"),
        "Caches": (
            "score_cache_bytes",
            "token_matrix_cache_bytes",
            "token_matrix_cache_dir",
            "token_matrix_disk_bytes",
        ),
        "Logging": ("log_level", "log_format"),
    }
)
"""The settings by what they are about, in the order in which they are shown."""

UNSET = "unset"
"""The default of a setting that has none."""

_TYPE_WORDS = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    Path: "path",
}

_BOUND_WORDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}

_INTRODUCTION = f"""\
# Settings

Written by `make settings-page` from the code; do not edit.

A setting is looked up in this order, and the first place that has it wins:

1. the command line: `rerank-sidecar serve --http-port 9000`
2. the environment: `{ENV_PREFIX}HTTP_PORT=9000`
3. a TOML file: `rerank-sidecar serve --config sidecar.toml`, with lines such as `http_port = 9000`
4. the default below

`serve` has all of the flags; `rank`, `eval` and `models` have those that concern them, and read the
same environment and file. Of two variables in one cell, the first that is set wins."""

_TABLE_HEAD = """\
| setting | type | default | environment | flag of `serve` | meaning |
| --- | --- | --- | --- | --- | --- |"""


@dataclass(frozen=True, slots=True)
class SettingRow:
    """One setting: how it is called in each place, what it takes and what it does.

    Of the variables in `environment`, the first that is set wins. `flag` is how the
    command line calls it. `default` is as one would write it.
    """

    group: str
    name: str
    type: str
    default: str
    environment: tuple[str, ...]
    flag: str
    description: str


def setting_rows() -> Iterator[SettingRow]:
    """Describe every setting, group by group."""
    for group, names in SETTING_GROUPS.items():
        for name in names:
            yield _row(group, name, Settings.model_fields[name])


def render_page() -> str:
    """Write docs/settings.md."""
    rows = list(setting_rows())
    tables = (
        "\n".join(
            (f"\n## {group}\n", _TABLE_HEAD, *(_line(row) for row in rows if row.group == group))
        )
        for group in SETTING_GROUPS
    )
    return "\n".join((_INTRODUCTION, *tables)) + "\n"


def _row(group: str, name: str, field: FieldInfo) -> SettingRow:
    return SettingRow(
        group=group,
        name=name,
        type=_type_words(field),
        default=_default_words(field.get_default(call_default_factory=True)),
        environment=_variables(name, field.validation_alias),
        flag=f"--{name.replace('_', '-')}",
        description=field.description or "",
    )


def _line(row: SettingRow) -> str:
    variables = ", ".join(f"`{name}`" for name in row.environment)
    cells = (f"`{row.name}`", row.type, row.default, variables, f"`{row.flag}`", row.description)
    return f"| {' | '.join(cells)} |"


def _type_words(field: FieldInfo) -> str:
    (plain,) = {*(get_args(field.annotation) or (field.annotation,))} - {NoneType}
    if isinstance(plain, type) and issubclass(plain, StrEnum):
        return " or ".join(f"`{each}`" for each in plain)
    bounds = (
        f"{words} {getattr(limit, key)}"
        for limit in field.metadata
        for key, words in _BOUND_WORDS.items()
        if hasattr(limit, key)
    )
    return ", ".join((_TYPE_WORDS[plain], *bounds))


def _default_words(default: Any) -> str:  # noqa: ANN401
    if default is None:
        return UNSET
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, Path) and default.is_relative_to(Path.home()):
        return f"`~/{default.relative_to(Path.home())}`"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


def _variables(name: str, alias: object) -> tuple[str, ...]:
    if isinstance(alias, AliasChoices):
        return tuple(str(choice) for choice in alias.choices if str(choice).isupper())
    return (f"{ENV_PREFIX}{name}".upper(),)


if __name__ == "__main__":
    sys.stdout.write(render_page())
