"""Tables of models: what they may say, what contradicts itself, and which one is the default."""

import re
from pathlib import Path

import pytest

from rerank_sidecar.errors import InvalidSetting
from rerank_sidecar.model_settings import OF_A_TABLE, LoadTime, ModelTable
from rerank_sidecar.settings import Quantization, Settings, read_settings
from rerank_sidecar.types import LongDocumentPolicy, Normalization

DOCS = Path(__file__).parents[2] / "docs"

TWO = """
max_documents = 50
quantize = "none"

[[models]]
name = "a"
source = "embedded"

[[models]]
name = "b"
source = "org/model"
aliases = ["rerank-*", "jina-?"]
load = "lazy"
quantize = "int8"
long_document_policy = "chunk"
normalization = "unit"
max_documents = 7
"""


def read(tmp_path: Path, text: str, **command_line: object) -> Settings:
    file = tmp_path / "sidecar.toml"
    file.write_text(text)
    return read_settings(file, **command_line)


def test_a_table_has_its_own_values_and_the_settings_have_the_others(tmp_path: Path) -> None:
    settings = read(tmp_path, TWO)
    a, b = settings.models
    assert (a.load, b.load, b.aliases) == (LoadTime.START, LoadTime.LAZY, ("rerank-*", "jina-?"))
    of_a, of_b = settings.of_model(a), settings.of_model(b)
    assert (of_a.model, of_b.model, of_a.models) == ("embedded", "org/model", ())
    assert (of_a.quantize, of_b.quantize) == (Quantization.NONE, Quantization.INT8)
    assert (of_a.max_documents, of_b.max_documents) == (50, 7)
    assert of_b.long_document_policy is LongDocumentPolicy.CHUNK
    assert (of_a.normalization, of_b.normalization) == (Normalization.NONE, Normalization.UNIT)


def test_a_false_in_a_table_is_said_and_not_left_out(tmp_path: Path) -> None:
    settings = read(tmp_path, "trust_remote_code = true\n" + TWO + "trust_remote_code = false\n")
    assert [settings.of_model(each).trust_remote_code for each in settings.models] == [True, False]


def test_every_field_of_a_table_is_of_the_table_or_a_setting() -> None:
    own = {"name", "source", "aliases", "default", "members", "load"}
    assert ModelTable.model_fields.keys() == own | OF_A_TABLE


@pytest.mark.parametrize(
    ("text", "command_line", "default"),
    [
        (TWO, {}, "a"),
        (TWO + "default = true\n", {}, "b"),
        (TWO, {"model": "b"}, "b"),
        ('model = "b"\n' + TWO, {}, "b"),
        ('model = "b"\n' + TWO, {"model": "a"}, "a"),
        (TWO + "default = true\n", {"model": "a"}, "a"),
        ("", {}, None),
        ("", {"model": "a"}, None),
    ],
)
def test_the_default(
    tmp_path: Path, text: str, command_line: dict[str, str], default: str | None
) -> None:
    table = read(tmp_path, text, **command_line).default_table
    assert (table and table.name) == default


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (TWO + TWO.partition("[[")[1] + 'models]]\nname = "a"\nsource = "x"', "called 'a'"),
        (TWO.replace('"a"', '"default"'), "'default'"),
        (TWO.replace('"a"', '"lexical"'), "'lexical'"),
        (TWO.replace('"a"', '""'), "models.0.name"),
        (TWO.replace('source = "embedded"', ""), "models.0.source: Field required"),
        (TWO.replace("= 7", "= 0"), "models.1.max_documents"),
        (TWO + 'colour = "red"', "models.1.colour"),
        (TWO.replace("[[models]]", "default = true\n[[models]]"), "default"),
        ('model = "c"\n' + TWO, "none is called 'c'; there are a, b"),
        (TWO.replace("embedded", "embedded'\"", 1), "cannot be read"),
        ("models = 3", "models"),
        ('models = "a"', "only"),
        ('pinned_paths = ["/rerank"]', "PATH=DIALECT"),
        ("pinned_paths = 3", "pinned_paths"),
        ("disabled_doors = 3", "disabled_doors"),
    ],
)
def test_what_contradicts_itself_is_refused_by_name(
    tmp_path: Path, text: str, complaint: str
) -> None:
    with pytest.raises(InvalidSetting) as raised:
        read(tmp_path, text)
    assert complaint in raised.value.message


@pytest.mark.parametrize("page", ["models.md", "settings.md"])
def test_the_examples_of_the_docs_are_read(tmp_path: Path, page: str) -> None:
    examples = re.findall(r"```toml\n(.*?)```", (DOCS / page).read_text("utf-8"), re.DOTALL)
    [example] = [each for each in examples if "[[models]]" in each]
    settings = read(tmp_path, example)
    assert len(settings.models) == 2
    assert settings.of_model(settings.models[1]).max_documents == 1000


def test_two_defaults_are_refused(tmp_path: Path) -> None:
    both = TWO.replace('source = "embedded"', 'source = "embedded"\ndefault = true')
    with pytest.raises(InvalidSetting, match="more than one has default"):
        read(tmp_path, both + "default = true\n")


def test_the_environment_has_lists_but_no_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RERANK_SIDECAR_DISABLED_DOORS", "voyage, kserve")
    monkeypatch.setenv("RERANK_SIDECAR_PINNED_PATHS", "/rerank=tei, /score=vllm")
    settings = read_settings()
    assert settings.disabled_doors == ("voyage", "kserve")
    assert settings.pinned_paths == {"/rerank": "tei", "/score": "vllm"}
    monkeypatch.setenv("RERANK_SIDECAR_MODELS", '[{"name": "a", "source": "embedded"}]')
    with pytest.raises(InvalidSetting, match="models: is set by"):
        read_settings()


def test_a_file_has_lists_and_tables(tmp_path: Path) -> None:
    text = 'disabled_doors = ["voyage"]\n[pinned_paths]\n"/rerank" = "tei"\n'
    settings = read(tmp_path, text)
    assert settings.disabled_doors == ("voyage",)
    assert settings.pinned_paths == {"/rerank": "tei"}


def test_reading_again_sees_the_file_as_it_is_now(tmp_path: Path) -> None:
    settings = read(tmp_path, "http_port = 1\ngrpc_port = 2\n", grpc_port=3)
    (tmp_path / "sidecar.toml").write_text("http_port = 4\ngrpc_port = 5\n")
    again = settings.read_again()
    assert (settings.http_port, again.http_port, again.grpc_port) == (1, 4, 3)
    assert again.config_file == tmp_path / "sidecar.toml"
    assert read_settings().config_file is None
