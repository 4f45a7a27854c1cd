"""A stand-in for a Weaviate server, where there is none: its gRPC search and some of its REST.

It speaks with the messages that ship inside weaviate-client, searches real vectors, and has its
reranker modules call the sidecar as Weaviate's Go code does. It has no scores of its own: what
those modules bring is what it sorts by, ties in an order that nobody should rely on.
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
import weaviate
from grpc_health.v1 import health_pb2
from weaviate.proto.v1 import (
    batch_pb2,
    search_get_pb2,
    weaviate_pb2_grpc,
)

from tests.integration.weaviate_answers import StandIn
from tests.integration.weaviate_modules import Cohere, Nvidia, RerankModule, Transformers
from tests.integration.weaviate_store import QueryError, StoredCollection, Vectorize

_CLASS: dict[str, Any] = {
    "invertedIndexConfig": {
        "bm25": {"b": 0.75, "k1": 1.2},
        "cleanupIntervalSeconds": 60,
        "stopwords": {"additions": None, "preset": "en", "removals": None},
    },
    "multiTenancyConfig": {"enabled": False},
    "replicationConfig": {"factor": 1},
    "shardingConfig": {
        "actualCount": 1,
        "actualVirtualCount": 128,
        "desiredCount": 1,
        "desiredVirtualCount": 128,
        "function": "murmur3",
        "key": "_id",
        "strategy": "hash",
        "virtualPerPhysical": 128,
    },
}
"""What Weaviate adds to a class that does not say so itself."""

_PROPERTY = {
    "indexFilterable": True,
    "indexRangeFilters": False,
    "indexSearchable": True,
    "tokenization": "word",
}
"""And to a property."""


@dataclass(frozen=True)
class Running:
    """A stand-in that runs, and its ports."""

    stand_in: StandIn
    http_port: int
    grpc_port: int

    def connect(self) -> weaviate.WeaviateClient:
        """Connect as an application does."""
        return weaviate.connect_to_local(
            port=self.http_port, grpc_port=self.grpc_port, skip_init_checks=True
        )

    def connect_async(self) -> weaviate.WeaviateAsyncClient:
        """Give a client that connects when it is entered."""
        return weaviate.use_async_with_local(
            port=self.http_port, grpc_port=self.grpc_port, skip_init_checks=True
        )


def modules_for(sidecar_http_port: int, key: str | None = "none") -> list[RerankModule]:
    """Make the three modules, the first of them pointed at a sidecar on this machine."""
    origin = f"http://127.0.0.1:{sidecar_http_port}"
    return [Transformers(origin), Cohere(key), Nvidia(key)]


@contextmanager
def weaviate_stand_in(
    *modules: RerankModule, vectorize: Vectorize | None = None, maximum_results: int = 10_000
) -> Iterator[Running]:
    """Serve on free ports until the end."""
    by_name = {each.name: each for each in modules}
    stand_in = StandIn(by_name, vectorize, maximum_results)
    server = grpc.server(ThreadPoolExecutor(16))
    add: Any = weaviate_pb2_grpc.add_WeaviateServicer_to_server  # has no types
    add(_Grpc(stand_in), server)
    server.add_generic_rpc_handlers((_health(),))
    grpc_port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    rest = ThreadingHTTPServer(("127.0.0.1", 0), _rest(stand_in))
    thread = threading.Thread(target=rest.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield Running(stand_in, rest.server_port, grpc_port)
    finally:
        rest.shutdown()
        thread.join()
        rest.server_close()
        server.stop(None).wait()
        for each in modules:
            each.close()


class _Grpc(weaviate_pb2_grpc.WeaviateServicer):
    def __init__(self, stand_in: StandIn) -> None:
        self._stand_in = stand_in

    def Search(
        self, request: search_get_pb2.SearchRequest, context: grpc.ServicerContext
    ) -> search_get_pb2.SearchReply:
        try:
            return self._stand_in.search(request)
        except QueryError as error:
            context.abort(grpc.StatusCode.UNKNOWN, str(error))

    def BatchObjects(
        self, request: batch_pb2.BatchObjectsRequest, context: grpc.ServicerContext
    ) -> batch_pb2.BatchObjectsReply:
        for each in request.objects:
            self._stand_in.collections[each.collection].add(each)
        return batch_pb2.BatchObjectsReply()


def _health() -> grpc.GenericRpcHandler:
    serving = health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)
    check = grpc.unary_unary_rpc_method_handler(
        lambda request, context: serving,
        request_deserializer=health_pb2.HealthCheckRequest.FromString,
        response_serializer=health_pb2.HealthCheckResponse.SerializeToString,
    )
    return grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": check})


class _Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def _rest(stand_in: StandIn) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(size)) if size else None
            try:
                status, answer = 200, respond(stand_in, self.command, self.path, body)
            except _Refused as error:
                status, answer = error.status, {"error": [{"message": str(error)}]}
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_DELETE = _answer

        def log_message(self, *_: object) -> None:
            """Keep silent."""

    return Handler


def respond(stand_in: StandIn, method: str, path: str, body: Any) -> Any:
    """Answer one of the requests that the client makes over REST."""
    match method, path.removeprefix("/v1").split("/")[1:]:
        case "GET", [".well-known", "ready" | "live"]:
            return {}
        case "GET", ["meta"]:
            return stand_in.meta()
        case _, ["schema", *names]:
            return _schema(stand_in, method, names, body)
    raise _Refused(404, f"the stand-in has no {method} {path}")


def _schema(stand_in: StandIn, method: str, names: list[str], body: Any) -> Any:
    classes = stand_in.collections
    if method == "POST" and not names:
        classes[body["class"]] = StoredCollection(_checked(stand_in, body))
        return classes[body["class"]].schema
    if names[0] not in classes:
        raise _Refused(404, f"class {names[0]} not found")
    if method == "PUT":
        classes[names[0]].schema = _checked(stand_in, body)
    if method == "DELETE":
        del classes[names[0]]
        return {}
    return body if names[1:] == ["tenants"] else classes[names[0]].schema


def _checked(stand_in: StandIn, schema: dict[str, Any]) -> dict[str, Any]:
    for name in schema.get("moduleConfig") or {}:
        if re.match("reranker-", name) and name not in stand_in.modules:
            raise _Refused(422, f'module with name "{name}" not present')
    properties = [{**_PROPERTY, **each} for each in schema.get("properties") or []]
    # It compares all vectors by cosine distance, so it has no settings of an index to tell.
    return {**_CLASS, **schema, "properties": properties, "vectorConfig": {}}
