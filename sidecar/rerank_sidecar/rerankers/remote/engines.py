"""Every kind of server that can be asked for scores, and by which wires.

To add one: write a module beside jina.py with a subclass of `HttpWire`, then a line in `_ALL`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from rerank_sidecar.rerankers.remote.addresses import read_address
from rerank_sidecar.rerankers.remote.base import Access, Remote, Target
from rerank_sidecar.rerankers.remote.bedrock import BedrockWire
from rerank_sidecar.rerankers.remote.cohere import CohereWire
from rerank_sidecar.rerankers.remote.http import HttpRemote, HttpWire
from rerank_sidecar.rerankers.remote.infinity import InfinityWire
from rerank_sidecar.rerankers.remote.jina import JinaWire
from rerank_sidecar.rerankers.remote.kserve import KserveWire
from rerank_sidecar.rerankers.remote.kserve_grpc import KserveGrpcRemote
from rerank_sidecar.rerankers.remote.llamacpp import LlamaCppWire
from rerank_sidecar.rerankers.remote.mixedbread import MixedbreadWire
from rerank_sidecar.rerankers.remote.nvidia import NvidiaWire
from rerank_sidecar.rerankers.remote.options import (
    BedrockOptions,
    HttpOptions,
    KserveHttpOptions,
    KserveOptions,
    RemoteOptions,
)
from rerank_sidecar.rerankers.remote.pinecone import PineconeWire
from rerank_sidecar.rerankers.remote.sidecar import SidecarRemote
from rerank_sidecar.rerankers.remote.tei import TeiWire
from rerank_sidecar.rerankers.remote.tei_grpc import TeiGrpcRemote
from rerank_sidecar.rerankers.remote.vllm import VllmRerankWire, VllmScoreWire
from rerank_sidecar.rerankers.remote.voyage import VoyageWire
from rerank_sidecar.rerankers.remote.xinference import XinferenceWire

Make = Callable[[Target, Any, Access], Remote]
"""Makes what talks to a server; takes the options in the form of its wire."""


@dataclass(frozen=True, slots=True)
class Wire:
    """One way to talk to an engine, and the form of its options."""

    make: Make
    options: type[RemoteOptions]


@dataclass(frozen=True, slots=True)
class Engine:
    """One kind of server: its wires by the kind of address, and what providers have in common.

    `default_url` is a provider's public address, None for what is run by oneself. `key_env` is
    where the key is looked for if the options do not say; a provider's own goes nowhere else.
    """

    name: str
    wires: Mapping[str, Wire]
    default_url: str | None = None
    key_env: str | None = None
    needs_model: bool = False

    def target(self, address: str) -> Target:
        """Read what follows the engine's name in a source.

        Raises:
            InvalidSetting: it is no address, or lacks the model.
        """
        return read_address(
            self.name,
            address,
            kinds=frozenset(self.wires),
            default_url=self.default_url,
            needs_model=self.needs_model,
        )

    def wire(self, target: Target) -> Wire:
        """Find the wire of an address; a provider's is spoken to over HTTP."""
        return self.wires["grpc" if target.is_grpc else "http"]


def _over_http(wire: type[HttpWire], options: type[HttpOptions] = HttpOptions) -> dict[str, Wire]:
    def make(target: Target, given: Any, access: Access) -> Remote:  # noqa: ANN401
        return HttpRemote(wire(target, given), access)

    return {"http": Wire(make, options)}


def _over_grpc(make: Make, options: type[RemoteOptions] = RemoteOptions) -> dict[str, Wire]:
    return {"grpc": Wire(make, options)}


def _provider(name: str, wire: type[HttpWire], url: str, key_env: str) -> Engine:
    return Engine(name, _over_http(wire), url, key_env, needs_model=True)


_ALL = (
    _provider("cohere", CohereWire, "https://api.cohere.com", "COHERE_API_KEY"),
    _provider("jina", JinaWire, "https://api.jina.ai", "JINA_API_KEY"),
    _provider("voyage", VoyageWire, "https://api.voyageai.com", "VOYAGE_API_KEY"),
    _provider("mixedbread", MixedbreadWire, "https://api.mixedbread.com", "MXBAI_API_KEY"),
    _provider("pinecone", PineconeWire, "https://api.pinecone.io", "PINECONE_API_KEY"),
    _provider("nvidia", NvidiaWire, "https://ai.api.nvidia.com", "NVIDIA_API_KEY"),
    Engine("bedrock", _over_http(BedrockWire, BedrockOptions), "", needs_model=True),
    Engine("tei", _over_http(TeiWire) | _over_grpc(TeiGrpcRemote), key_env="TEI_API_KEY"),
    Engine("vllm", _over_http(VllmRerankWire), key_env="VLLM_API_KEY"),
    Engine("vllm-score", _over_http(VllmScoreWire), key_env="VLLM_API_KEY"),
    Engine("infinity", _over_http(InfinityWire), key_env="INFINITY_API_KEY"),
    Engine(
        "xinference", _over_http(XinferenceWire), key_env="XINFERENCE_API_KEY", needs_model=True
    ),
    Engine("llamacpp", _over_http(LlamaCppWire), key_env="LLAMA_API_KEY"),
    Engine(
        "kserve",
        _over_http(KserveWire, KserveHttpOptions) | _over_grpc(KserveGrpcRemote, KserveOptions),
        needs_model=True,
    ),
    Engine("sidecar", _over_grpc(SidecarRemote)),
)

ENGINES: Mapping[str, Engine] = MappingProxyType({each.name: each for each in _ALL})
"""Every engine by its name."""


def engine_of(source: str) -> Engine | None:
    """Find the engine that a source names, None if it names none."""
    name, colon, _ = source.partition(":")
    return ENGINES.get(name) if colon else None
