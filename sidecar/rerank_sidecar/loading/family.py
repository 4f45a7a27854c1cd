"""The seam to a family's loading: what it is told, what it may use, what it gives back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from rerank_sidecar.backends.base import Backend, BackendInfo
from rerank_sidecar.backends.measure import MeasuredShape
from rerank_sidecar.batching.scheduler import Scheduler
from rerank_sidecar.errors import InvalidSetting
from rerank_sidecar.loading.running import count_forward_pass, limits, watch
from rerank_sidecar.models.resolve import model_folder
from rerank_sidecar.rerankers.base import Reranker
from rerank_sidecar.rerankers.matrix_cache import TokenMatrixCache
from rerank_sidecar.settings import Settings

F = TypeVar("F", bound=BaseModel)


class NoOptions(BaseModel):
    """The options of a family that has none."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Fit = Callable[[], tuple[Backend, MeasuredShape]]
"""Makes a backend that has warmed up and measures its batches; blocks."""


@dataclass(frozen=True, slots=True)
class Running:
    """A backend at work: what it is, and the scheduler that feeds it."""

    info: BackendInfo
    scheduler: Scheduler


@dataclass(frozen=True, slots=True)
class Loading:
    """One loading of one model: what it is told, and what it may use.

    `name` is what requests call the model. `settings` are those that hold for it; their `model` is
    its source. `members` are the models that a combination is made of, in the order in which its
    table names them; they stay as long as it does. `stack` closes, in reverse order, what the
    reranker runs on. `executor` runs tokenisers. `found` is the folder with the model's files where
    that is known already.
    """

    name: str
    settings: Settings
    executor: Executor
    stack: AsyncExitStack
    members: tuple[Reranker, ...] = ()
    matrix_cache: Callable[[], TokenMatrixCache | None] = lambda: None
    measuring: asyncio.Lock = field(default_factory=asyncio.Lock)
    found: Path | None = None

    async def folder(self) -> Path:
        """Give the folder with the model's files, downloaded if they are not here.

        Raises:
            ModelUnavailable: they cannot be had.
        """
        if self.found is not None:
            return self.found
        return await asyncio.to_thread(model_folder, self.settings)

    def options(self, form: type[F]) -> F:
        """Read the setting `family_options` in the form that a family gives it.

        Raises:
            InvalidSetting: an option is unknown, missing or wrong; the message names each.
        """
        try:
            return form.model_validate(self.settings.family_options)
        except ValidationError as error:
            problems = (
                f"{'.'.join(('family_options', *map(str, each['loc'])))}: {_reason(each)}"
                for each in error.errors()
            )
            raise InvalidSetting("; ".join(problems)) from error

    async def start(self, fit: Fit) -> Running:
        """Make a backend, alone on the machine while it is measured, and start its scheduler.

        Raises:
            ModelNotServable: the runtime cannot run the model.
            BackendFailed: it fails as it runs.
        """
        async with self.measuring:  # two at once would find each other's half of the machine
            backend, shape = await asyncio.to_thread(fit)
        self.stack.callback(backend.close)
        scheduler = Scheduler(
            backend,
            limits(self.settings, backend.info, shape),
            workers=backend.info.parallel_runs,
            tokens_per_s=shape.tokens_per_s,
            on_forward_pass=count_forward_pass,
        )
        scheduler.start()
        self.stack.push_async_callback(scheduler.close)
        self.stack.callback(watch(self.name, scheduler))
        return Running(backend.info, scheduler)


def _reason(problem: ErrorDetails) -> str:
    if problem["type"] == "extra_forbidden":
        return "this family has no such option"
    return problem["msg"].removeprefix("Value error, ")


class Family(Protocol):
    """A kind of reranker: which sources it knows, and how a model of it is made ready."""

    @property
    def name(self) -> str:
        """Give its name, which the setting `family` takes."""
        ...

    def claims(self, source: str) -> bool:
        """Tell whether a source is one of its own: a built-in name, a combination, an address."""
        ...

    def claims_folder(self, folder: Path) -> bool:
        """Tell whether the files of a folder are a model of this family; never raises."""
        ...

    def prepare(self, folder: Path, settings: Settings) -> None:
        """Do on disk what loading the model would do first; blocks, for minutes if need be.

        Raises:
            StartupError: it cannot be done.
        """
        ...

    async def load(self, loading: Loading) -> Reranker:
        """Make a model ready to answer.

        Raises:
            StartupError: its files cannot be had, or cannot be run.
            ServerFault: it fails on the first texts that it is given.
        """
        ...
