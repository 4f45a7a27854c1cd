"""The gRPC door: RerankService and other products' services, health checks and reflection."""

from __future__ import annotations

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from rerank_sidecar.api.addresses import authority
from rerank_sidecar.api.grpc_admin import ADMIN_SERVICE_NAME, AdminService
from rerank_sidecar.api.grpc_auth import RequireToken
from rerank_sidecar.api.grpc_doors import open_services, pool_of
from rerank_sidecar.api.grpc_malformed import RefuseMalformed
from rerank_sidecar.api.grpc_service import RerankService
from rerank_sidecar.api.listeners import Listener, make_listeners
from rerank_sidecar.engine.administration import Administration
from rerank_sidecar.engine.engine import Engine
from rerank_sidecar.settings import Settings
from rerank_sidecar.third_party.handlers import handler_of
from rerank_sidecar.v1 import admin_pb2
from rerank_sidecar.v1 import rerank_pb2 as pb
from rerank_sidecar.v1.admin_pb2_grpc import add_AdminServiceServicer_to_server
from rerank_sidecar.v1.rerank_pb2_grpc import add_RerankServiceServicer_to_server

SERVICE_NAME: str = pb.DESCRIPTOR.services_by_name["RerankService"].full_name
"""The full name of our service, as health checks and reflection know it."""


class GrpcServer:
    """Listens for gRPC; made in a running event loop, to which it belongs.

    `grpc.health.v1` answers for the server ("") and for each service by name: NOT_SERVING until
    `set_serving(True)`, and for good once `stop` has begun. `listener` says where and for whom, by
    default as the settings have it. `administration` is what AdminService acts on; it is served if
    the setting `admin` is on.

    Raises:
        InvalidSetting: the settings contradict each other or name files that cannot be used.
    """

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        listener: Listener | None = None,
        administration: Administration | None = None,
    ) -> None:
        self._engine = engine
        self._listener = listener or make_listeners(settings).grpc
        self._health = health.aio.HealthServicer()
        self._server = grpc.aio.server(
            interceptors=[RequireToken(self._listener.guard), RefuseMalformed()],
            options=_options(settings),
        )
        add_RerankServiceServicer_to_server(RerankService(engine), self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        others = dict(open_services(engine, settings))
        for service, servicer in others.items():
            self._server.add_generic_rpc_handlers((handler_of(service, servicer),))
        self._services = (SERVICE_NAME, *(each.full_name for each in others))
        if settings.admin and administration is not None:
            add_AdminServiceServicer_to_server(AdminService(administration), self._server)
            self._services += (ADMIN_SERVICE_NAME,)
        names = (*self._services, health.SERVICE_NAME, reflection.SERVICE_NAME)
        ours = (
            pb.DESCRIPTOR,
            admin_pb2.DESCRIPTOR,
            health_pb2.DESCRIPTOR,
            reflection_pb2.DESCRIPTOR,
        )
        pool = pool_of((*ours, *(each.file for each in others)))
        reflection.enable_server_reflection(names, self._server, pool)

    async def start(self) -> int:
        """Begin to listen and give the port.

        Raises:
            RuntimeError: the address cannot be listened on.
        """
        await self.set_serving(self._engine.is_ready)
        address, tls = authority(self._listener.host, self._listener.port), self._listener.tls
        if tls is None:
            port = self._server.add_insecure_port(address)
        else:
            port = self._server.add_secure_port(address, tls.grpc_credentials())
        await self._server.start()
        return port

    async def set_serving(self, serving: bool) -> None:
        """Tell health checks whether requests are answered now."""
        statuses = health_pb2.HealthCheckResponse
        status = statuses.SERVING if serving else statuses.NOT_SERVING
        for name in ("", *self._services):
            await self._health.set(name, status)

    async def stop(self, grace_s: float) -> None:
        """Take no new calls, let running ones finish for so many seconds, then end them.

        Somebody who watches our health has a running call too, so drain the engine first and give
        only what the last answers need to leave.
        """
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_s)


def _options(settings: Settings) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", settings.max_body_bytes),
        ("grpc.max_send_message_length", settings.max_body_bytes),
        # Two servers on one port would share callers at random; a taken port must be an error.
        ("grpc.so_reuseport", 0),
        # Find callers that vanished without a word, whose work would be done for nobody.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        # Callers keep one idle channel open and may ping it to keep routers from forgetting it.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ]
