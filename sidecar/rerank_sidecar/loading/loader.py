"""Loads models by their family and gives them what all models of a server share."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, contextmanager

from threadpoolctl import threadpool_limits

from rerank_sidecar.backends.cores import available_cores
from rerank_sidecar.engine.instance import LoadedModel
from rerank_sidecar.errors import InvalidSetting
from rerank_sidecar.loading.families import check_members, find_family
from rerank_sidecar.loading.family import Loading
from rerank_sidecar.model_settings import ModelTable
from rerank_sidecar.rerankers.base import Reranker
from rerank_sidecar.rerankers.matrix_cache import TokenMatrixCache
from rerank_sidecar.rerankers.matrix_disk import DiskMatrices
from rerank_sidecar.settings import Settings


@contextmanager
def model_loader(settings: Settings) -> Iterator[ModelLoader]:
    """Give what loads the models of a server, which have to be closed before the context is left.

    They share the threads that tokenise, the cache of encoded documents and the cores.
    """
    with ExitStack() as stack:
        # Numpy multiplies in threads of ours; its own would fight with them for the cores.
        stack.enter_context(threadpool_limits(1, user_api="blas"))
        # Texts being tokenised take many times their size, so no more at once than there are cores.
        executor = ThreadPoolExecutor(available_cores(), thread_name_prefix="tokenise")
        yield ModelLoader(settings, stack.enter_context(executor), stack)


class ModelLoader:
    """Makes models ready to answer, from what their tables say to a reranker that has warmed up."""

    def __init__(self, settings: Settings, executor: Executor, stack: ExitStack) -> None:
        self._settings = settings
        self._executor = executor
        self._stack = stack
        self._measuring = asyncio.Lock()
        self._cache: TokenMatrixCache | None = None

    async def load(
        self, table: ModelTable, settings: Settings, members: Sequence[Reranker] = ()
    ) -> LoadedModel:
        """Load a model under its table's name; `settings` are those that hold for it.

        Raises:
            StartupError: its files cannot be had, or cannot be run.
            ServerFault: it fails on the first texts that it is given.
        """
        try:
            return await self._load(table, settings, members)
        except InvalidSetting as error:
            if not self._settings.models:
                raise
            raise InvalidSetting(f"{table.name}: {error.message}") from error

    async def _load(
        self, table: ModelTable, settings: Settings, members: Sequence[Reranker]
    ) -> LoadedModel:
        found = await asyncio.to_thread(find_family, settings)
        check_members(found.family, table.members)
        async with AsyncExitStack() as stack:
            loading = Loading(
                name=table.name,
                settings=settings,
                executor=self._executor,
                stack=stack,
                members=tuple(members),
                matrix_cache=self._matrix_cache,
                measuring=self._measuring,
                found=found.folder,
            )
            reranker = await found.family.load(loading)
            close = stack.pop_all().aclose
        return LoadedModel(reranker, close)

    def _matrix_cache(self) -> TokenMatrixCache | None:
        """Give the one cache of encoded documents, or None if there is nowhere to keep any.

        Keys name the model, so all of them share its bytes, and who is asked more gets more.
        """
        folder, max_bytes = (
            self._settings.token_matrix_cache_dir,
            self._settings.token_matrix_cache_bytes,
        )
        if self._cache is None and (max_bytes or folder):
            store = None
            if folder is not None:
                store = DiskMatrices(folder, self._settings.token_matrix_disk_bytes)
            self._cache = TokenMatrixCache(max_bytes, store)
            self._stack.callback(self._cache.close)
        return self._cache
