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
from typing import Any, get_args, get_origin

from pydantic import AliasChoices, BaseModel, SecretStr
from pydantic.fields import FieldInfo

from rerank_sidecar.model_settings import OF_A_TABLE, ModelTable
from rerank_sidecar.settings import ENV_PREFIX, Settings

SETTING_GROUPS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "Model": (
            "model",
            "family",
            "family_options",
            "quantize",
            "engine",
            "device",
            "revision",
            "trust_remote_code",
            "offline",
            "cache_dir",
        ),
        "Several models": ("models", "unknown_model"),
        "Scores": ("normalization",),
        "Long documents": ("long_document_policy", "max_windows"),
        "Doors": (
            "host",
            "http_port",
            "grpc_port",
            "disabled_doors",
            "pinned_paths",
            "admin",
            "keep_alive_timeout_s",
            "shutdown_grace_s",
            "max_body_bytes",
        ),
        "Security": (
            "auth_tokens",
            "auth_tokens_file",
            "metrics_auth",
            "weaviate_port",
            "weaviate_host",
            "weaviate_tls",
            "tls_certificate",
            "tls_key",
            "tls_client_ca",
        ),
        "Limits": (
            "max_documents",
            "max_document_bytes",
            "max_query_bytes",
            "max_request_tokens",
        ),
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
    SecretStr: "text",
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

`serve` has all of the flags, but none for what is secret, because everybody on a machine can read
its command lines; `rank`, `eval` and `models` have those that concern them, and read the same
environment and file. Of two variables in one cell, the first that is set wins. Commas separate the
items of a list in a variable and in a flag, which may also be given more than once."""

_TABLE_HEAD = """\
| setting | type | default | environment | flag of `serve` | meaning |
| --- | --- | --- | --- | --- | --- |"""


_TABLES_OF_MODELS = """
## `[[models]]`

Several models in one process are tables of the file, without flags or variables.
[models.md](models.md#several-models) tells how they are called, loaded and replaced.

```toml
unknown_model = "default"

[[models]]
name = "embedded"
source = "embedded"
aliases = ["rerank-english-*"]

[[models]]
name = "multilingual"
source = "BAAI/bge-reranker-v2-m3"
aliases = ["rerank-multilingual-*", "jina-reranker-*"]
load = "lazy"
max_documents = 1000
normalization = "unit"
```

| field | type | default | meaning |
| --- | --- | --- | --- |"""

_OTHER_FIELDS = """
Also {fields}: the setting of that name, for this model alone.
"""


@dataclass(frozen=True, slots=True)
class SettingRow:
    """One setting: how it is called in each place, what it takes and what it does.

    Of the variables in `environment`, the first that is set wins. `flag` is how the
    command line calls it, None if it does not. `default` is as one would write it.
    """

    group: str
    name: str
    type: str
    default: str
    environment: tuple[str, ...]
    flag: str | None
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
    return "\n".join((_INTRODUCTION, *tables, _TABLES_OF_MODELS, *_fields_of_tables())) + "\n"


def _fields_of_tables() -> Iterator[str]:
    for name, field in ModelTable.model_fields.items():
        if name not in OF_A_TABLE:
            default = "needed" if field.is_required() else _default_words(field.get_default())
            cells = (f"`{name}`", _type_words(field), default, field.description or "")
            yield f"| {' | '.join(cells)} |"
    fields = [f"`{name}`" for name in ModelTable.model_fields if name in OF_A_TABLE]
    yield _OTHER_FIELDS.format(fields=", ".join(fields)).rstrip()


def _row(group: str, name: str, field: FieldInfo) -> SettingRow:
    return SettingRow(
        group=group,
        name=name,
        type=_type_words(field),
        default=_default_words(field.get_default(call_default_factory=True)),
        environment=() if _is_table(field) else _variables(name, field.validation_alias),
        flag=_flag(name, field),
        description=field.description or "",
    )


def _flag(name: str, field: FieldInfo) -> str | None:
    has_none = SecretStr in _plain_types(field) or _is_table(field)
    return None if has_none else f"--{name.replace('_', '-')}"


def _line(row: SettingRow) -> str:
    variables = ", ".join(f"`{name}`" for name in row.environment)
    flag = "none" if row.flag is None else f"`{row.flag}`"
    cells = (f"`{row.name}`", row.type, row.default, variables, flag, row.description)
    return f"| {' | '.join(cells)} |"


def _type_words(field: FieldInfo) -> str:
    if _is_table(field):
        return "tables"
    if get_origin(field.annotation) is dict:
        return "list of KEY=VALUE"
    if get_origin(field.annotation) is tuple:
        return "list of texts"
    (plain,) = _plain_types(field)
    if isinstance(plain, type) and issubclass(plain, StrEnum):
        return " or ".join(f"`{each}`" for each in plain)
    bounds = (
        f"{words} {getattr(limit, key)}"
        for limit in field.metadata
        for key, words in _BOUND_WORDS.items()
        if hasattr(limit, key)
    )
    return ", ".join((_TYPE_WORDS[plain], *bounds))


def _plain_types(field: FieldInfo) -> set[Any]:
    return {*(get_args(field.annotation) or (field.annotation,))} - {NoneType, Ellipsis}


def _is_table(field: FieldInfo) -> bool:
    return any(
        isinstance(each, type) and issubclass(each, BaseModel) for each in _plain_types(field)
    )


def _default_words(default: Any) -> str:  # noqa: ANN401
    if default is None or default in ((), {}):
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
