"""One model of a KServe v2 server over HTTP, with JSON tensors."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Mapping
from typing import Any

from rerank_sidecar.backends.kserve import InferenceFailed, ModelTensors, Tokens
from rerank_sidecar.errors import MissingExtra
from rerank_sidecar.third_party.kserve_tensors import Numbers, numbers_of_json, token_input

_MOST_ANSWER_BYTES = 67_108_864

_TRANSIENT = frozenset({429, 502, 503, 504})


class KserveHttpClient:
    """Talks with a server at `url` over at most `connections` pooled connections.

    Raises:
        MissingExtra: httpx is not installed.
    """

    def __init__(  # noqa: PLR0913 - each is a fact of its own
        self,
        url: str,
        model: str,
        *,
        headers: Mapping[str, str],
        trusted: ssl.SSLContext,
        timeout_s: float,
        connections: int,
    ) -> None:
        try:
            import httpx
        except ImportError as error:
            raise MissingExtra("remote", "asking other servers") from error
        self._url = url
        self._timeout_s = timeout_s
        self._model = f"{url}/v2/models/{model}"
        self._client = httpx.Client(
            headers=dict(headers),
            verify=trusted,
            timeout=timeout_s,
            limits=httpx.Limits(max_connections=connections),
        )

    def tensors(self) -> ModelTensors:
        """Ask what the model takes and gives, and Triton for how many rows at once.

        Raises:
            InferenceFailed: the server does not answer, or has no such model.
        """
        server, model = self._asked("GET", f"{self._url}/v2"), self._asked("GET", self._model)
        try:
            config = self._asked("GET", f"{self._model}/config")
        except InferenceFailed:
            config = {}  # an extension of Triton's
        rows = config.get("max_batch_size") if isinstance(config, dict) else None
        try:
            return ModelTensors(
                server=f"{server['name']} {server['version']}",
                inputs={each["name"]: each["datatype"] for each in model["inputs"]},
                outputs=tuple(each["name"] for each in model["outputs"]),
                max_batch_size=rows if isinstance(rows, int) and rows > 0 else None,
            )
        except (KeyError, TypeError):
            raise InferenceFailed("the server does not describe the model") from None

    def infer(self, inputs: Mapping[str, Tokens], output: str) -> Numbers:
        """Run one batch.

        Raises:
            InferenceFailed: the server refused or failed, or answered what cannot be understood.
        """
        body = {
            "inputs": [token_input(name, tokens) for name, tokens in inputs.items()],
            "outputs": [{"name": output}],
        }
        answer = self._asked("POST", f"{self._model}/infer", body)
        try:
            return numbers_of_json(answer, output)
        except ValueError as error:
            raise InferenceFailed(f"the answer cannot be understood: {error}") from None

    def close(self) -> None:
        """Close the pooled connections."""
        self._client.close()

    def _asked(self, method: str, url: str, body: object = None) -> Any:  # noqa: ANN401 - JSON
        import httpx

        try:
            status, content = self._received(method, url, body)
        except (httpx.TimeoutException, TimeoutError):
            raise InferenceFailed("the server did not answer in time") from None
        except httpx.DecodingError:
            raise InferenceFailed("the server's answer cannot be decoded") from None
        except httpx.TransportError as error:
            kind = type(error).__name__
            raise InferenceFailed(
                f"the server cannot be reached ({kind})", is_transient=True
            ) from error
        if not 200 <= status < 300:
            raise InferenceFailed(
                f"the server answered with status {status}", is_transient=status in _TRANSIENT
            )
        try:
            return json.loads(content)
        except (ValueError, RecursionError):
            raise InferenceFailed("the server's answer is not JSON") from None

    def _received(self, method: str, url: str, body: object) -> tuple[int, bytes]:
        # The client's own limit is for each read: a trickle of bytes never reaches it.
        deadline = time.monotonic() + self._timeout_s
        with self._client.stream(method, url, json=body) as response:
            content = bytearray()
            for part in response.iter_bytes():
                content += part
                if time.monotonic() > deadline:
                    raise TimeoutError
                if len(content) > _MOST_ANSWER_BYTES:
                    raise InferenceFailed("the server's answer does not end")
        return response.status_code, bytes(content)
