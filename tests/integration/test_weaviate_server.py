"""The same on a real Weaviate, where there is one.

    docker compose --profile weaviate up --detach
    WEAVIATE_URL=http://localhost:8090 pytest tests/integration/test_weaviate_server.py

It needs the module reranker-transformers, pointed at a sidecar. WEAVIATE_GRPC (localhost:50061),
WEAVIATE_SIDECAR_URL (http://localhost:8080) and WEAVIATE_SIDECAR_TARGET (localhost:50051) say where
the other ports are, if not where the compose file has them.
"""

import os
from typing import Any
from urllib.parse import urlsplit

import pytest
import weaviate

from tests.integration.weaviate_app import Server
from tests.integration.weaviate_suite import WeaviateSuite


@pytest.fixture(scope="module")
def server() -> Server:
    url = os.environ.get("WEAVIATE_URL")
    if url is None:
        pytest.skip("needs WEAVIATE_URL: a Weaviate server cannot be installed from PyPI or Debian")
    rest = urlsplit(url)
    grpc_host, _, grpc_port = os.environ.get("WEAVIATE_GRPC", "localhost:50061").rpartition(":")
    where: dict[str, Any] = {
        "http_host": rest.hostname or "localhost",
        "http_port": rest.port or 8080,
        "http_secure": rest.scheme == "https",
        "grpc_host": grpc_host,
        "grpc_port": int(grpc_port),
        "grpc_secure": rest.scheme == "https",
        "skip_init_checks": True,
    }
    sidecar = os.environ.get("WEAVIATE_SIDECAR_URL", "http://localhost:8080")
    return Server(
        lambda: weaviate.connect_to_custom(**where),
        lambda: weaviate.use_async_with_custom(**where),
        sidecar,
        os.environ.get("WEAVIATE_SIDECAR_TARGET", "localhost:50051"),
        sidecar,
    )


class TestServer(WeaviateSuite):
    """A server passes what the stand-in passes."""
