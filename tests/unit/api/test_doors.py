"""Which doors are open, who may be speaking there, and where a key is looked for."""

import json
from typing import Any

import pytest

from rerank_sidecar.api.dialects import DIALECTS
from rerank_sidecar.api.doors import AnyDialect, Door, make_doors, open_dialects
from rerank_sidecar.api.routing import BARE_INFO, BARE_PATHS
from rerank_sidecar.errors import InvalidSetting, MalformedBody, RouteNotFound
from rerank_sidecar.settings import read_settings
from tests.unit.api.every_door import CALLERS, DOORS, Caller
from tests.unit.api.toy_engine import Toy, client_of, engine_with

NAMES = [each.name for each in DIALECTS]
BODY = json.dumps({"query": "q", "documents": ["1"]}).encode()


def names(dialects: list[AnyDialect]) -> list[str]:
    return [each.name for each in dialects]


def doors_with(**given: Any) -> dict[str, Door]:
    settings = read_settings(**given)
    return {each.path: each for each in make_doors(open_dialects(settings), settings)}


def test_names_and_paths_are_used_once() -> None:
    assert len(NAMES) == len(set(NAMES))
    paths = [each.path for each in DOORS]
    assert len(paths) == len(set(paths))


def test_who_may_be_guessed_is_somebody_and_every_mount_is_fixed() -> None:
    guessed = {name for speakers in BARE_PATHS.values() for name in speakers}
    assert guessed | set(BARE_INFO.values()) <= set(NAMES)
    mounted = {each.mount for each in DIALECTS if each.name != "generic"}
    assert all(mount.startswith("/") and not mount.endswith("/") for mount in mounted)
    assert not any(door.guesses for door in DOORS if door.path not in BARE_PATHS)


def test_every_info_of_a_bare_path_is_one_of_its_dialect() -> None:
    of_name = {each.name: each for each in DIALECTS}
    assert all(path in of_name[name].info() for path, name in BARE_INFO.items())


@pytest.mark.parametrize("caller", CALLERS, ids=str)
def test_every_dialect_is_known_by_its_own_example(caller: Caller) -> None:
    headers = {name.lower(): value for name, value in caller.headers.items()}
    assert caller.door.dialect_of(caller.body, headers) is caller.dialect


def test_doors_are_switched_off_by_name_or_by_mount() -> None:
    assert names(open_dialects(read_settings())) == NAMES
    without = open_dialects(read_settings(disabled_doors=("tei", "vllm", "native")))
    off = {each.name for each in DIALECTS if each.mount in {"/tei", "/vllm"}} | {"native"}
    assert {"tei", "vllm", "vllm_score"} <= off
    assert names(without) == [name for name in NAMES if name not in off]
    score = open_dialects(read_settings(disabled_doors=("vllm_score",)))
    assert names(score) == [name for name in NAMES if name != "vllm_score"]


def test_a_listener_may_serve_some_doors_only() -> None:
    settings = read_settings(disabled_doors=("tei",))
    dialects = open_dialects(settings, only={"weaviate", "tei"})
    assert names(dialects) == ["weaviate"]
    doors = make_doors(dialects, settings)
    assert {each.path for each in doors} == {"/rerank", "/weaviate/rerank"}


def test_a_door_that_does_not_exist_cannot_be_switched_off() -> None:
    with pytest.raises(InvalidSetting, match="there is no door coheer, waeviate"):
        open_dialects(read_settings(disabled_doors=("waeviate", "tei", "coheer")))


def test_what_is_switched_off_is_told_to_who_comes_for_it() -> None:
    door = doors_with(disabled_doors=("weaviate",))["/rerank"]
    with pytest.raises(RouteNotFound, match="weaviate"):
        door.dialect_of(BODY, {})
    assert door.dialect_of(b'{"texts": []}', {}).name == "tei"
    assert "/weaviate/rerank" not in doors_with(disabled_doors=("weaviate",))


def test_a_bare_path_without_speakers_is_closed() -> None:
    assert "/v2/rerank" not in doors_with(disabled_doors=("cohere",))


def test_a_pinned_path_speaks_one_dialect_whatever_it_is_sent() -> None:
    doors = doors_with(pinned_paths={"/rerank": "tei", "/v2/rerank": "vllm"})
    assert (doors["/rerank"].guesses, doors["/v2/rerank"].guesses) == (False, False)
    assert doors["/rerank"].dialect_of(BODY, {}).name == "tei"
    assert doors["/rerank"].dialect_of(b"no JSON", {}).name == "tei"
    assert doors["/v2/rerank"].dialect_of(BODY, {}).name == "vllm"
    assert doors["/v1/rerank"].guesses


@pytest.mark.parametrize(
    ("pinned", "words"),
    [
        ({"/v3/rerank": "tei"}, "no path /v3/rerank; there are /, "),
        ({"/tei/rerank": "tei"}, "no path /tei/rerank"),
        ({"/rerank": "cohere"}, "no dialect cohere; there are "),
    ],
)
def test_a_pin_on_what_does_not_exist_is_refused(pinned: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidSetting, match=words):
        doors_with(pinned_paths=pinned)


def test_a_pin_on_a_disabled_door_is_refused() -> None:
    with pytest.raises(InvalidSetting, match="/rerank is pinned to cohere_v1, which is disabled"):
        doors_with(pinned_paths={"/rerank": "cohere_v1"}, disabled_doors=("cohere",))


def test_a_door_that_guesses_takes_no_body_on_trust() -> None:
    door = doors_with()["/rerank"]
    assert door.guesses
    for body in (b"", b"[]", b"{}", b'{"query": "q"}', b"[" * 100_000):
        with pytest.raises(MalformedBody):
            door.dialect_of(body, {})


@pytest.mark.parametrize("door", DOORS, ids=lambda each: each.path)
def test_a_key_is_looked_for_where_any_of_its_speakers_puts_it(door: Door) -> None:
    assert set(door.key_headers) == {
        name for dialect in door.dialects for name in dialect.key_headers
    }
    assert len(door.key_headers) == len(set(door.key_headers)) > 0
    assert all(name == name.lower() for name in door.key_headers)


async def test_settings_close_and_pin_paths_of_a_server() -> None:
    given: dict[str, Any] = {"disabled_doors": ("tei",), "pinned_paths": {"/v1/rerank": "weaviate"}}
    async with client_of(engine_with(Toy(), **given)) as client:
        for path in ("/tei/rerank", "/invocations"):
            assert (await client.post(path, content=b"{}")).status_code == 404
        switched_off = await client.post("/rerank", json={"query": "q", "texts": ["1"]})
        assert (switched_off.status_code, "tei" in switched_off.json()["error"]) == (404, True)
        pinned = await client.post("/v1/rerank", content=BODY)
        assert pinned.json()["scores"] == [{"document": "1", "score": 1.0}]
