"""How a collection is pointed at a door, what Weaviate then posts to, and the check of it all."""

import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any, cast

import pytest
from pydantic import AnyHttpUrl
from weaviate.classes.config import Configure

from examples.labelled_set import DOCUMENTS, vector
from rerank_adapters import RerankClient
from rerank_adapters.rerank import Rerank
from rerank_adapters.weaviate import (
    Door,
    ModuleNotEnabled,
    ModuleTooOld,
    NotASidecar,
    OtherSidecar,
    ScoresNotComparable,
    SidecarNotReached,
    SidecarNotReady,
    SidecarRefused,
    check_weaviate,
    check_weaviate_async,
    reranker_config,
)
from tests.contract.running import running_sidecar
from tests.integration.weaviate_app import Server, application, labelled, places, rerank_scores
from tests.integration.weaviate_modules import Cohere, Transformers
from tests.integration.weaviate_servers import running, server
from tests.integration.weaviate_stand_in import Running, modules_for, weaviate_stand_in
from tests.integration.weaviate_suite import QUERY

__all__ = ["running", "server"]

DOORS: tuple[Door, ...] = ("transformers", "cohere", "nvidia")


class TestConfiguring:
    """`reranker_config`."""

    def test_what_it_says(self) -> None:
        assert reranker_config()._to_dict() == {}
        made = reranker_config("cohere", "http://rerank-sidecar:8080/", "english")
        assert made.reranker.value == "reranker-cohere"
        assert made._to_dict() == {
            "baseURL": "http://rerank-sidecar:8080/cohere",
            "model": "english",
        }
        made = reranker_config("nvidia", "https://example.org/rerank")
        assert made.reranker.value == "reranker-nvidia"
        assert made._to_dict() == {
            "baseURL": "https://example.org/rerank/nvidia",
            "model": "default",
        }

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("transformers", "http://here:8080"), "RERANKER_INFERENCE_API"),
            (("transformers", None, "english"), "model: the transformers module asks for no model"),
            (("cohere",), "address: the cohere door needs one"),
            (("cohere", "rerank-sidecar:8080"), "address: must be http"),
            (("nvidia", "http://user@host:8080"), "address: must be http"),
            (("nvidia", "http://host:8080/?x=1"), "address: must be http"),
            (("nvidia", "http://host:80800"), "address: must be http"),
            (("jinaai", "http://here:8080"), "door: must be"),
        ],
    )
    def test_what_cannot_be(self, arguments: tuple[Any, ...], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            reranker_config(*arguments)

    @pytest.mark.parametrize("door", DOORS)
    async def test_a_collection_uses_the_door(self, server: Server, door: Door) -> None:
        address = None if door == "transformers" else server.sidecar_inside
        async with application(server, labelled(), config=reranker_config(door, address)) as app:
            wanted = Rerank("body", QUERY, oversample=len(DOCUMENTS) / 3)
            found = await app.ask("near_vector", vector(QUERY), limit=3, rerank=wanted)
            scale = "unit" if door == "cohere" else "none"
            best = app.sidecar.rerank(QUERY, DOCUMENTS, normalization=scale).results[:3]
        assert places(found) == [each.index for each in best]
        assert rerank_scores(found) == pytest.approx([each.score for each in best], abs=1e-6)

    @pytest.mark.parametrize("door", ["cohere", "nvidia"])
    async def test_models_by_collection(self, server: Server, door: Door) -> None:
        with RerankClient(server.sidecar_target) as sidecar:
            for model in ("embedded", "lexical"):
                config = reranker_config(door, server.sidecar_inside, model)
                async with application(server, labelled(), config=config) as app:
                    wanted = Rerank("body", QUERY, oversample=20)
                    found = await app.ask("near_vector", vector(QUERY), limit=2, rerank=wanted)
                response = sidecar.rerank(QUERY, DOCUMENTS, model=model)
                assert places(found) == [each.index for each in response.results[:2]]

    async def test_a_collection_that_exists(self, server: Server) -> None:
        async with application(server, labelled()) as app:
            new = reranker_config("cohere", server.sidecar_inside, "lexical")
            app.plain.config.update(reranker_config=new)
            config = app.plain.config.get().reranker_config
            assert config.reranker == "reranker-cohere"
            assert config.model["model"] == "lexical"

    async def test_the_clients_own_configuration_adds_a_slash_that_does_no_harm(
        self, server: Server
    ) -> None:
        config = Configure.Reranker.nvidia(
            base_url=AnyHttpUrl(server.sidecar_inside), model="embedded"
        )
        assert config._to_dict()["baseURL"] == server.sidecar_inside + "/"
        async with application(server, labelled(), config=config) as app:
            await app.ask("near_vector", vector(QUERY), limit=2, rerank=Rerank("body", QUERY))


@contextmanager
def service(*answers: tuple[int, Any]) -> Iterator[str]:
    """Something that listens, and answers the first request so, then the second."""
    left = list(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = left.pop(0)
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            """Keep silent."""

    listening = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{listening.server_port}"
    listening.shutdown()
    thread.join()
    listening.server_close()
    assert not left, "not all was asked for"


ABOUT = {
    "name": "rerank-sidecar",
    "version": "9",
    "model": {"name": "listwise", "comparable_across_requests": False},
    "models": [{"name": "listwise"}],
}


class Told:
    """A Weaviate client that tells of these modules, as `get_meta` of either kind does."""

    def __init__(self, **modules: Any) -> None:
        self.modules = {name.replace("_", "-"): about for name, about in modules.items()}

    version = "1.36.0"

    def get_meta(self) -> Any:
        return {"version": self.version, "modules": self.modules}


class TestChecking:
    """`check_weaviate`."""

    @pytest.mark.parametrize("door", DOORS)
    async def test_all_is_well(self, running: Running, server: Server, door: Door) -> None:
        with running.connect() as client:
            check_weaviate(client, server.sidecar_url, door)
            check_weaviate(client, server.sidecar_url + "/", door, tls=ssl.create_default_context())
        async with running.connect_async() as other:
            await check_weaviate_async(other, server.sidecar_url, door)

    async def test_the_module_is_missing(self, server: Server) -> None:
        with weaviate_stand_in(Cohere("none")) as other, other.connect() as client:
            with pytest.raises(
                ModuleNotEnabled, match=r"ENABLE_MODULES .* It has: reranker-cohere"
            ):
                check_weaviate(client, server.sidecar_url)
            check_weaviate(client, server.sidecar_url, "cohere")
        with (
            weaviate_stand_in() as bare,
            bare.connect() as client,
            pytest.raises(ModuleNotEnabled, match="It has: no modules"),
        ):
            check_weaviate(client, server.sidecar_url, "nvidia")

    @pytest.mark.parametrize("version", ["1.34.9", "0.99.0", "1.9.0", "", "unknown"])
    async def test_the_cohere_module_would_ask_cohere(self, server: Server, version: str) -> None:
        old = cast("Any", Told(reranker_cohere={}, reranker_nvidia={}))
        old.version = version
        with pytest.raises(ModuleTooOld, match=f"Weaviate {version} .* to Cohere: .* from 1.35 on"):
            check_weaviate(old, server.sidecar_url, "cohere")
        check_weaviate(old, server.sidecar_url, "nvidia")
        for new in ("1.35.0-rc.0", "1.100.0", "2.0.0"):
            old.version = new
            check_weaviate(old, server.sidecar_url, "cohere")

    async def test_nobody_answers(self, running: Running) -> None:
        with running.connect() as client, pytest.raises(SidecarNotReached, match="start the sidec"):
            check_weaviate(client, "http://127.0.0.1:1")
        async with running.connect_async() as other:
            with pytest.raises(SidecarNotReached, match="ConnectError"):
                await check_weaviate_async(other, "http://127.0.0.1:1")

    async def test_the_model_is_not_ready(self, running: Running) -> None:
        with (
            running.connect() as client,
            service((204, b""), (503, {"error": "x"})) as address,
            pytest.raises(SidecarNotReady, match="warming up"),
        ):
            check_weaviate(client, address)

    @pytest.mark.parametrize(
        "answers",
        [
            [(404, {})],
            [(200, b""), (200, b""), (200, b"<html>")],
            [(200, {}), (200, {}), (200, [])],
        ],
    )
    async def test_something_else_answers(
        self, running: Running, answers: list[tuple[int, Any]]
    ) -> None:
        with (
            running.connect() as client,
            service(*answers) as address,
            pytest.raises(NotASidecar, match="not its gRPC port"),
        ):
            check_weaviate(client, address)

    async def test_weaviate_does_not_get_through(self, server: Server) -> None:
        with (
            weaviate_stand_in(Transformers("http://127.0.0.1:1")) as other,
            other.connect() as client,
            pytest.raises(SidecarNotReached, match=r"refused.* RERANKER_INFERENCE_API"),
        ):
            check_weaviate(client, server.sidecar_url)

    async def test_weaviate_asks_something_else(self, server: Server) -> None:
        stock = (200, {"model_type": "bert"})
        with (
            service(stock, stock) as address,  # asked when the client connects, too
            weaviate_stand_in(Transformers(address)) as other,
            other.connect() as client,
            pytest.raises(NotASidecar, match="RERANKER_INFERENCE_API"),
        ):
            check_weaviate(client, server.sidecar_url)

    async def test_weaviate_asks_another_sidecar(self, server: Server) -> None:
        client = cast("Any", Told(reranker_transformers=ABOUT))
        with pytest.raises(OtherSidecar, match="version 9 and models listwise, but the one at"):
            check_weaviate(client, server.sidecar_url)

    async def test_scores_are_not_comparable(self) -> None:
        with service((204, b""), (204, b""), (200, ABOUT)) as address:
            client = cast("Any", Told(reranker_transformers=ABOUT))
            with pytest.raises(ScoresNotComparable, match="'listwise' ranks whole lists"):
                check_weaviate(client, address)
        with service((204, b""), (204, b""), (200, ABOUT), (200, {})) as address:
            check_weaviate(cast("Any", Told(reranker_cohere={})), address, "cohere")

    @pytest.mark.parametrize("door", DOORS)
    async def test_the_door_is_closed(self, door: Door) -> None:
        closed = "weaviate" if door == "transformers" else door
        with (
            running_sidecar(model="lexical", disabled_doors=closed) as sidecar,
            weaviate_stand_in(*modules_for(sidecar.http_port)) as other,
            other.connect() as client,
            pytest.raises(SidecarRefused, match="disabled_doors"),
        ):
            check_weaviate(client, f"http://127.0.0.1:{sidecar.http_port}", door)

    async def test_a_token_is_wanted(self) -> None:
        with running_sidecar(model="lexical", auth_tokens="letmein") as sidecar:
            address = f"http://127.0.0.1:{sidecar.http_port}"
            modules = modules_for(sidecar.http_port, "letmein")
            with weaviate_stand_in(*modules) as other, other.connect() as client:
                with pytest.raises(SidecarRefused, match="COHERE_APIKEY"):
                    check_weaviate(client, address, "cohere")
                with pytest.raises(SidecarRefused, match="NVIDIA_APIKEY"):
                    check_weaviate(client, address, "nvidia", token="wrong")  # noqa: S106
                check_weaviate(client, address, "cohere", token="letmein")  # noqa: S106
                with pytest.raises(SidecarRefused, match="a listener of its own"):
                    check_weaviate(client, address)

    def test_arguments(self, running: Running) -> None:
        with running.connect() as client:
            for address in ("localhost:8080", "http://localhost:x", "http://[::1", "http://:8080"):
                with pytest.raises(ValueError, match="address: must be http"):
                    check_weaviate(client, address)
            with pytest.raises(ValueError, match="door: must be"):
                check_weaviate(client, "http://localhost:8080", cast("Any", "jinaai"))
