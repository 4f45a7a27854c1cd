"""Every setting is described once, and docs/settings.md says what the code says."""

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from rerank_sidecar.cli.commands import commands
from rerank_sidecar.cli.options import takes_settings
from rerank_sidecar.cli.settings_reference import (
    SETTING_GROUPS,
    SettingRow,
    render_page,
    setting_rows,
)
from rerank_sidecar.settings import Settings, read_settings

PAGE = Path(__file__).parents[3] / "docs" / "settings.md"
ROWS = list(setting_rows())


def test_page_is_fresh() -> None:
    assert PAGE.read_text("utf-8") == render_page(), "run `make settings-page`"


def test_every_setting_is_in_one_group_and_explained() -> None:
    grouped = [name for names in SETTING_GROUPS.values() for name in names]
    assert sorted(grouped) == sorted(Settings.model_fields)
    assert all(row.description.endswith(".") for row in ROWS)


def test_page_does_not_name_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert PAGE.read_text("utf-8") == render_page()


def test_serve_has_a_flag_for_every_setting() -> None:
    shown = CliRunner().invoke(commands, ["serve", "--help"], env={"COLUMNS": "200"}).output
    assert [row.flag for row in ROWS if row.flag and f"{row.flag} " not in shown] == []


def test_what_is_secret_has_no_flag_and_what_is_a_table_neither_flag_nor_variable() -> None:
    assert {row.name for row in ROWS if row.flag is None} == {"auth_tokens", "models"}
    assert [row.name for row in ROWS if not row.environment] == ["models"]


@pytest.mark.parametrize(
    ("flags", "doors", "paths"),
    [
        (["--disabled-doors", "voyage,kserve"], ("voyage", "kserve"), {}),
        (["--disabled-doors", "voyage", "--disabled-doors", "tei"], ("voyage", "tei"), {}),
        (["--pinned-paths", "/rerank=tei"], (), {"/rerank": "tei"}),
        (
            ["--pinned-paths", "/rerank=tei,/v1/rerank=voyage", "--pinned-paths", "/score=vllm"],
            (),
            {"/rerank": "tei", "/v1/rerank": "voyage", "/score": "vllm"},
        ),
        ([], (), {}),
    ],
)
def test_lists_are_flags_that_repeat_or_have_commas(
    flags: list[str], doors: tuple[str, ...], paths: dict[str, str]
) -> None:
    seen: list[Settings] = []

    @takes_settings("Doors")
    def command(settings: Settings) -> None:
        seen.append(settings)

    app = typer.Typer()
    app.command()(command)
    ran = CliRunner().invoke(app, flags)
    assert ran.exit_code == 0, ran.output
    assert [(each.disabled_doors, each.pinned_paths) for each in seen] == [(doors, paths)]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_variables_that_are_named_are_read(
    row: SettingRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    default = getattr(read_settings(), row.name)
    for variable in row.environment:
        with monkeypatch.context() as patch:
            patch.setenv(variable, _other_value(row.name, default))
            assert getattr(read_settings(), row.name) != default, variable


def _other_value(name: str, default: object) -> str:
    by_name = {
        "quantize": "none",
        "unknown_model": "error",
        "normalization": "unit",
        "pinned_paths": "/rerank=tei",
        "family_options": "window=20",
        "device": "cpu",
        "cuda_core": "cuda:1",
        "engine": "openvino-float32",
        "long_document_policy": "truncate",
        "log_level": "debug",
        "log_format": "json",
    }
    unset_numbers = {"workers", "threads_per_worker", "weaviate_port"} | {
        name for name in Settings.model_fields if name.startswith("max_") and default is None
    }
    if isinstance(default, bool):
        return str(not default)
    if isinstance(default, int | float):
        return str(default + 1)
    if name in unset_numbers:
        return "3"
    return by_name.get(name, "other")
