"""Real models side by side: they share the cores, the caches and the process, and nothing else."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from rerank_sidecar.app import build_engine
from rerank_sidecar.backends.cores import visible_cores
from rerank_sidecar.engine.engine import Engine
from rerank_sidecar.engine.repository import ModelRepository
from rerank_sidecar.errors import NotReady
from rerank_sidecar.loading.loader import model_loader
from rerank_sidecar.rerankers.lexical import LexicalReranker
from rerank_sidecar.settings import EngineChoice, Quantization, Settings, read_settings
from rerank_sidecar.types import Document, RerankOptions, RerankRequest, RerankResult
from tests.models.tiny_models import WORDS, save_tiny_model

DOCUMENTS = tuple(
    Document(" ".join(WORDS[first : first + 3 + first % 9])) for first in range(len(WORDS))
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("several")
    for name in ("bert", "electra"):
        save_tiny_model(folder / name, name)
    return folder


def settings_of(folder: Path, *tables: dict[str, object], **settings: object) -> Settings:
    return read_settings(
        None,
        models=[{"source": str(folder / str(each["name"])), **each} for each in tables],
        cache_dir=folder / "cache",
        quantize=Quantization.NONE,
        engine=EngineChoice.OPENVINO_FLOAT32,
        # As many threads as there are cores are pinned to them, those of every model to the same.
        workers=visible_cores(),
        threads_per_worker=1,
        score_cache_bytes=0,
        **settings,
    )


async def ask(engine: Engine, model: str, query: str = "where is the castle") -> RerankResult:
    return await engine.rerank(RerankRequest(query, DOCUMENTS, RerankOptions(model=model)))


def scores(result: RerankResult) -> dict[int, float]:
    return {each.index: each.score.value for each in result.results if each.score is not None}


async def test_models_that_are_pinned_to_the_same_cores_all_get_on(folder: Path) -> None:
    tables: tuple[dict[str, object], ...] = (
        {"name": "bert"},
        {"name": "electra", "load": "lazy"},
        {"name": "embedded", "source": "embedded"},
    )
    names = ["bert", "electra", "embedded", "lexical"]
    async with build_engine(settings_of(folder, *tables)) as engine:
        alone = {name: await ask(engine, name) for name in names}
        together = await asyncio.gather(*(ask(engine, name) for name in names for _ in range(8)))
        for result in together:
            name = result.summary.model.name
            assert result.summary.model == alone[name].summary.model
            assert scores(result) == pytest.approx(scores(alone[name]), abs=1e-5)
        assert len({tuple(scores(each).values()) for each in alone.values()}) == len(names)
        told = generate_latest().decode()
        for name in names[:3]:
            assert f'rerank_sidecar_pending_tokens{{model="{name}"}} 0.0' in told
            assert f'rerank_sidecar_tokens_per_second{{model="{name}"}}' in told
    assert 'rerank_sidecar_pending_tokens{model="bert"}' not in generate_latest().decode()


async def test_a_model_is_replaced_by_what_its_folder_has_now(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "bert", tmp_path / "model")
    settings = settings_of(tmp_path, {"name": "model"})
    with model_loader(settings) as loader:
        repository = ModelRepository(loader.load, LexicalReranker())
        await repository.apply(settings)
        engine = Engine(settings)
        engine.open(repository.registry)
        before = await ask(engine, "model")
        stop = asyncio.Event()
        asking = [asyncio.create_task(keep_asking(engine, stop)) for _ in range(4)]
        shutil.rmtree(tmp_path / "model")
        shutil.copytree(folder / "electra", tmp_path / "model")
        description = await repository.load("model")
        stop.set()
        versions = set[str]().union(*await asyncio.gather(*asking))
        after = await ask(engine, "model")
        assert before.summary.model.version != after.summary.model.version
        assert after.summary.model.version == description.model.version
        assert versions <= {before.summary.model.version, after.summary.model.version}
        assert scores(before) != scores(after)
        assert 'rerank_sidecar_tokens_per_second{model="model"}' in generate_latest().decode()
        await repository.close()
    assert 'rerank_sidecar_tokens_per_second{model="model"}' not in generate_latest().decode()


async def keep_asking(engine: Engine, stop: asyncio.Event) -> set[str]:
    versions = set[str]()
    while not stop.is_set():
        versions.add((await ask(engine, "model")).summary.model.version)
    return versions


async def test_a_folder_that_is_not_there_fails_its_own_requests_only(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_of(folder, {"name": "bert"}, {"name": "gone", "load": "lazy"})
    async with build_engine(settings) as engine:
        with pytest.raises(NotReady, match="gone could not be loaded"):
            await ask(engine, "gone")
        assert scores(await ask(engine, "bert"))
    assert f"model folder {folder / 'gone'} does not exist" in caplog.text


async def test_windows_that_a_table_allows_are_not_answered_from_anothers_scores(
    folder: Path,
) -> None:
    """The same files twice, read in one window and in many: the caches keep them apart."""
    tables = [
        {
            "name": name,
            "source": str(folder / "bert"),
            "max_windows": most,
            "long_document_policy": "chunk",
        }
        for name, most in (("one", 1), ("many", 16))
    ]
    long = (Document(" ".join(WORDS * 6)),)
    settings = settings_of(folder, *tables).model_copy(update={"score_cache_bytes": 1 << 20})
    async with build_engine(settings) as engine:
        for _ in range(2):
            counts = []
            for name in ("one", "many"):
                request = RerankRequest("castle", long, RerankOptions(model=name))
                [ranked] = (await engine.rerank(request)).results
                assert ranked.score is not None
                counts.append(ranked.score.window_count)
            assert counts[0] == 1
            assert counts[1] > 1
