"""Where the server listens, whom it lets in there and what is encrypted, read from the settings."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass

from rerank_sidecar.api.addresses import authority
from rerank_sidecar.api.auth import Guard, OpenGuard, guard_of
from rerank_sidecar.api.doors import open_dialects
from rerank_sidecar.api.tls import ServerTls
from rerank_sidecar.errors import InvalidSetting
from rerank_sidecar.settings import Settings

_WEAVIATE = frozenset({"weaviate"})

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Listener:
    """An address, who may ask there, how it is encrypted (None: not), and what it serves.

    `only` names dialects, None meaning all. Port 0 is any free one.
    """

    host: str
    port: int
    guard: Guard
    tls: ServerTls | None = None
    only: Collection[str] | None = None

    def url(self, port: int) -> str:
        """Write the address of an HTTP listener that got this port."""
        scheme = "http" if self.tls is None else "https"
        return f"{scheme}://{authority(self.host, port)}"


@dataclass(frozen=True, slots=True)
class Listeners:
    """All that a server listens on; `weaviate` is there if it has a port of its own."""

    http: Listener
    grpc: Listener
    weaviate: Listener | None


def make_listeners(settings: Settings) -> Listeners:
    """Read tokens and certificates, and say what listens where.

    Raises:
        InvalidSetting: a file of tokens or certificates cannot be used, or settings contradict.
    """
    guard, tls = guard_of(settings), ServerTls.of(settings)
    _tell(settings, guard, tls)
    return Listeners(
        http=Listener(settings.host, settings.http_port, guard, tls),
        grpc=Listener(settings.host, settings.grpc_port, guard, tls),
        weaviate=_weaviate(settings),
    )


def _weaviate(settings: Settings) -> Listener | None:
    if settings.weaviate_port is None:
        return None
    if not open_dialects(settings, _WEAVIATE):
        raise InvalidSetting("weaviate_port: disabled_doors switches the door weaviate off")
    tls = ServerTls.of(settings, mutual=False) if settings.weaviate_tls else None
    return Listener(
        settings.weaviate_host, settings.weaviate_port, OpenGuard(), tls, only=_WEAVIATE
    )


def _tell(settings: Settings, guard: Guard, tls: ServerTls | None) -> None:
    wanted = [] if isinstance(guard, OpenGuard) else ["tokens"]
    if tls is not None and settings.tls_client_ca is not None:
        wanted.append("client certificates")
    _LOG.info("asked of callers: %s", " and ".join(wanted) or "nothing")
    if wanted and settings.weaviate_port is None and open_dialects(settings, _WEAVIATE):
        _LOG.warning(
            "Weaviate's transformers module cannot show %s and is refused; --weaviate-port gives "
            "it a listener of its own",
            " or ".join(wanted),
        )
