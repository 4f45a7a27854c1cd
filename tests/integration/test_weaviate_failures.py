"""What a search gives when the sidecar is gone, goes in mid-query, or refuses."""

import logging
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
from weaviate.classes.query import GroupBy
from weaviate.exceptions import WeaviateQueryError

from examples.labelled_set import vector
from rerank_adapters.errors import (
    DeadlineExceeded,
    ModelNotFound,
    RerankCallError,
    Unavailable,
    Unreachable,
)
from rerank_adapters.rerank import OnError, Rerank
from rerank_adapters.weaviate import (
    RerankedGroupByReturn,
    RerankedQueryReturn,
    rerank_query_return,
    rerank_query_return_async,
    reranker_config,
)
from rerank_adapters.weaviate.module_faults import module_fault
from tests.contract.running import RunningSidecar, running_sidecar
from tests.integration.weaviate_app import (
    Application,
    Server,
    application,
    labelled,
    places,
    rerank_scores,
)
from tests.integration.weaviate_modules import Cohere, Transformers
from tests.integration.weaviate_servers import running, server, server_of
from tests.integration.weaviate_stand_in import Running, weaviate_stand_in
from tests.integration.weaviate_suite import QUERY

__all__ = ["running", "server"]

PRIVATE = "a text that is nobody's business"

WAIT_S = 20.0


@pytest.fixture(params=["sync", "async"])
def is_async(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "async")


@contextmanager
def killed_in_mid_query(sidecar: RunningSidecar, sent: threading.Event) -> Iterator[None]:
    """Stop a sidecar, so that it takes what is sent and says nothing, and kill it once it was."""
    os.kill(sidecar.process.pid, signal.SIGSTOP)

    def kill() -> None:
        sent.wait(WAIT_S)
        time.sleep(0.2)  # it is under way by now; if it were not, the outcome would be the same
        sidecar.process.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    yield
    killer.join()


class Telling:
    """A sidecar's client that tells when it is asked."""

    def __init__(self, client: Any, asked: threading.Event) -> None:
        self._client = client
        self._asked = asked

    def rerank(self, *positional: Any, **options: Any) -> Any:
        self._asked.set()
        return self._client.rerank(*positional, **options)


@asynccontextmanager
async def mortal(*, is_async: bool, by_sidecar: bool) -> AsyncIterator[Application]:
    """An application whose sidecar dies in the next query."""
    sent = threading.Event()
    with running_sidecar(model="lexical") as sidecar:
        module = Transformers(f"http://127.0.0.1:{sidecar.http_port}", sending=sent.set)
        with weaviate_stand_in(module, vectorize=vector) as stand_in:
            mine = server_of(stand_in, sidecar.http_port, sidecar.grpc_port)
            async with application(
                mine, labelled(), is_async=is_async, by_sidecar=by_sidecar
            ) as app:
                if by_sidecar:
                    await app.call(app.sidecar.rerank, QUERY, ["connects the channel"])
                    app.reranked.query._sidecar = Telling(app.sidecar, sent)
                with killed_in_mid_query(sidecar, sent):
                    yield app


@pytest.mark.parametrize("by_sidecar", [False, True], ids=["module", "sidecar"])
class TestKilledInMidQuery:
    """The sidecar dies while it has the query."""

    async def test_raise(self, is_async: bool, by_sidecar: bool) -> None:
        expected: type[Exception] = RerankCallError if by_sidecar else WeaviateQueryError
        wanted = Rerank("body", QUERY, oversample=4, on_error="raise")
        async with mortal(is_async=is_async, by_sidecar=by_sidecar) as app:
            with pytest.raises(expected) as raised:
                await app.ask("near_vector", vector(QUERY), limit=5, rerank=wanted)
        assert by_sidecar or "extend rerank" in str(raised.value)

    async def test_passthrough(
        self, is_async: bool, by_sidecar: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        wanted = Rerank("body", QUERY, oversample=4, top_n=3, on_error="passthrough")
        async with mortal(is_async=is_async, by_sidecar=by_sidecar) as app:
            plain = await app.own("near_vector", vector(QUERY), limit=5, offset=1)
            with caplog.at_level(logging.WARNING, "rerank_adapters"):
                found = await app.ask(
                    "near_vector", vector(QUERY), limit=5, offset=1, rerank=wanted
                )
            counted = app.sidecar if by_sidecar else app.reranked
            assert counted.passthrough_count == 1
        assert isinstance(found, RerankedQueryReturn)
        assert places(found) == places(plain)[:3]
        assert rerank_scores(found) == [None] * 3
        assert isinstance(found.passed_through, Unavailable | DeadlineExceeded)
        assert "not reranked" in caplog.text
        assert QUERY not in caplog.text


@pytest.fixture
def nobody(server: Server) -> Iterator[Running]:
    """A Weaviate whose reranker is at an address where nobody listens."""
    with weaviate_stand_in(Transformers("http://127.0.0.1:1"), vectorize=vector) as stand_in:
        yield stand_in


def by(stand_in: Running, server: Server) -> Server:
    return Server(
        stand_in.connect,
        stand_in.connect_async,
        server.sidecar_url,
        server.sidecar_target,
        server.sidecar_inside,
    )


async def test_nobody_there(nobody: Running, server: Server, is_async: bool) -> None:
    async with application(by(nobody, server), labelled(), is_async=is_async) as app:
        for on_error in (None, "raise"):
            wanted = Rerank("body", QUERY, on_error=on_error)
            with pytest.raises(WeaviateQueryError, match="refused"):
                await app.ask("bm25", QUERY, limit=3, rerank=wanted)
        wanted = Rerank("body", QUERY, oversample=5, on_error="passthrough")
        plain = await app.own("bm25", QUERY, limit=3)
        found = await app.ask("bm25", QUERY, limit=3, rerank=wanted)
        assert places(found) == places(plain)
        assert isinstance(found.passed_through, Unavailable)
        assert isinstance(found.passed_through.__cause__, WeaviateQueryError)
        assert app.reranked.passthrough_count == 1
        assert app.reranked.with_tenant("one").passthrough_count == 1


async def test_nobody_there_for_groups(nobody: Running, server: Server) -> None:
    grouped = GroupBy(prop="kind", number_of_groups=2, objects_per_group=2)
    wanted = Rerank("body", QUERY, oversample=5, top_n=1, on_error="passthrough")
    async with application(by(nobody, server), labelled()) as app:
        plain = await app.own("near_vector", vector(QUERY), limit=9, group_by=grouped)
        found = await app.ask(
            "near_vector", vector(QUERY), limit=9, group_by=grouped, rerank=wanted
        )
    assert isinstance(found, RerankedGroupByReturn)
    assert list(found.groups) == list(plain.groups)[:1]
    assert found.objects == found.groups[next(iter(found.groups))].objects
    assert isinstance(found.passed_through, Unavailable)


@pytest.mark.parametrize("method", ["bm25", "near_vector"])
async def test_a_finished_query_passes_through(server: Server, is_async: bool, method: str) -> None:
    rerank = rerank_query_return_async if is_async else rerank_query_return
    asked: dict[str, Any] = {"limit": 6}
    if method == "near_vector":
        asked["group_by"] = GroupBy(prop="kind", number_of_groups=2, objects_per_group=3)
    async with application(
        server, labelled(), is_async=is_async, target="127.0.0.1:1", max_attempts=1
    ) as app:
        given = QUERY if method == "bm25" else vector(QUERY)
        returned = await app.own(method, given, **asked)
        with pytest.raises(Unreachable):
            await app.call(rerank, returned, Rerank("body", QUERY), app.sidecar)
        wanted = Rerank("body", QUERY, on_error="passthrough")
        found = await app.call(rerank, returned, wanted, app.sidecar)
        assert found.objects == returned.objects
        assert found.objects[0] is not returned.objects[0]
        assert isinstance(found.passed_through, Unreachable)
        assert app.sidecar.passthrough_count == 1
        if method == "near_vector":
            assert found.groups == returned.groups


ON_ERRORS: list[OnError] = ["raise", "passthrough"]


@pytest.mark.parametrize("on_error", ON_ERRORS)
class TestCallersFaults:
    """What would never get better is raised, whatever `on_error` says."""

    async def test_an_unknown_model(self, server: Server, on_error: OnError) -> None:
        config = reranker_config("cohere", server.sidecar_inside, "no-such-model")
        async with application(server, labelled(), config=config) as app:
            wanted = Rerank("body", QUERY, on_error=on_error)
            with pytest.raises(WeaviateQueryError, match=r"404: .*served are embedded, lexical"):
                await app.ask("bm25", QUERY, limit=3, rerank=wanted)
        async with application(server, labelled(), by_sidecar=True) as app:
            wanted = Rerank("body", QUERY, model="no-such-model", on_error=on_error)
            with pytest.raises(ModelNotFound):
                await app.ask("bm25", QUERY, limit=3, rerank=wanted)

    async def test_no_key(self, server: Server, on_error: OnError) -> None:
        config = reranker_config("cohere", server.sidecar_inside)
        with weaviate_stand_in(Cohere(None)) as stand_in:
            async with application(by(stand_in, server), labelled(), config=config) as app:
                wanted = Rerank("body", QUERY, on_error=on_error)
                with pytest.raises(WeaviateQueryError, match="no api key found"):
                    await app.ask("bm25", QUERY, limit=3, rerank=wanted)

    async def test_more_than_weaviate_finds_at_once(
        self, server: Server, on_error: OnError
    ) -> None:
        with weaviate_stand_in(Transformers(server.sidecar_url), maximum_results=100) as stand_in:
            async with application(by(stand_in, server), labelled()) as app:
                wanted = Rerank("body", QUERY, oversample=50, on_error=on_error)
                with pytest.raises(WeaviateQueryError, match="maximum results exceeded"):
                    await app.ask("bm25", QUERY, limit=3, rerank=wanted)

    async def test_a_collection_without_a_reranker(
        self, running: Running, server: Server, on_error: OnError
    ) -> None:
        async with application(server, labelled()) as app:
            running.stand_in.collections[app.plain.name].schema["moduleConfig"] = {}
            wanted = Rerank("body", QUERY, on_error=on_error)
            with pytest.raises(WeaviateQueryError, match="unknown capability: rerank"):
                await app.ask("bm25", QUERY, limit=3, rerank=wanted)


AT = "explorer: get class: extend: extend rerank: client rank: "


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (AT + 'send POST request: Post "http://x/rerank": connection refused', Unavailable),
        (AT + 'Post "http://x/rerank": context deadline exceeded', Unavailable),
        (AT + "fail with status 503: the server is starting", Unavailable),
        (AT + "fail with status 429: too busy", Unavailable),
        (AT + "unmarshal response body. Got: <html>", Unavailable),
        (AT + "connection to NVIDIA API failed with status: 500", Unavailable),
        ("Deadline Exceeded", DeadlineExceeded),
        (AT + "fail with status 422: the model ranks lists", None),
        (AT + "connection to Cohere API failed with status 401: invalid api token", None),
        (AT + "connection to NVIDIA API failed with status: 404", None),
        ("explorer: list class: extend: unknown capability: rerank", None),
        ("explorer: get class: extend: extend generate: status 503", None),
        ("explorer: get class: vector search: shard is read-only", None),
    ],
)
def test_whose_fault_it_is(words: str, expected: type[RerankCallError] | None) -> None:
    fault = module_fault(WeaviateQueryError(words, "GRPC search"))
    assert (None if fault is None else type(fault)) is expected


def test_an_error_tells_no_text() -> None:
    fault = module_fault(WeaviateQueryError(f"{AT}Got: {PRIVATE}", "GRPC search"))
    assert fault is not None
    assert PRIVATE not in str(fault)
