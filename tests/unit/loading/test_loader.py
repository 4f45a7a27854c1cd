"""The loader finds the family, gives it what it needs, and closes all that it opened."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from rerank_sidecar.backends.base import Backend, BackendInfo, TokenSequence
from rerank_sidecar.backends.measure import MeasuredShape
from rerank_sidecar.engine.instance import LoadedModel
from rerank_sidecar.errors import BackendFailed, InvalidSetting
from rerank_sidecar.loading import families
from rerank_sidecar.loading.family import Loading
from rerank_sidecar.loading.loader import ModelLoader, model_loader
from rerank_sidecar.loading.pull import pull_model
from rerank_sidecar.model_settings import ModelTable
from rerank_sidecar.rerankers.base import Reranker
from rerank_sidecar.settings import Settings, read_settings
from tests.unit.rerankers.toy_members import ToyMember

SHAPE = MeasuredShape(512, 8, 64, 1000.0, "as told")


@dataclass
class ToyBackend:
    """A backend that notes when it is closed."""

    closed: int = 0

    @property
    def info(self) -> BackendInfo:
        return BackendInfo("toy", "1", "cpu", "float32", 1)

    def run(self, batch: Sequence[TokenSequence]) -> list[npt.NDArray[np.float32]]:
        return [np.zeros(1, dtype=np.float32) for _ in batch]

    def warm_up(self) -> None: ...

    def close(self) -> None:
        self.closed += 1


@dataclass
class ToyFamily:
    """A family of the test's own; with an `error` it fails when its backend runs already."""

    name: str = "toy"
    error: Exception | None = None
    backends: list[ToyBackend] = field(default_factory=list)
    loadings: list[Loading] = field(default_factory=list)
    prepared: list[Path] = field(default_factory=list)
    measuring: int = 0
    most_measuring: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def claims(self, source: str) -> bool:
        return source.startswith("toy:")

    def claims_folder(self, folder: Path) -> bool:
        return (folder / "toy.txt").is_file()

    def prepare(self, folder: Path, settings: Settings) -> None:
        self.prepared.append(folder)

    async def load(self, loading: Loading) -> Reranker:
        self.loadings.append(loading)
        running = await loading.start(self._fit)
        if self.error is not None:
            raise self.error
        return ToyMember(loading.name, described={"engine": running.info.engine})

    def _fit(self) -> tuple[Backend, MeasuredShape]:
        with self.lock:
            self.measuring += 1
            self.most_measuring = max(self.most_measuring, self.measuring)
        time.sleep(0.01)  # so that others, if they may, begin meanwhile
        backend = ToyBackend()
        self.backends.append(backend)
        with self.lock:
            self.measuring -= 1
        return backend, SHAPE


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> ToyFamily:
    family = ToyFamily()
    monkeypatch.setattr(families, "FAMILIES", (family, *families.FAMILIES))
    monkeypatch.setattr(families, "OF_FILES", (family, *families.OF_FILES))
    return family


async def load(
    loader: ModelLoader, source: str = "toy:a", *members: Reranker, **settings: Any
) -> LoadedModel:
    table = ModelTable(name="mine", source=source)
    return await loader.load(table, read_settings(**settings).of_model(table), members)


async def test_a_family_gets_name_settings_and_members(toy: ToyFamily) -> None:
    settings = read_settings()
    members = (ToyMember("cheap"), ToyMember("dear"))
    with model_loader(settings) as loader:
        loaded = await load(loader, "toy:a", *members)
        [loading] = toy.loadings
        assert (loading.name, loading.settings.model) == ("mine", "toy:a")
        assert loading.members == members
        assert loaded.reranker.info.name == "mine"
        await loaded.close()


async def test_what_runs_is_closed_with_the_model_and_not_before(toy: ToyFamily) -> None:
    with model_loader(read_settings()) as loader:
        loaded = await load(loader)
        [backend] = toy.backends
        assert backend.closed == 0
        await loaded.close()
        assert backend.closed == 1


@pytest.mark.parametrize(
    "error", [BackendFailed("no warm-up"), asyncio.CancelledError(), ValueError("a bug")]
)
async def test_what_was_opened_is_closed_when_loading_fails(
    toy: ToyFamily, error: Exception
) -> None:
    toy.error = error
    with model_loader(read_settings()) as loader:
        with pytest.raises(type(error)):
            await load(loader)
        assert [each.closed for each in toy.backends] == [1]


async def test_models_are_measured_one_after_the_other(toy: ToyFamily) -> None:
    with model_loader(read_settings()) as loader:
        loaded = await asyncio.gather(*(load(loader) for _ in range(6)))
        assert len(toy.backends) == 6
        assert toy.most_measuring == 1
        for each in loaded:
            await each.close()


async def test_a_folder_is_found_once(toy: ToyFamily, tmp_path: Path) -> None:
    (tmp_path / "toy.txt").touch()
    with model_loader(read_settings()) as loader:
        loaded = await load(loader, str(tmp_path))
        assert await toy.loadings[0].folder() == tmp_path
        assert toy.loadings[0].found == tmp_path
        await loaded.close()


async def test_families_are_asked_in_order_and_the_setting_goes_first(
    toy: ToyFamily, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = ToyFamily("later")
    monkeypatch.setattr(families, "FAMILIES", (*families.FAMILIES, later))
    with model_loader(read_settings()) as loader:
        await (await load(loader)).close()
        assert (len(toy.loadings), len(later.loadings)) == (1, 0)
        with pytest.raises(InvalidSetting, match="is of the family toy, not later"):
            await load(loader, family="later")


async def test_all_models_share_one_cache_of_documents(toy: ToyFamily) -> None:
    with model_loader(read_settings()) as loader:
        loaded = [await load(loader) for _ in range(2)]
        first, second = (each.matrix_cache() for each in toy.loadings)
        assert first is not None
        assert first is second
        for each in loaded:
            await each.close()


async def test_without_bytes_or_a_folder_there_is_no_cache(toy: ToyFamily) -> None:
    with model_loader(read_settings(token_matrix_cache_bytes=0)) as loader:
        loaded = await load(loader)
        assert toy.loadings[0].matrix_cache() is None
        await loaded.close()


def test_pulling_a_folder_prepares_it_by_its_family(toy: ToyFamily, tmp_path: Path) -> None:
    (tmp_path / "toy.txt").touch()
    settings = read_settings(model=str(tmp_path))
    assert pull_model(settings, prepare=False) == tmp_path
    assert toy.prepared == []
    assert pull_model(settings) == tmp_path
    assert toy.prepared == [tmp_path]


def test_a_named_family_prepares_a_folder_that_it_does_not_claim(
    toy: ToyFamily, tmp_path: Path
) -> None:
    assert pull_model(read_settings(model=str(tmp_path), family="toy")) == tmp_path
    assert toy.prepared == [tmp_path]


@pytest.mark.usefixtures("toy")
def test_a_source_of_a_familys_own_is_not_pulled() -> None:
    with pytest.raises(InvalidSetting, match="`toy:a` has no files to pull"):
        pull_model(read_settings(model="toy:a"))
