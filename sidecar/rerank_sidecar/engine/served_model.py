"""A model under its name: it is loaded, replaced and unloaded while requests are answered.

A new instance warms up beside the old one and takes its place in one step, so that both are in
memory until the old one's requests have their answers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from fnmatch import fnmatchcase
from typing import Any

from rerank_sidecar.engine.instance import Instance, LoadedModel
from rerank_sidecar.errors import NotReady, NotSupportedByModel, RerankError
from rerank_sidecar.model_settings import LoadTime, ModelTable
from rerank_sidecar.rerankers.base import Reranker, RerankerInfo
from rerank_sidecar.settings import Settings
from rerank_sidecar.types import ModelDescription, ModelReference

_LOG = logging.getLogger(__name__)

Load = Callable[[ModelTable, Settings, Sequence[Reranker]], Coroutine[Any, Any, LoadedModel]]
"""Makes a table's model ready to answer; the settings are those that hold for this model.

The rerankers are those of the models that it is a combination of, in the order of its table.
"""

Check = Callable[[RerankerInfo], None]
"""Raises a RerankError if a model must not answer where it would."""


class ServedModel:
    """What answers to one name; belongs to one event loop.

    `settings` are those that hold for this model, None being the server's. `members` are those that
    it is a combination of; once it is loaded, what they were then stays until it is closed. Without
    `load` it is and stays what `of` made it.
    """

    def __init__(
        self,
        table: ModelTable,
        settings: Settings | None,
        load: Load | None,
        members: Sequence[ServedModel] = (),
    ) -> None:
        self.table = table
        self.settings = settings
        self.members = tuple(members)
        self._load = load
        self._instance: Instance | None = None
        self._info: RerankerInfo | None = None
        self._changing = asyncio.Lock()
        self._retiring: dict[asyncio.Task[None], Instance] = {}

    @classmethod
    def of(cls, reranker: Reranker) -> ServedModel:
        """Serve a reranker that needs no loading."""
        info = reranker.info
        served = cls(ModelTable(name=info.name, source=info.source), None, None)
        served._instance = Instance(info.name, LoadedModel(reranker, _nothing))
        return served

    @property
    def name(self) -> str:
        """Give the name that it is served under."""
        return self.table.name

    @property
    def reranker(self) -> Reranker | None:
        """Give the reranker that answers now, if it is loaded."""
        return None if self._instance is None else self._instance.reranker

    @property
    def is_loading(self) -> bool:
        """Tell whether it is being loaded, even if nobody wants it any more."""
        return self._changing.locked() or any(each.is_loading for each in self._instances())

    def has_alias(self, name: str) -> bool:
        """Tell whether a request may use this name for it, too."""
        return any(fnmatchcase(name, alias) for alias in self.table.aliases)

    def acquire(self) -> Instance:
        """Lease what answers now; a lazy model that is not loaded begins to be.

        The caller waits until it is `ready`, inside of a `with` block that ends the lease.

        Raises:
            NotReady: it was unloaded, or could not be loaded a moment ago.
        """
        instance = self._instance
        if instance is None or (instance.has_failed and not instance.try_again_s):
            instance = self._begin_lazily()
        if instance.has_failed:
            instance.check()
        instance.acquire()
        return instance

    async def lend(self, stack: AsyncExitStack) -> Reranker:
        """Give its reranker to a combination, loaded if need be; it stays until the stack ends.

        Raises:
            RerankError: it cannot be loaded.
        """
        if self.reranker is None and self._load is not None:
            await self.load()
        return await stack.enter_context(self.acquire()).loaded()

    async def load(self, check: Check | None = None) -> None:
        """Load it, or load it anew and let that take the place of what answers now.

        If it is being loaded already, that is waited for. A model that fails `check` is not used.

        Raises:
            RerankError: it cannot be loaded; what answered goes on to.
            NotSupportedByModel: it is always there.
        """
        async with self._changing:
            current = self._instance
            if current is not None and current.is_loading:
                _checked(await current.loaded(), check)
                return
            await self._replace(current, check)

    async def unload(self) -> None:
        """Give its memory back, once the requests that it has are answered.

        Raises:
            NotSupportedByModel: it is always there.
        """
        self._loader()
        async with self._changing:
            instance, self._instance = self._instance, None
        if instance is not None:
            self._remember(instance)
            self._retire(instance)
        if self._retiring:
            await asyncio.wait(list(self._retiring))

    async def close(self) -> None:
        """Give everything back at once, whoever uses it."""
        instances = self._instances()
        for task in self._retiring:
            task.cancel()
        self._instance = None
        for instance in instances:
            await instance.close()

    def describe(self, *, is_default: bool) -> ModelDescription:
        """Tell what is known of it: of one that was never loaded, what its table says."""
        reranker = self.reranker
        info = self._info if reranker is None else reranker.info
        policy = None if self.settings is None else self.settings.long_document_policy
        if policy is None and info is not None:
            policy = info.default_long_document_policy
        return ModelDescription(
            model=ModelReference(self.name, "" if info is None else info.version),
            family="" if info is None else info.family,
            score_kind=None if info is None else info.score_kind,
            max_tokens=None if info is None else info.max_tokens,
            comparable_across_requests=info is not None and info.comparable_across_requests,
            default_long_document_policy=policy,
            engine="" if info is None else info.engine,
            source=self.table.source if info is None else info.source,
            is_default=is_default,
            aliases=self.table.aliases,
            is_loaded=reranker is not None,
            vector_dimension=None if info is None else info.vector_dimension,
        )

    async def _replace(self, current: Instance | None, check: Check | None) -> None:
        fresh = self._begin(None)
        if current is None or current.has_failed:
            self._instance = fresh  # requests that come meanwhile wait for it
        try:
            _checked(await fresh.loaded(), check)
        except BaseException:
            if self._instance is fresh:
                self._instance = None
            self._retire(fresh)
            raise
        self._instance = fresh
        if current is not None:
            self._retire(current)

    def _begin(self, on_failure: Callable[[RerankError], None] | None) -> Instance:
        load, settings = self._loader()
        instance = Instance(self.name)
        instance.begin(self._load_with_members(load, settings), on_failure)
        return instance

    async def _load_with_members(self, load: Load, settings: Settings) -> LoadedModel:
        async with AsyncExitStack() as stack:
            members = [await each.lend(stack) for each in self.members]
            loaded = await load(self.table, settings, members)
            stack.push_async_callback(loaded.close)
            return LoadedModel(loaded.reranker, stack.pop_all().aclose)

    def _begin_lazily(self) -> Instance:
        if self.table.load is not LoadTime.LAZY:
            raise NotReady(f"the model {self.name} has been unloaded")
        _LOG.info("loading %s, which a request asks for", self.name)
        self._instance = self._begin(self._log_failure)
        return self._instance

    def _retire(self, instance: Instance) -> None:
        task = asyncio.create_task(instance.retire())
        self._retiring[task] = instance
        task.add_done_callback(self._retiring.pop)

    def _instances(self) -> list[Instance]:
        return [*self._retiring.values(), *filter(None, [self._instance])]

    def _remember(self, instance: Instance) -> None:
        if instance.reranker is not None:
            self._info = instance.reranker.info

    def _log_failure(self, error: RerankError) -> None:
        _LOG.error("%s could not be loaded: %s", self.name, error.message)

    def _loader(self) -> tuple[Load, Settings]:
        if self._load is None or self.settings is None:
            raise NotSupportedByModel(f"name: {self.name} is always loaded", "name")
        return self._load, self.settings


def _checked(reranker: Reranker, check: Check | None) -> None:
    if check is not None:
        check(reranker.info)


async def _nothing() -> None:
    pass
