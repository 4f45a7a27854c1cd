"""A stand-in for Qdrant's server: its HTTP and gRPC queries, answered by the client's local mode.

It reads and writes what travels with Qdrant's own models, so that a query of a client of a server
is one that Qdrant's schema knows.
"""

import json
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from qdrant_client import QdrantClient, models
from qdrant_client import grpc as messages
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc
from qdrant_client.grpc.points_service_pb2_grpc import PointsServicer, add_PointsServicer_to_server
from qdrant_client.http.models import QueryResponse

_PATH = re.compile(r"/collections/(\w+)/points/query(/\w+)?(\?.*)?")


@dataclass(frozen=True)
class Server:
    """Where it listens, and the store in memory that answers."""

    memory: QdrantClient
    http_port: int
    grpc_port: int


@contextmanager
def qdrant_server() -> Iterator[Server]:
    memory = QdrantClient(":memory:")
    handler = type("Handler", (_Handler,), {"memory": memory})
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=http.serve_forever, args=(0.01,))
    thread.start()
    server = grpc.server(ThreadPoolExecutor(4))
    add_PointsServicer_to_server(_Points(memory), server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield Server(memory, http.server_port, port)
    finally:
        server.stop(0).wait()
        http.shutdown()
        http.server_close()
        thread.join()
        memory.close()


def _query(memory: QdrantClient, collection: str, request: models.QueryRequest) -> QueryResponse:
    [found] = memory.query_batch_points(collection, [request])
    return found


def _groups(
    memory: QdrantClient, collection: str, request: models.QueryGroupsRequest
) -> models.GroupsResult:
    asked: dict[str, Any] = {
        "query_filter": request.filter,
        "search_params": request.params,
        "with_vectors": request.with_vector,
    }
    for name in request.model_fields_set - {"filter", "params", "with_vector", "shard_key"}:
        asked[name] = getattr(request, name)
    return memory.query_points_groups(collection, **asked)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    memory: QdrantClient

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        path = _PATH.fullmatch(self.path)
        assert path is not None
        answer = json.dumps({"result": self._result(path[1], path[2], body), "status": "ok"})
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer.encode())))
        self.end_headers()
        self.wfile.write(answer.encode())

    def _result(self, collection: str, kind: str | None, body: bytes) -> Any:
        if kind == "/batch":
            batch = models.QueryRequestBatch.model_validate_json(body)
            results = [_query(self.memory, collection, each) for each in batch.searches]
            return [each.model_dump(mode="json") for each in results]
        if kind == "/groups":
            request = models.QueryGroupsRequest.model_validate_json(body)
            return _groups(self.memory, collection, request).model_dump(mode="json")
        one = models.QueryRequest.model_validate_json(body)
        return _query(self.memory, collection, one).model_dump(mode="json")

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class _Points(PointsServicer):
    def __init__(self, memory: QdrantClient) -> None:
        self._memory = memory

    def Query(self, request: Any, context: Any) -> Any:
        found = _query(
            self._memory, request.collection_name, GrpcToRest.convert_query_points(request)
        )
        points = [RestToGrpc.convert_scored_point(point) for point in found.points]
        return messages.QueryResponse(result=points)

    def QueryBatch(self, request: Any, context: Any) -> Any:
        results = []
        for each in request.query_points:
            one = GrpcToRest.convert_query_points(each)
            found = _query(self._memory, request.collection_name, one)
            points = [RestToGrpc.convert_scored_point(point) for point in found.points]
            results.append(messages.BatchResult(result=points))
        return messages.QueryBatchResponse(result=results)

    def QueryGroups(self, request: Any, context: Any) -> Any:
        shared = {
            field.name: value
            for field, value in request.ListFields()
            if field.name in messages.QueryPoints.DESCRIPTOR.fields_by_name
        }
        one = GrpcToRest.convert_query_points(messages.QueryPoints(**shared))
        options = one.model_dump(exclude_unset=True, exclude={"offset"})
        asked = models.QueryGroupsRequest(
            **{**options, "query": one.query, "group_by": request.group_by}
        )
        found = _groups(self._memory, request.collection_name, asked)
        return messages.QueryGroupsResponse(result=RestToGrpc.convert_groups_result(found))
