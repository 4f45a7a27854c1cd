"""What an operator may do to the models of a running server, by signal or by gRPC."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from rerank_sidecar.engine.repository import Changes, ModelRepository
from rerank_sidecar.errors import NotReady
from rerank_sidecar.model_settings import ModelSettings
from rerank_sidecar.settings import Settings
from rerank_sidecar.types import ModelDescription

_LOG = logging.getLogger(__name__)

_FIXED = sorted(Settings.model_fields.keys() - ModelSettings.model_fields.keys())
"""The settings that a running server keeps, whatever its file says later."""


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What reading the settings again changed, and the settings that need a restart to change."""

    changes: Changes
    needs_restart: tuple[str, ...]


class Administration:
    """Loads, replaces and unloads models; made before they are there, as the doors are."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._repository: ModelRepository | None = None

    def open(self, repository: ModelRepository) -> None:
        """Begin to act on these models."""
        self._repository = repository

    async def load(self, name: str) -> ModelDescription:
        """Load a model, or load it anew; requests are answered by the old one meanwhile.

        Raises:
            NotReady: the server is starting.
            ModelNotFound: there is none of that name.
            RerankError: it cannot be loaded.
        """
        return await self._opened().load(name)

    async def unload(self, name: str) -> None:
        """Give a model's memory back, once the requests that it has are answered.

        Raises:
            NotReady: the server is starting.
            ModelNotFound: there is none of that name.
            NotSupportedByModel: it is always loaded.
        """
        await self._opened().unload(name)

    async def reload(self) -> Reloaded:
        """Read the settings again and serve the models that they name now.

        Of the other settings none changes; which of them would have to is logged.

        Raises:
            NotReady: the server is starting.
            InvalidSetting: the file cannot be read, or a value is wrong; nothing changed.
            RerankError: a model cannot be loaded; nothing changed.
        """
        repository = self._opened()
        settings = await asyncio.to_thread(self._settings.read_again)
        running = {name: getattr(self._settings, name) for name in _FIXED}
        changes = await repository.apply(settings.model_copy(update=running))
        needs_restart = tuple(
            name for name, value in running.items() if getattr(settings, name) != value
        )
        _LOG.info("read the settings again: %s", changes)
        if needs_restart:
            _LOG.warning("only a restart changes %s", ", ".join(needs_restart))
        return Reloaded(changes, needs_restart)

    def _opened(self) -> ModelRepository:
        if self._repository is None:
            raise NotReady("the server is starting")
        return self._repository
