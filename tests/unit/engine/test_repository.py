"""Settings that change while the server runs: models come, go and change; or nothing does."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from rerank_sidecar.engine.administration import Administration
from rerank_sidecar.engine.engine import Engine
from rerank_sidecar.engine.repository import Changes, ModelRepository
from rerank_sidecar.errors import (
    InvalidField,
    InvalidSetting,
    LimitExceeded,
    ModelNotFound,
    ModelUnavailable,
    NotReady,
    NotSupportedByModel,
)
from rerank_sidecar.rerankers.base import RerankerInfo
from rerank_sidecar.rerankers.lexical import LexicalReranker
from rerank_sidecar.settings import Settings, read_settings
from rerank_sidecar.types import Document, Normalization, RerankOptions, RerankRequest
from tests.unit.engine.shelf import WAITS, Shelf, ShelfModel, settled


class Server:
    """An engine over a shelf; a table is `name field=value ...`, or `name:source ...`."""

    def __init__(self, *tables: str, **settings: object) -> None:
        self.shelf = Shelf()
        self.settings = settings_of(*tables, **settings)
        self.engine = Engine(self.settings)
        self.checked: list[str] = []
        self.repository = ModelRepository(self.shelf.load, LexicalReranker(), self.check)

    def check(self, info: RerankerInfo) -> None:
        self.checked.append(info.name)
        if not info.comparable_across_requests:
            raise InvalidSetting(f"{info.name} must not be the default")

    async def apply(self, *tables: str, **settings: object) -> Changes:
        return await self.repository.apply(settings_of(*tables, **settings))

    async def ask(self, model: str | None = None, text: str = "text", **options: object) -> str:
        given = RerankOptions(model=model, **options)  # type: ignore[arg-type]
        result = await self.engine.rerank(RerankRequest("query", (Document(text),), given))
        reference = result.summary.model
        return f"{reference.name} {reference.version}"

    def names(self) -> list[str]:
        return [each.model.name for each in self.engine.models()]


def settings_of(*tables: str, **settings: object) -> Settings:
    models = []
    for table in tables:
        called, *fields = table.split()
        name, _, source = called.partition(":")
        given = dict(field.split("=") for field in fields)
        models.append({"name": name, "source": source or name, **given})
    return read_settings(None, models=models, **settings)


@asynccontextmanager
async def serving(*tables: str, **settings: object) -> AsyncIterator[Server]:
    server = Server(*tables, **settings)
    await server.repository.apply(server.settings)
    server.engine.open(server.repository.registry)
    try:
        yield server
    finally:
        await server.repository.close()
        assert all(not server.shelf.open(name) for name in server.shelf.models)


async def test_models_of_the_start_are_loaded_one_after_the_other_and_lazy_ones_are_not() -> None:
    async with serving("a", "b load=lazy", "c") as server:
        assert list(server.shelf.begun) == ["a", "c"]
        assert server.names() == ["a", "b", "c", "lexical"]
        assert [await server.ask(name) for name in (None, "c", "b")] == ["a 1", "c 1", "b 1"]
        assert server.checked == ["a"]


@pytest.mark.parametrize(
    ("tables", "settings", "default"),
    [
        (("a", "b"), {}, "a"),
        (("a", "b default=true"), {}, "b"),
        (("a", "b default=true", "c"), {"model": "c"}, "c"),
    ],
)
async def test_the_default(
    tables: tuple[str, ...], settings: dict[str, object], default: str
) -> None:
    async with serving(*tables, **settings) as server:
        assert await server.ask() == await server.ask("default") == f"{default} 1"
        assert server.names()[0] == default


async def test_without_tables_the_one_model_has_the_name_it_always_had(tmp_path: Path) -> None:
    folder = tmp_path / "my-reranker"
    folder.mkdir()
    for model, name in (
        ("embedded", "embedded"),
        ("org/model", "org/model"),
        (str(folder), folder.name),
    ):
        async with serving(model=model) as server:
            assert server.names() == [name, "lexical"]
            assert server.shelf.settings[0].model == model
            assert await server.ask("whatever-others-have") == f"{name} 1"


async def test_each_table_has_its_own_limits_and_scale() -> None:
    tables = ("a max_documents=1 max_query_bytes=4", "b normalization=logit")
    async with serving(*tables, normalization="unit", max_document_bytes=10) as server:
        two = (Document("1"), Document("2"))
        for name, query, documents, field in (
            ("a", "q", two, "documents"),
            ("a", "query", two[:1], "query"),
        ):
            with pytest.raises(LimitExceeded) as raised:
                request = RerankRequest(query, documents, RerankOptions(model=name))
                await server.engine.rerank(request)
            assert raised.value.field == field
        scales = {}
        for name in ("a", "b", "lexical"):
            request = RerankRequest("q", two[:1], RerankOptions(model=name))
            scales[name] = (await server.engine.rerank(request)).summary.normalization
        assert scales == {
            "a": Normalization.UNIT,
            "b": Normalization.LOGIT,
            "lexical": Normalization.UNIT,
        }
        request = RerankRequest(
            "q", two, RerankOptions(model="b", normalization=Normalization.NONE)
        )
        told = await server.engine.rerank(request)
        assert told.summary.normalization is Normalization.NONE
        assert [each.score.value for each in told.results if each.score] == [0.5, 0.5]


async def test_models_come_go_and_change() -> None:
    async with serving("a", "b", "c") as server:
        changes = await server.apply("a", "c:elsewhere", "d", "e load=lazy")
        assert changes == Changes(added=("d", "e"), removed=("b",), changed=("c",))
        await settled()
        assert {name: server.shelf.open(name) for name in "abcd"} == {
            "a": [1],
            "b": [],
            "c": [2],
            "d": [1],
        }
        assert await server.ask("c") == "c 2"
        with pytest.raises(ModelNotFound, match="served are a, c, d, e, lexical"):
            await server.ask("b")
        assert not await server.apply("a", "c:elsewhere", "d", "e load=lazy")


async def test_what_does_not_concern_the_files_changes_without_loading() -> None:
    async with serving("a", "b") as server:
        changes = await server.apply("a aliases=x max_documents=1", "b", unknown_model="default")
        assert changes.changed == ("a",)
        assert server.shelf.begun == {"a": 1, "b": 1}
        assert await server.ask("nobody") == "a 1"
        with pytest.raises(LimitExceeded):
            await server.engine.rerank(RerankRequest("q", (Document("1"),) * 2))


async def test_another_default() -> None:
    async with serving("a", "b") as server:
        assert (await server.apply("a", "b default=true")).changed == ("a", "b")
        assert await server.ask() == "b 1"
        assert server.names() == ["b", "a", "lexical"]


async def test_requests_of_models_that_go_are_answered_first() -> None:
    async with serving("a", "b", "c load=lazy") as server:
        running = [asyncio.create_task(server.ask(name, WAITS)) for name in ("a", "b", "c")]
        await settled()
        await server.apply("a:elsewhere", "d")
        await settled()
        assert server.shelf.open("a") == [1, 2]
        assert server.shelf.open("b") == [1]
        server.shelf.released.set()
        assert await asyncio.gather(*running) == ["a 1", "b 1", "c 1"]
        await settled()
        assert [server.shelf.open(name) for name in "abc"] == [[2], [], []]


async def test_if_one_model_cannot_be_loaded_nothing_changes() -> None:
    async with serving("a", "b") as server:
        server.shelf.faults["broken"] = ModelUnavailable("no such folder")
        with pytest.raises(ModelUnavailable):
            await server.apply("a:elsewhere max_documents=1", "d", "e:broken")
        await settled()
        assert server.names() == ["a", "b", "lexical"]
        assert [await server.ask(name) for name in ("a", "b")] == ["a 1", "b 1"]
        assert [server.shelf.open(name) for name in "abd"] == [[1], [1], []]
        assert server.engine.settings_of("a").max_documents > 1


async def test_a_model_that_must_not_be_the_default_does_not_become_it() -> None:
    with pytest.raises(InvalidSetting, match="a must not be the default"):
        async with serving("a:listwise", "b"):
            pass
    async with serving("a", "b:listwise") as server:
        with pytest.raises(InvalidSetting, match="b must not be the default"):
            await server.apply("a", "b:listwise default=true")
        assert await server.ask() == "a 1"


async def test_a_part_of_a_search_is_refused_for_a_model_that_needs_all_of_it() -> None:
    async with serving("a", "b:listwise") as server:
        assert await server.ask("a", is_chunk=True) == "a 1"
        assert await server.ask("b") == "b 1"
        with pytest.raises(NotSupportedByModel, match="b mean something only within one request"):
            await server.ask("b", is_chunk=True)


async def test_what_was_unloaded_by_hand_stays_so_and_what_was_loaded_stays_loaded() -> None:
    async with serving("a", "b", "c load=lazy") as server:
        await server.repository.unload("b")
        assert await server.ask("c") == "c 1"
        await server.apply("a", "b max_documents=1", "c:elsewhere load=lazy")
        loaded = {each.model.name for each in server.engine.models() if each.is_loaded}
        assert loaded == {"a", "c", "lexical"}
        with pytest.raises(NotReady):
            await server.ask("b")
        await server.apply("a", "b", "c:nowhere")
        assert await server.ask("c") == "c 3"


async def test_a_lazy_model_that_is_to_be_there_from_the_start_is_loaded() -> None:
    async with serving("a", "b load=lazy") as server:
        await server.apply("a", "b")
        assert server.shelf.open("b") == [1]


async def test_loading_and_unloading_by_name() -> None:
    async with serving("a aliases=x", "b load=lazy") as server:
        assert (await server.repository.load("default")).model.version == "2"
        assert (await server.repository.load("b")).is_loaded
        await server.repository.unload("a")
        assert server.shelf.open("a") == []
        for name in ("x", "nobody"):  # an alias names several at times
            with pytest.raises(ModelNotFound, match="there are a, b, lexical") as raised:
                await server.repository.unload(name)
            assert raised.value.field == "name"
        with pytest.raises(InvalidField):
            await server.repository.load("")
        with pytest.raises(NotSupportedByModel):
            await server.repository.unload("lexical")


async def test_a_deadline_counts_from_the_arrival_however_long_the_model_loads() -> None:
    async with serving("a load=lazy") as server:
        server.shelf.gate.clear()
        asking = asyncio.create_task(server.ask(timeout_s=60.0))
        await settled()
        server.shelf.gate.set()
        assert await asking == "a 1"
        [model] = server.shelf.models["a"]
        [options] = model.seen
        loop = asyncio.get_running_loop()
        assert options.deadline is not None
        assert options.deadline < loop.time() + 60.0


async def test_draining_waits_for_a_request_whose_model_is_being_loaded() -> None:
    async with serving("a load=lazy") as server:
        server.shelf.gate.clear()
        asking = asyncio.create_task(server.ask())
        await settled()
        assert server.repository.is_loading
        draining = asyncio.create_task(server.engine.drain(30.0))
        await settled()
        assert not draining.done()
        server.shelf.gate.set()
        assert await asking == "a 1"
        await draining
        assert not server.repository.is_loading


async def test_closing_in_the_middle_of_a_load_gives_it_up() -> None:
    server = Server("a load=lazy")
    await server.repository.apply(server.settings)
    server.engine.open(server.repository.registry)
    server.shelf.gate.clear()
    asking = asyncio.create_task(server.ask())
    await settled()
    await server.repository.close()
    with pytest.raises(NotReady):
        await asking
    assert isinstance(server.repository.registry.any_script, LexicalReranker)


class File:
    """A settings file that changes, and what administers a server of it."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self.write(text)
        self.settings = read_settings(path, grpc_port=1)
        self.shelf = Shelf()
        self.repository = ModelRepository(self.shelf.load, LexicalReranker())
        self.administration = Administration(self.settings)

    def write(self, text: str) -> None:
        self.path.write_text(text)

    async def start(self) -> None:
        await self.repository.apply(self.settings)
        self.administration.open(self.repository)


def table(name: str, **fields: str) -> str:
    lines = (f'{key} = "{value}"' for key, value in {"source": name, **fields}.items())
    return "\n".join(("[[models]]", f'name = "{name}"', *lines, ""))


async def test_reading_the_file_again_applies_models_and_names_what_needs_a_restart(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    file = File(tmp_path / "s.toml", "http_port = 1\n" + table("a"))
    with pytest.raises(NotReady):
        await file.administration.reload()
    await file.start()
    file.write("http_port = 2\nmax_documents = 7\n" + table("a") + table("b", load="lazy"))
    done = await file.administration.reload()
    assert done.changes == Changes(added=("b",), changed=("a",))
    assert done.needs_restart == ("http_port",)
    assert "added: b; changed: a" in caplog.text
    assert "only a restart changes http_port" in caplog.text
    again = await file.administration.reload()
    assert not again.changes
    assert again.needs_restart == ("http_port",)
    assert isinstance(file.shelf.models["a"][0], ShelfModel)
    assert file.shelf.open("a") == [1]
    await file.repository.close()


@pytest.mark.parametrize(
    "text",
    ["[[models]\n", table("a") * 2, "max_documents = 0\n", "colour = 1\n", table("default")],
)
async def test_a_broken_file_changes_nothing(tmp_path: Path, text: str) -> None:
    file = File(tmp_path / "s.toml", table("a"))
    await file.start()
    file.write(text)
    with pytest.raises(InvalidSetting):
        await file.administration.reload()
    assert [each.name for each in file.repository.registry] == ["a", "lexical"]
    assert file.shelf.open("a") == [1]
    await file.repository.close()


async def test_a_file_without_tables_has_one_model(tmp_path: Path) -> None:
    file = File(tmp_path / "s.toml", 'model = "org/a"\n')
    await file.start()
    file.write('model = "org/b"\n')
    done = await file.administration.reload()
    assert done.changes == Changes(added=("org/b",), removed=("org/a",))
    file.write('quantize = "none"\nmodel = "org/b"\n')
    assert (await file.administration.reload()).changes == Changes(changed=("org/b",))
    await settled()
    assert file.shelf.open("org/b") == [2]
    await file.repository.close()
