"""All models of a server: which are served, and what becomes of them when the settings change."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from graphlib import TopologicalSorter

from rerank_sidecar.engine.registry import Registry
from rerank_sidecar.engine.served_model import Check, Load, ServedModel
from rerank_sidecar.errors import InvalidField, ModelNotFound, NotSupportedByModel
from rerank_sidecar.model_settings import DEFAULT_NAME, OF_A_TABLE, LoadTime, ModelTable
from rerank_sidecar.models.resolve import served_tables
from rerank_sidecar.rerankers.base import Reranker
from rerank_sidecar.settings import Settings
from rerank_sidecar.types import ModelDescription

_LOG = logging.getLogger(__name__)

_AS_LOADED = (
    *("model", "family", "family_options", "quantize", "engine", "device"),
    *("revision", "trust_remote_code", "max_windows"),
)
"""The settings of a model that cannot change without loading it anew."""


@dataclass(frozen=True, slots=True)
class Changes:
    """The names of models that were added, removed and changed."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)

    def __str__(self) -> str:
        parts = (("added", self.added), ("removed", self.removed), ("changed", self.changed))
        told = "; ".join(f"{what}: {', '.join(names)}" for what, names in parts if names)
        return told or "no model changed"


@dataclass(slots=True)
class _Plan:
    """What will be served: who stays (with its new table and settings), and who is new."""

    models: list[ServedModel] = field(default_factory=list)
    kept: list[tuple[ServedModel, ModelTable, Settings]] = field(default_factory=list)
    fresh: list[ServedModel] = field(default_factory=list)

    def find(self, names: Sequence[str], beside: ServedModel) -> list[ServedModel]:
        """Find models that are planned already, or the one that is served beside them."""
        by_name = {each.name: each for each in (beside, *self.models)}
        return [by_name[name] for name in names]


class ModelRepository:
    """The models that `[[models]]` tables name, loaded or not; belongs to one event loop.

    `any_script` is served beside them. `check` is asked before a model becomes the default.
    """

    def __init__(self, load: Load, any_script: Reranker, check: Check | None = None) -> None:
        self.registry = Registry((), any_script)
        self._load = load
        self._check = check
        self._default = ""
        self._changing = asyncio.Lock()
        self._served: list[ServedModel] = []
        self._ending: dict[asyncio.Task[None], ServedModel] = {}

    @property
    def is_loading(self) -> bool:
        """Tell whether a model is being loaded, for whatever reason."""
        models = (*self._served, *self._ending.values())
        return self._changing.locked() or any(each.is_loading for each in models)

    async def apply(self, settings: Settings) -> Changes:
        """Serve what the settings name; requests of models that go are answered before they do.

        All that has to be loaded is loaded before anything changes, one after the other.

        Raises:
            RerankError: a model cannot be loaded, or must not be the default; nothing changed.
        """
        async with self._changing:
            tables = await asyncio.to_thread(served_tables, settings)
            table = settings.default_table or tables[0]
            plan = _Plan()
            try:
                await self._prepare(plan, tables, settings, table.name)
            except BaseException:
                for each in plan.fresh:
                    self._end(each)
                raise
            return self._commit(plan, table.name, settings)

    async def load(self, name: str) -> ModelDescription:
        """Load a model, or load it anew and let that take the place of what answers now.

        Combinations that it is a member of are loaded anew with it.

        Raises:
            RerankError: it is not there, or cannot be loaded; what answered goes on to.
        """
        model = self._find(name)
        await model.load(self._check if model.name == self._default else None)
        _LOG.info("loaded %s", model.name)
        for each in self._combinations_of(model):
            await self.load(each.name)
        return self.registry.describe(model)

    async def unload(self, name: str) -> None:
        """Give a model's memory back, once the requests that it has are answered.

        Raises:
            RerankError: it is not there, is always loaded, or is a member of a loaded combination.
        """
        model = self._find(name)
        for each in self._combinations_of(model):
            raise NotSupportedByModel(f"name: {each.name} is made of {model.name}", "name")
        await model.unload()
        _LOG.info("unloaded %s", model.name)

    async def close(self) -> None:
        """Give everything back at once, whoever uses it."""
        models = [*self._served, *self._ending.values()]
        for task in self._ending:
            task.cancel()
        for each in models:
            await each.close()

    def _combinations_of(self, model: ServedModel) -> list[ServedModel]:
        return [each for each in self._served if model in each.members and each.reranker]

    def _find(self, name: str) -> ServedModel:
        if not name:
            raise InvalidField("name: missing", "name")
        wanted = self._default if name == DEFAULT_NAME else name
        for each in self.registry:
            if each.name == wanted:
                return each
        served = ", ".join(sorted(each.name for each in self.registry))
        raise ModelNotFound(f"name: there is no model {name}; there are {served}", "name")

    async def _prepare(
        self, plan: _Plan, tables: tuple[ModelTable, ...], settings: Settings, default: str
    ) -> None:
        before = {each.name: each for each in self._served}
        for table in _members_first(tables):
            await self._plan(plan, table, settings.of_model(table), before.get(table.name))
        places = [table.name for table in tables]
        plan.models.sort(key=lambda each: places.index(each.name))
        for each in plan.models:
            if self._check is not None and each.name == default and each.reranker is not None:
                self._check(each.reranker.info)

    async def _plan(
        self, plan: _Plan, table: ModelTable, settings: Settings, before: ServedModel | None
    ) -> None:
        """Keep a model, or make it anew; load what has to be ready when it is served."""
        is_needed = table.load is LoadTime.START
        members = plan.find(table.members, self.registry.beside)
        if before is not None and _loads_alike(before, settings, members):
            model = before
            plan.kept.append((before, table, settings))
            # Who unloaded it by hand wants it so.
            is_needed = is_needed and before.table.load is LoadTime.LAZY and not before.reranker
        else:
            model = ServedModel(table, settings, self._load, members)
            plan.fresh.append(model)
            is_needed = is_needed or (before is not None and before.reranker is not None)
        plan.models.append(model)
        if is_needed:
            await model.load()

    def _commit(self, plan: _Plan, default: str, settings: Settings) -> Changes:
        old = {each.name for each in self._served}
        new = {each.name for each in plan.models}
        changed = {each.name for each in plan.fresh} & old
        changed |= {each.name for each, table, own in plan.kept if _differs(each, table, own)}
        changed |= {self._default, default} & old & new if default != self._default else set()
        for each, table, own in plan.kept:
            each.table, each.settings = table, own
        self.registry.serve(plan.models, default, settings)
        gone = [each for each in self._served if each not in plan.models]
        self._served, self._default = plan.models, default
        for each in gone:
            self._end(each)
        return Changes(*(tuple(sorted(names)) for names in (new - old, old - new, changed)))

    def _end(self, model: ServedModel) -> None:
        task = asyncio.create_task(model.unload())
        self._ending[task] = model
        task.add_done_callback(self._ending.pop)


def _members_first(tables: Sequence[ModelTable]) -> list[ModelTable]:
    by_name = {table.name: table for table in tables}
    order = TopologicalSorter({table.name: table.members for table in tables}).static_order()
    return [by_name[name] for name in order if name in by_name]


def _loads_alike(before: ServedModel, now: Settings, members: Sequence[ServedModel]) -> bool:
    settings = before.settings
    return (
        settings is not None
        and before.members == tuple(members)
        and all(getattr(settings, name) == getattr(now, name) for name in _AS_LOADED)
    )


def _differs(model: ServedModel, table: ModelTable, settings: Settings) -> bool:
    own = [name for name in OF_A_TABLE if getattr(model.settings, name) != getattr(settings, name)]
    return bool(own) or model.table != table
