"""The gRPC services besides our own: which of them are served, and how reflection finds them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType

from google.protobuf.descriptor import FileDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pool import DescriptorPool

from rerank_sidecar.api.grpc_kserve import KserveService
from rerank_sidecar.api.grpc_tei import TeiInfoService, TeiRerankService
from rerank_sidecar.engine.engine import Engine
from rerank_sidecar.settings import Settings
from rerank_sidecar.third_party import kserve_pb2, tei_pb2

Servicer = Callable[[Engine], object]

_DOORS: Mapping[str, tuple[tuple[FileDescriptor, str, Servicer], ...]] = MappingProxyType(
    {
        "kserve": ((kserve_pb2.DESCRIPTOR, "GRPCInferenceService", KserveService),),
        "tei": (
            (tei_pb2.DESCRIPTOR, "Rerank", TeiRerankService),
            (tei_pb2.DESCRIPTOR, "Info", TeiInfoService),
        ),
    }
)
"""The services of each dialect; `disabled_doors` switches it off over HTTP and gRPC alike."""


def open_services(engine: Engine, settings: Settings) -> Iterator[tuple[ServiceDescriptor, object]]:
    """Give the services that are served, each with what answers its calls."""
    for door, services in _DOORS.items():
        if door not in settings.disabled_doors:
            for file, name, servicer in services:
                yield file.services_by_name[name], servicer(engine)


def pool_of(files: Iterable[FileDescriptor]) -> DescriptorPool:
    """Put descriptions from several pools into one, for reflection."""
    pool = DescriptorPool()
    for file in files:
        _add(file, pool)
    return pool


def _add(file: FileDescriptor, pool: DescriptorPool) -> None:
    for needed in file.dependencies:
        _add(needed, pool)
    pool.AddSerializedFile(file.serialized_pb)
