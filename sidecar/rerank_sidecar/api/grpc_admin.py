"""The calls of AdminService: what an operator may do to the models of a running server."""

from __future__ import annotations

from typing import Any

import grpc

from rerank_sidecar.api.grpc_errors import answering
from rerank_sidecar.api.grpc_messages import write_model
from rerank_sidecar.engine.administration import Administration
from rerank_sidecar.v1 import admin_pb2 as pb
from rerank_sidecar.v1.admin_pb2_grpc import AdminServiceServicer

Context = grpc.aio.ServicerContext[Any, Any]

ADMIN_SERVICE_NAME: str = pb.DESCRIPTOR.services_by_name["AdminService"].full_name
"""The full name of the service, as health checks and reflection know it."""


class AdminService(AdminServiceServicer):
    """Answers the calls of admin.proto; who may call them is the listener's affair."""

    def __init__(self, administration: Administration) -> None:
        self._administration = administration

    async def LoadModel(
        self, request: pb.LoadModelRequest, context: Context
    ) -> pb.LoadModelResponse:
        """Load a model, or load it anew, and answer once it has taken over."""
        async with answering(context):
            model = await self._administration.load(request.name)
            return pb.LoadModelResponse(model=write_model(model))

    async def UnloadModel(
        self, request: pb.UnloadModelRequest, context: Context
    ) -> pb.UnloadModelResponse:
        """Unload a model and answer once its last request has been answered."""
        async with answering(context):
            await self._administration.unload(request.name)
            return pb.UnloadModelResponse()

    async def ReloadConfig(
        self, request: pb.ReloadConfigRequest, context: Context
    ) -> pb.ReloadConfigResponse:
        """Read the settings again and answer with what has changed."""
        async with answering(context):
            done = await self._administration.reload()
            changes = done.changes
            return pb.ReloadConfigResponse(
                added=changes.added,
                removed=changes.removed,
                changed=changes.changed,
                needs_restart=done.needs_restart,
            )
