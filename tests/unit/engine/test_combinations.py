"""Models that are made of others: what they are loaded with, and what becomes of it."""

import asyncio

import pytest

from rerank_sidecar.errors import InvalidSetting, ModelUnavailable, NotSupportedByModel
from tests.unit.engine.shelf import WAITS, settled
from tests.unit.engine.test_repository import serving, settings_of

BOTH = ("both members=a,b", "a", "b")


async def test_members_are_loaded_first_and_lent_in_the_order_of_the_table() -> None:
    async with serving("both members=b,lexical,a", "a", "b load=lazy") as server:
        assert sorted(server.shelf.begun) == ["a", "b", "both"]
        assert server.shelf.members["both"] == ["b 1", "lexical 1", "a 1"]
        assert server.names() == ["both", "a", "b", "lexical"]
        assert await server.ask("b") == "b 1"


async def test_a_combination_may_have_combinations_as_members() -> None:
    async with serving("top members=both", *BOTH) as server:
        assert server.shelf.members == {"a": [], "b": [], "both": ["a 1", "b 1"], "top": ["both 1"]}


async def test_a_lazy_combination_loads_its_lazy_members() -> None:
    async with serving("c", "both members=a load=lazy", "a load=lazy") as server:
        assert list(server.shelf.begun) == ["c"]
        assert await server.ask("both") == "both 1"
        assert server.shelf.members["both"] == ["a 1"]


async def test_a_member_that_is_loaded_anew_takes_its_combinations_with_it() -> None:
    async with serving("top members=both", *BOTH) as server:
        await server.repository.load("a")
        assert server.shelf.members["both"] == ["a 2", "b 1"]
        assert server.shelf.members["top"] == ["both 2"]
        await settled()
        assert [server.shelf.open(name) for name in ("a", "b", "both", "top")] == [
            [2],
            [1],
            [2],
            [2],
        ]


async def test_new_settings_of_a_member_load_its_combinations_anew() -> None:
    async with serving(*BOTH, "c") as server:
        changes = await server.apply("both members=a,b", "a quantize=none", "b", "c")
        assert changes.changed == ("a", "both")
        assert server.shelf.members["both"] == ["a 2", "b 1"]
        await settled()
        assert [server.shelf.open(name) for name in ("a", "b", "both", "c")] == [
            [2],
            [1],
            [2],
            [1],
        ]


async def test_other_members_make_another_combination() -> None:
    async with serving(*BOTH) as server:
        assert (await server.apply("both members=b", "a", "b")).changed == ("both",)
        assert server.shelf.members["both"] == ["b 1"]


async def test_what_a_combination_is_made_of_cannot_be_unloaded_before_it() -> None:
    async with serving("c", *BOTH) as server:
        with pytest.raises(NotSupportedByModel, match="name: both is made of a"):
            await server.repository.unload("a")
        assert await server.ask("a") == "a 1"
        await server.repository.unload("both")
        await server.repository.unload("a")
        assert server.shelf.open("a") == []
        await server.repository.load("both")
        assert server.shelf.members["both"] == ["a 2", "b 1"]


async def test_a_member_stays_until_the_combination_has_answered() -> None:
    async with serving(*BOTH) as server:
        old = server.shelf.models["both"][0]
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(server.ask("both", WAITS))
            await old.waiting.wait()
            await server.apply("c")
            await settled()
            assert server.shelf.open("a") == [1]
            server.shelf.released.set()
        assert asked.result() == "both 1"
        await settled()
        assert server.shelf.open("a") == server.shelf.open("both") == []


async def test_a_member_that_cannot_be_loaded_fails_its_combination() -> None:
    async with serving("c") as server:
        server.shelf.faults["a"] = ModelUnavailable("model a is nowhere")
        with pytest.raises(ModelUnavailable, match="nowhere"):
            await server.apply("c", *BOTH)
        assert server.names() == ["c", "lexical"]
        await settled()
        assert server.shelf.open("b") == []


@pytest.mark.parametrize(
    ("tables", "reason"),
    [
        (("both members=a,nobody", "a"), "'both' has the member 'nobody', which is no table"),
        (("a members=b", "b members=a"), "is a member of itself"),
        (("a members=a",), "'a' is a member of itself"),
    ],
)
def test_members_that_make_no_sense(tables: tuple[str, ...], reason: str) -> None:
    with pytest.raises(InvalidSetting, match=reason):
        settings_of(*tables)
