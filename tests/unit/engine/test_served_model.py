"""A model's life: loaded once for many, replaced and unloaded under requests, failing politely."""

import asyncio
import time

import pytest

from rerank_sidecar.engine import instance as instance_module
from rerank_sidecar.engine.served_model import ServedModel
from rerank_sidecar.errors import (
    DeadlineExceeded,
    InternalError,
    ModelUnavailable,
    NotReady,
    NotSupportedByModel,
)
from rerank_sidecar.model_settings import LoadTime, ModelTable
from rerank_sidecar.settings import Settings
from tests.unit.engine.shelf import Shelf, ShelfModel, settled


def served(shelf: Shelf, load: LoadTime = LoadTime.LAZY) -> ServedModel:
    table = ModelTable(name="m", source="s", load=load)
    return ServedModel(table, Settings().of_model(table), shelf.load)


async def ask(model: ServedModel, hold: asyncio.Event | None = None, wait_s: float = 30.0) -> int:
    """Lease the model as a request does, and tell which instance answered."""
    with model.acquire() as instance:
        reranker = instance.reranker or await instance.ready(time.monotonic() + wait_s)
        assert isinstance(reranker, ShelfModel)
        if hold is not None:
            await hold.wait()
        assert not reranker.is_closed
        return reranker.number


async def test_the_first_requests_load_a_lazy_model_once() -> None:
    shelf = Shelf()
    model = served(shelf)
    assert model.reranker is None
    assert await asyncio.gather(*(ask(model) for _ in range(5))) == [1] * 5
    assert await ask(model) == 1
    assert shelf.begun == {"m": 1}


async def test_who_cannot_wait_so_long_is_told_and_the_load_goes_on() -> None:
    shelf = Shelf()
    shelf.gate.clear()
    model = served(shelf)
    patient = asyncio.create_task(ask(model))
    with pytest.raises(DeadlineExceeded, match="m was being loaded"):
        await ask(model, wait_s=0.01)
    shelf.gate.set()
    assert await patient == 1
    assert shelf.begun == {"m": 1}


async def test_who_goes_away_does_not_stop_the_load() -> None:
    shelf = Shelf()
    shelf.gate.clear()
    model = served(shelf)
    gone = asyncio.create_task(ask(model))
    await settled()
    gone.cancel()
    await settled()
    shelf.gate.set()
    assert await ask(model) == 1
    assert shelf.begun == {"m": 1}


async def test_a_failed_load_is_a_clear_error_and_is_tried_again_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shelf = Shelf()
    shelf.faults["s"] = ModelUnavailable("there is nothing in /secret/folder")
    model = served(shelf)
    outcomes = await asyncio.gather(*(ask(model) for _ in range(3)), return_exceptions=True)
    for error in outcomes:
        assert isinstance(error, NotReady)
        assert "m could not be loaded (MODEL_UNAVAILABLE)" in error.message
        assert "secret" not in error.message
        assert error.retry_after_s > 1
    assert caplog.text.count("there is nothing in /secret/folder") == 1
    with pytest.raises(NotReady):
        await ask(model)
    assert shelf.begun == {"m": 1}
    del shelf.faults["s"]
    monkeypatch.setattr(instance_module, "_TRY_AGAIN_S", 0.0)
    assert await ask(model) == 1


async def test_a_crash_while_loading_tells_nothing_but_its_kind(
    caplog: pytest.LogCaptureFixture,
) -> None:
    shelf = Shelf()
    shelf.faults["s"] = RuntimeError("private")
    model = served(shelf)
    with pytest.raises(NotReady, match="INTERNAL"):
        await ask(model)
    with pytest.raises(InternalError):
        await model.load()
    assert "RuntimeError" in caplog.text
    assert "private" not in caplog.text


async def test_a_new_instance_takes_over_and_the_old_one_answers_what_it_has() -> None:
    shelf = Shelf()
    model, hold = served(shelf, LoadTime.START), asyncio.Event()
    await model.load()
    old = asyncio.create_task(ask(model, hold))
    await settled()
    shelf.gate.clear()
    loading = asyncio.create_task(model.load())
    await settled()
    assert await ask(model) == 1  # until the new one has warmed up
    shelf.gate.set()
    await loading
    assert await ask(model) == 2
    assert shelf.open("m") == [1, 2]
    hold.set()
    assert await old == 1
    await settled()
    assert shelf.open("m") == [2]


async def test_what_cannot_be_replaced_goes_on_to_answer() -> None:
    shelf = Shelf()
    model = served(shelf, LoadTime.START)
    await model.load()
    shelf.faults["s"] = ModelUnavailable("gone")
    with pytest.raises(ModelUnavailable):
        await model.load()
    assert await ask(model) == 1


async def test_a_load_that_is_given_up_leaves_nothing_behind() -> None:
    shelf = Shelf()
    model = served(shelf, LoadTime.START)
    await model.load()
    shelf.gate.clear()
    loading = asyncio.create_task(model.load())
    await settled()
    loading.cancel()
    await settled()
    shelf.gate.set()
    await settled()
    assert await ask(model) == 1
    assert shelf.open("m") == [1]


async def test_unloading_waits_for_the_last_request_and_no_longer() -> None:
    shelf = Shelf()
    model, hold = served(shelf, LoadTime.START), asyncio.Event()
    await model.load()
    running = asyncio.create_task(ask(model, hold))
    await settled()
    unloading = asyncio.create_task(model.unload())
    await settled()
    with pytest.raises(NotReady, match="m has been unloaded"):
        await ask(model)
    assert not unloading.done()
    assert shelf.open("m") == [1]
    hold.set()
    assert await running == 1
    await unloading
    assert shelf.open("m") == []
    await model.load()
    assert await ask(model) == 2


async def test_the_next_request_loads_a_lazy_model_again() -> None:
    shelf = Shelf()
    model = served(shelf)
    assert await ask(model) == 1
    await model.unload()
    assert shelf.open("m") == []
    assert await ask(model) == 2


async def test_requests_that_wait_for_a_load_are_answered_though_it_is_unloaded_meanwhile() -> None:
    shelf = Shelf()
    shelf.gate.clear()
    model = served(shelf)
    waiting = [asyncio.create_task(ask(model)) for _ in range(3)]
    await settled()
    unloading = asyncio.create_task(model.unload())
    await settled()
    shelf.gate.set()
    assert await asyncio.gather(*waiting) == [1, 1, 1]
    await unloading
    assert shelf.open("m") == []


async def test_a_load_by_hand_joins_one_that_a_request_began() -> None:
    shelf = Shelf()
    shelf.gate.clear()
    model = served(shelf)
    waiting = asyncio.create_task(ask(model))
    await settled()
    loading = asyncio.create_task(model.load())
    await settled()
    shelf.gate.set()
    await loading
    assert await waiting == 1
    assert shelf.begun == {"m": 1}


async def test_requests_join_a_load_by_hand() -> None:
    shelf = Shelf()
    shelf.gate.clear()
    model = served(shelf)
    loading = asyncio.create_task(model.load())
    await settled()
    waiting = asyncio.create_task(ask(model))
    await settled()
    shelf.gate.set()
    await loading
    assert await waiting == 1
    assert shelf.begun == {"m": 1}


async def test_what_needs_no_loading_can_neither_be_loaded_nor_unloaded() -> None:
    model = ServedModel.of(ShelfModel("built-in", 1, True, asyncio.Event()))
    for change in (model.load, model.unload):
        with pytest.raises(NotSupportedByModel, match="always loaded"):
            await change()
    assert await ask(model) == 1


async def test_closing_ends_everything_at_once() -> None:
    shelf = Shelf()
    model, hold = served(shelf, LoadTime.START), asyncio.Event()
    await model.load()
    running = asyncio.create_task(ask(model, hold))
    await settled()
    await model.load()  # the first instance still has a request
    await model.close()
    assert shelf.open("m") == []
    running.cancel()


async def test_what_is_known_is_told_before_during_and_after() -> None:
    shelf = Shelf()
    model = served(shelf)
    before = model.describe(is_default=True)
    assert (before.model.name, before.model.version, before.score_kind) == ("m", "", None)
    assert (before.source, before.is_loaded, before.is_default) == ("s", False, True)
    await ask(model)
    assert model.describe(is_default=False).is_loaded
    await model.unload()
    after = model.describe(is_default=False)
    assert (after.model.version, after.max_tokens, after.is_loaded) == ("1", 512, False)
