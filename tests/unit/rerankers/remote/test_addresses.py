"""How servers and their models are named, and where keys come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rerank_sidecar.errors import InvalidSetting, ModelNotServable, ModelUnavailable
from rerank_sidecar.loading.remote import RemoteFamily
from rerank_sidecar.rerankers.remote.engines import ENGINES, engine_of
from tests.unit.rerankers.remote.stand_in import like_cohere, opened, says, standing_in
from tests.unit.rerankers.toy_models import outcomes_of


@pytest.mark.parametrize("name", ENGINES)
def test_a_source_that_begins_with_an_engine_is_a_remote(name: str) -> None:
    family = RemoteFamily()
    assert family.claims(f"{name}:http://host:1#m")
    assert not family.claims(name)
    assert not family.claims(f"{name}/model")
    assert not family.claims(f"x{name}:http://host:1")
    assert not family.claims_folder(Path(name))


@pytest.mark.parametrize(
    ("source", "url", "model", "is_default"),
    [
        ("cohere:rerank-v3.5", "https://api.cohere.com", "rerank-v3.5", True),
        ("jina:jina-reranker-v3", "https://api.jina.ai", "jina-reranker-v3", True),
        ("voyage:rerank-2.5", "https://api.voyageai.com", "rerank-2.5", True),
        (
            "mixedbread:mixedbread-ai/large",
            "https://api.mixedbread.com",
            "mixedbread-ai/large",
            True,
        ),
        ("pinecone:bge-reranker-v2-m3", "https://api.pinecone.io", "bge-reranker-v2-m3", True),
        ("bedrock:cohere.rerank-v3-5:0", "", "cohere.rerank-v3-5:0", True),
        ("cohere:https://proxy/cohere/#m", "https://proxy/cohere", "m", False),
        ("tei:http://tei:8080", "http://tei:8080", "", False),
        ("tei:grpc://tei:80", "grpc://tei:80", "", False),
        ("tei:GRPCS://[::1]:80", "grpcs://[::1]:80", "", False),
        ("vllm:http://host:8000/#BAAI/bge#x", "http://host:8000", "BAAI/bge#x", False),
        ("sidecar:grpc://host:50051", "grpc://host:50051", "", False),
    ],
)
def test_a_source_names_an_address_and_a_model(
    source: str, url: str, model: str, is_default: bool
) -> None:
    engine = engine_of(source)
    assert engine is not None
    target = engine.target(source.partition(":")[2])
    assert (target.url, target.model, target.is_default) == (url, model, is_default)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("cohere:", "needs a model, as `cohere:model`"),
        ("cohere:https://host", "needs a model"),
        ("tei:", "needs an address, as `tei:http://host:port`"),
        ("tei:tei:8080", "needs an address"),
        ("kserve:http://host:1", "needs a model, as `kserve:http://host:port#model`"),
        ("vllm:grpc://host:1", "takes addresses of http, https only"),
        ("sidecar:http://host:1", "takes addresses of grpc, grpcs only"),
        ("tei:ftp://host", "takes addresses of http, https, grpc, grpcs only"),
        ("tei:http://", "without a name, a password or a query"),
        ("tei:http://host:0", "without a name"),
        ("tei:http://host:99999", "without a name"),
        ("tei:http://me:secret-1@host", "without a name, a password"),
        ("tei:http://host?key=secret-1", "or a query"),
        ("tei:grpc://host", "`grpc://host:port`"),
        ("tei:grpc://host:80/path", "`grpc://host:port`"),
    ],
)
async def test_a_source_that_names_nothing_is_refused(source: str, told: str) -> None:
    with pytest.raises(InvalidSetting, match=told) as raised:
        async with opened(source):
            pass
    assert "secret-1" not in raised.value.message


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"timeout": 1}, "timeout"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"max_tries": 0}, "max_tries"),
        ({"score_kind": "GOOD"}, "score_kind"),
        ({"path": "rerank"}, "path"),
        ({"query_tensor": "q"}, "query_tensor"),
        ({"api_key_env": "NOT_SET_ANYWHERE"}, "NOT_SET_ANYWHERE is not set"),
        ({"api_key_file": "/no/such/file"}, "cannot be read"),
        ({"ca_file": "/no/such/file"}, "is no file"),
        ({"ca_file": __file__}, "is no file of certificates"),
        ({"api_key_scheme": "Bearer\nX-Other:"}, "api_key_scheme"),
        ({"region": "x"}, "region"),
    ],
)
async def test_an_option_that_is_wrong_is_named(options: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidSetting, match=told):
        async with opened("vllm:http://host:1", **options):
            pass


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("ALL_PROXY", "socks5://me:secret-1@proxy:1080", r"httpx\[socks\]"),
        ("HTTP_PROXY", "http://me:secret-1@proxy:port", "no address of a proxy"),
        ("HTTPS_PROXY", "ftp://me:secret-1@proxy", "no address of a proxy"),
        ("NO_PROXY", "::1/128", "or no host"),
    ],
)
@pytest.mark.parametrize("source", ["vllm:http://host:1", "cohere:https://host:1#m"])
async def test_a_proxy_that_is_none_is_told_at_the_start(
    source: str, name: str, value: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for each in (name, name.lower()):
        monkeypatch.setenv(each, value)
    with pytest.raises(InvalidSetting, match=told) as raised:
        async with opened(source):
            pass
    assert "secret-1" not in raised.value.message


async def test_a_provider_needs_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COHERE_API_KEY", raising=False)
    with pytest.raises(InvalidSetting, match="set COHERE_API_KEY"):
        async with opened("cohere:rerank-v3.5"):
            pass
    monkeypatch.setenv("COHERE_API_KEY", "secret-1")
    async with opened("cohere:rerank-v3.5") as reranker:
        assert reranker.info.source == "cohere:rerank-v3.5"


async def test_a_providers_key_goes_to_no_other_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COHERE_API_KEY", "secret-1")
    async with standing_in(like_cohere) as server:
        async with opened(f"cohere:{server.url}#m") as reranker:
            await outcomes_of(reranker, "q", ["0.5"])
        async with opened(f"cohere:{server.url}#m", api_key_env="COHERE_API_KEY") as reranker:
            await outcomes_of(reranker, "q", ["0.5"])
    assert "authorization" not in server.asked[0].headers
    assert server.asked[1].headers["authorization"] == "Bearer secret-1"


async def test_a_key_may_be_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("secret-1\n")
    async with (
        standing_in(like_cohere) as server,
        opened(f"cohere:{server.url}#m", api_key_file=str(file)) as reranker,
    ):
        await outcomes_of(reranker, "q", ["0.5"])
    assert server.asked[0].headers["authorization"] == "Bearer secret-1"
    file.write_text("\n")
    with pytest.raises(InvalidSetting, match="is empty"):
        async with opened("vllm:http://host:1", api_key_file=str(file)):
            pass


@pytest.mark.parametrize("key", ["secret-ключ", "secret\nX-Other: 1"])
async def test_a_key_that_no_header_can_carry_is_told_at_the_start(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "key"
    file.write_text(key, "utf-8")
    monkeypatch.setenv("MY_KEY", key)
    for option in ({"api_key_file": str(file)}, {"api_key_env": "MY_KEY"}):
        for url in ("http://host:1", "grpc://host:1"):
            with pytest.raises(InvalidSetting, match="no header can carry") as raised:
                async with opened(f"tei:{url}", **option):
                    pass
            assert "secret" not in raised.value.message


async def test_nvidia_has_a_path_for_each_model_it_hosts() -> None:
    from rerank_sidecar.rerankers.remote.nvidia import NvidiaWire
    from rerank_sidecar.rerankers.remote.options import HttpOptions

    engine = ENGINES["nvidia"]
    hosted = NvidiaWire(engine.target("nvidia/llama-3.2-nv-rerankqa-1b-v2"), HttpOptions())
    assert hosted.path == "/v1/retrieval/nvidia/llama-3_2-nv-rerankqa-1b-v2/reranking"
    other = NvidiaWire(engine.target("m"), HttpOptions(path="/v1/retrieval/nvidia/reranking"))
    assert other.path == "/v1/retrieval/nvidia/reranking"


async def test_a_server_that_runs_no_reranker_is_refused() -> None:
    info = {"model_type": {"embedding": {"pooling": "cls"}}}
    async with standing_in(says(info)) as server:
        with pytest.raises(ModelNotServable, match="runs no reranker"):
            async with opened(f"tei:{server.url}"):
                pass


async def test_a_sidecar_has_to_be_there_at_the_start() -> None:
    with pytest.raises(ModelUnavailable, match="does not tell which model answers"):
        async with opened("sidecar:grpc://127.0.0.1:1"):
            pass


async def test_options_that_a_wire_could_not_heed_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MY_KEY", "secret-1")
    for source, options, told in [
        ("sidecar:grpc://host:1", {"score_kind": "COSINE"}, "tells it itself"),
        ("tei:grpc://host:1", {"path": "/rerank"}, "path"),
        ("bedrock:m", {"region": "us-west-2", "api_key_env": "MY_KEY"}, "AWS credentials"),
    ]:
        with pytest.raises(InvalidSetting, match=told):
            async with opened(source, **options):
                pass


async def test_tei_without_a_type_in_what_it_tells_is_taken_for_a_reranker() -> None:
    async with (
        standing_in(says([{"index": 0, "score": 1.0}]), says({"version": "9"})) as server,
        opened(f"tei:{server.url}") as reranker,
    ):
        assert len(await outcomes_of(reranker, "q", ["a"])) == 1


@pytest.mark.parametrize("told", [None, 7, ["reranker"], "classifier"])
async def test_a_model_type_of_another_form_does_not_crash(told: object) -> None:
    async with standing_in(says({"model_type": told})) as server:
        if told == ["reranker"]:
            async with opened(f"tei:{server.url}") as reranker:
                assert reranker.info.family == "remote"
        else:
            with pytest.raises(ModelNotServable):
                async with opened(f"tei:{server.url}"):
                    pass
