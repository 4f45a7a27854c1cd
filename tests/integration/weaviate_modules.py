"""Weaviate's reranker modules as they call a service, written after their Go sources.

modules/reranker-transformers, reranker-cohere and reranker-nvidia (clients/ranker.go) and
usecases/modulecomponents/clients/cohere of weaviate/weaviate: what is sent and to which URL, in
chunks of how many, how replies are read, and the words of their errors. They hold no scores.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from typing import Any, Protocol
from urllib.parse import urlsplit

from tests.contract.go_client import GoClient, GoError

Settings = Mapping[str, Any]
"""A collection's settings of a module."""


class ModuleError(Exception):
    """What a module says when it could not rerank."""


class RerankModule(Protocol):
    """One of Weaviate's reranker modules."""

    @property
    def name(self) -> str: ...

    def meta(self) -> dict[str, Any]: ...

    def rank(self, query: str, documents: Sequence[str], settings: Settings) -> list[float]: ...

    def close(self) -> None: ...


@dataclass
class Transformers:
    """reranker-transformers at one origin, as many requests at once as the host has cores."""

    origin: str
    cores: int = 4
    sending: Callable[[], None] = lambda: None
    """Called before a search is sent."""

    name = "reranker-transformers"

    def __post_init__(self) -> None:
        port = urlsplit(self.origin).port
        assert port is not None
        self._http = GoClient(port, self.cores)

    def meta(self) -> dict[str, Any]:
        try:
            _, body = self._http.do("GET", "/meta")
        except (OSError, HTTPException) as error:
            return {"error": f'send GET meta request: Get "{self.origin}/meta": {error}'}
        about: dict[str, Any] = json.loads(body)
        return about

    def rank(self, query: str, documents: Sequence[str], settings: Settings) -> list[float]:
        self.sending()
        try:
            return self._http.rank(query, documents)
        except GoError as error:
            raise ModuleError(str(error)) from error
        except (OSError, HTTPException) as error:
            url = f"{self.origin}/rerank"
            raise ModuleError(f'send POST request: Post "{url}": {error}') from error

    def close(self) -> None:
        self._http.close()


@dataclass
class Cohere:
    """reranker-cohere: a base URL and a model for each collection, a key for all."""

    key: str | None
    cores: int = 4

    name = "reranker-cohere"
    chunk = 1000

    def meta(self) -> dict[str, Any]:
        return {"name": "Reranker - Cohere", "documentationHref": "https://docs.cohere.com/"}

    def rank(self, query: str, documents: Sequence[str], settings: Settings) -> list[float]:
        def perform(part: Sequence[str]) -> list[float]:
            return self._perform(query, part, settings)

        return _in_chunks(perform, documents, self.chunk, self.cores)

    def close(self) -> None:
        pass

    def _perform(self, query: str, documents: Sequence[str], settings: Settings) -> list[float]:
        if self.key is None:
            raise ModuleError(_no_key("Cohere"))
        body = {
            "documents": documents,
            "query": query,
            "model": settings.get("model", "rerank-v3.5"),
            "return_documents": False,
        }
        headers = {"Request-Source": "unspecified:weaviate"}
        url = settings.get("baseURL", "https://api.cohere.ai") + "/v2/rerank"
        status, answer = _post(url, body, self.key, headers)
        if status != 200:
            said = answer.get("message")
            why = f": {said}" if said else ""
            raise ModuleError(f"connection to Cohere API failed with status {status}{why}")
        return _by_index(answer["results"], "relevance_score")


@dataclass
class Nvidia:
    """reranker-nvidia: the same in NIM's form."""

    key: str | None
    cores: int = 4

    name = "reranker-nvidia"
    chunk = 512

    def meta(self) -> dict[str, Any]:
        return {"name": "Reranker - Nvidia", "documentationHref": "https://docs.api.nvidia.com/"}

    def rank(self, query: str, documents: Sequence[str], settings: Settings) -> list[float]:
        def perform(part: Sequence[str]) -> list[float]:
            return self._perform(query, part, settings)

        return _in_chunks(perform, documents, self.chunk, self.cores)

    def close(self) -> None:
        pass

    def _perform(self, query: str, documents: Sequence[str], settings: Settings) -> list[float]:
        if self.key is None:
            raise ModuleError(_no_key("Nvidia"))
        body = {
            "model": settings.get("model", "nvidia/rerank-qa-mistral-4b"),
            "query": {"text": query},
            "passages": [{"text": each} for each in documents],
        }
        base = settings.get("baseURL", "https://ai.api.nvidia.com")
        url = f"{base}/v1/retrieval/nvidia/reranking"
        status, answer = _post(url, body, self.key, {"Accept": "application/json"})
        if status != 200:
            raise ModuleError(f"connection to NVIDIA API failed with status: {status}")
        return _by_index(answer["rankings"], "logit")


def _in_chunks(
    perform: Callable[[Sequence[str]], list[float]],
    documents: Sequence[str],
    size: int,
    cores: int,
) -> list[float]:
    chunks = [documents[at : at + size] for at in range(0, len(documents), size)]
    with ThreadPoolExecutor(cores) as group:
        return [score for part in group.map(perform, chunks) for score in part]


def _by_index(results: Sequence[Mapping[str, Any]], score: str) -> list[float]:
    scores = [0.0] * len(results)  # as long as what came back: a cut reply breaks the index
    for each in results:
        scores[each["index"]] = each[score]
    return scores


def _no_key(provider: str) -> str:
    return (
        f"{provider} API Key: no api key found neither in request header: "
        f"X-{provider}-Api-Key nor in environment variable under {provider.upper()}_APIKEY"
    )


def _post(
    url: str, body: Mapping[str, Any], key: str, headers: Mapping[str, str]
) -> tuple[int, dict[str, Any]]:
    parts = urlsplit(url)
    own = {
        "User-Agent": "Go-http-client/1.1",
        "Authorization": f"Bearer {key}",
        "Content-Type": "application/json",
        "Accept-Encoding": "gzip",
    }
    connection = HTTPConnection(parts.netloc)
    try:
        connection.request("POST", parts.path, json.dumps(body), {**own, **headers})
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    except (OSError, HTTPException) as error:
        raise ModuleError(f'send POST request: Post "{url}": {error}') from error
    finally:
        connection.close()
