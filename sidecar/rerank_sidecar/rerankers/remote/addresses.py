"""The addresses by which other servers and their models are named.

A source is `engine:address#model`. The scheme of the address, `http`, `https`, `grpc` or `grpcs`,
says by which wire; a path is put before that of the wire. `engine:model` is short for the public
address of a provider.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from urllib.parse import SplitResult, urlsplit

from rerank_sidecar.errors import InvalidSetting
from rerank_sidecar.rerankers.remote.base import Target

_KINDS: Mapping[str, str] = MappingProxyType(
    {"http": "http", "https": "http", "grpc": "grpc", "grpcs": "grpc"}
)


def read_address(
    engine: str,
    address: str,
    *,
    kinds: frozenset[str],
    default_url: str | None = None,
    needs_model: bool = True,
) -> Target:
    """Read what follows the engine's name in a source.

    `kinds` of addresses are `http` and `grpc`. An empty `default_url` stands for one that is found
    out later.

    Raises:
        InvalidSetting: it is no address that the engine takes, or lacks the model.
    """
    url, _, model = address.partition("#") if "://" in address else ("", "", address)
    example = _example(engine, kinds, default_url, needs_model=needs_model)
    if needs_model and not model:
        raise InvalidSetting(f"model: `{engine}:` needs a model, as `{example}`")
    if url:
        return Target(engine, _checked(engine, url, kinds, example), model)
    if default_url is None:
        raise InvalidSetting(f"model: `{engine}:` needs an address, as `{example}`")
    return Target(engine, default_url, model, is_default=True)


def _checked(engine: str, url: str, kinds: frozenset[str], example: str) -> str:
    parts = _split(url)
    if parts is None or parts.query or "@" in parts.netloc:
        raise InvalidSetting(
            f"model: `{engine}:` takes an address like `{example}`, without a name, a password or "
            "a query; keys are named by the option api_key_env"
        )
    if _KINDS.get(parts.scheme) not in kinds:
        known = ", ".join(each for each, kind in _KINDS.items() if kind in kinds)
        raise InvalidSetting(f"model: `{engine}:` takes addresses of {known} only")
    if _KINDS[parts.scheme] == "grpc" and (parts.path.strip("/") or parts.port is None):
        raise InvalidSetting(f"model: an address for gRPC is `{parts.scheme}://host:port`")
    return parts.geturl().rstrip("/")


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        return parts if parts.hostname and parts.port != 0 else None
    except ValueError:
        return None


def _example(
    engine: str, kinds: frozenset[str], default_url: str | None, *, needs_model: bool
) -> str:
    if default_url is not None:
        return f"{engine}:model"
    scheme = "http" if "http" in kinds else "grpc"
    return f"{engine}:{scheme}://host:port{'#model' if needs_model else ''}"
