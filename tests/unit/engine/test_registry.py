"""Which model a name means: its own, an alias, the default, or nobody's."""

import asyncio

import pytest

from rerank_sidecar.engine.registry import Registry
from rerank_sidecar.engine.served_model import ServedModel
from rerank_sidecar.errors import ModelNotFound
from rerank_sidecar.model_settings import ModelTable, UnknownModel
from rerank_sidecar.rerankers.lexical import LexicalReranker
from rerank_sidecar.settings import Settings
from tests.unit.engine.shelf import Shelf, ShelfModel

TABLES = (
    ModelTable(name="english", source="a", aliases=("rerank-english-*", "jina-*")),
    ModelTable(name="BAAI/bge", source="b", aliases=("jina-reranker-v?", "english", "gte")),
)


def registry_of(*tables: ModelTable, unknown: UnknownModel | None = None) -> Registry:
    registry = Registry((), LexicalReranker())
    models = [ServedModel(table, Settings(), Shelf().load) for table in tables]
    registry.serve(models, tables[-1].name, Settings(unknown_model=unknown))
    return registry


@pytest.mark.parametrize(
    ("name", "found"),
    [
        (None, "BAAI/bge"),
        ("", "BAAI/bge"),
        ("default", "BAAI/bge"),
        ("english", "english"),  # a name comes before an alias
        ("BAAI/bge", "BAAI/bge"),
        ("rerank-english-v3.0", "english"),
        ("jina-reranker-v2", "english"),  # the first table that matches
        ("gte", "BAAI/bge"),
        ("lexical", "lexical"),
    ],
)
def test_names_aliases_and_the_default(name: str | None, found: str) -> None:
    assert registry_of(*TABLES).find(name).name == found


@pytest.mark.parametrize("name", ["rerank-2", "English", "baai/bge", "gte-large", " english"])
def test_of_several_models_a_name_that_nobody_has_is_an_error_that_lists_them(name: str) -> None:
    with pytest.raises(ModelNotFound) as raised:
        registry_of(*TABLES).find(name)
    assert raised.value.field == "model"
    assert raised.value.message == (
        "model: none of that name; served are BAAI/bge (also jina-reranker-v?, english, gte), "
        "english (also rerank-english-*, jina-*), lexical"
    )


def test_one_model_answers_whoever_asks_for_another() -> None:
    assert registry_of(TABLES[0]).find("rerank-2").name == "english"
    only_lexical = Registry([LexicalReranker()], LexicalReranker())
    assert only_lexical.find("rerank-2").name == "lexical"


def test_the_setting_decides_however_many_there_are() -> None:
    assert registry_of(*TABLES, unknown=UnknownModel.DEFAULT).find("rerank-2").name == "BAAI/bge"
    with pytest.raises(ModelNotFound):
        registry_of(TABLES[0], unknown=UnknownModel.ERROR).find("rerank-2")


def test_all_are_described_the_default_first_and_the_one_beside_last() -> None:
    described = registry_of(*TABLES).models()
    assert [each.model.name for each in described] == ["BAAI/bge", "english", "lexical"]
    assert [each.is_default for each in described] == [True, False, False]
    assert [each.is_loaded for each in described] == [False, False, True]
    assert described[1].aliases == ("rerank-english-*", "jina-*")


def test_a_table_may_configure_the_lexical_model_itself() -> None:
    table = ModelTable(name="lexical", source="lexical", aliases=("words",))
    described = registry_of(TABLES[0], table).models()
    assert [(each.model.name, each.is_default) for each in described] == [
        ("lexical", True),
        ("english", False),
    ]


def test_rerankers_are_served_as_they_are() -> None:
    first, second = (ShelfModel(name, 1, True, asyncio.Event()) for name in ("a", "b"))
    registry = Registry([first, second], any_script=second)
    assert registry.find(None).reranker is first
    assert [each.model.name for each in registry.models()] == ["a", "b"]
