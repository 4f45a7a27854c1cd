"""The seam to a wire dialect: what a client sends becomes our request, our result its answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Generic, TypeVar

import msgspec

from rerank_sidecar.api.json_body import parse_json
from rerank_sidecar.errors import RerankError
from rerank_sidecar.settings import Settings
from rerank_sidecar.types import ModelDescription, PairRequest, RerankRequest, RerankResult

M = TypeVar("M")

Headers = Mapping[str, str]
"""HTTP headers; names of requests are looked up in any case."""

JSON_HEADERS: Headers = MappingProxyType({"Content-Type": "application/json"})


@dataclass(frozen=True, slots=True)
class ServerState:
    """What a server tells about itself.

    `models` are those that answer, the default first, and none before the server is ready.
    `describe` finds one by the name or alias that a client uses, None being the default; it raises
    NotReady and ModelNotFound.
    `settings_of` finds in the same way what holds for a model, whose limits may be its own.
    """

    is_ready: bool
    models: tuple[ModelDescription, ...]
    describe: Callable[[str | None], ModelDescription]
    settings: Settings
    settings_of: Callable[[str | None], Settings]


Info = Callable[[ServerState, str | None], tuple[int, Any]]
"""Answers a GET with status and JSON body, None being an empty one; gets the model of the path."""


class Dialect(ABC, Generic[M]):
    """How one family of clients asks over HTTP, and how it wants to be answered.

    A dialect only translates. Reading, authentication, limits, deadlines and disconnects are done
    once for all of them in http_rerank.py. A model that the path names wins over `options.model`.

    Attributes:
        name: the door's name in metrics and settings, lower case.
        summary: one line for the API documentation.
        mount: the fixed prefix under which nothing is guessed, such as `/cohere`; may be shared.
        paths: where it is served below its mount, by POST; `{model:path}` and `{version}` may
            occur.
        key_headers: where its clients put their key, in lower case.
        field_names: the fields of our requests that its clients call otherwise.
        message_type: what a client sends, a msgspec.Struct; its fields are checked on parsing.
        answer_type: what `render` gives.
        error_type: the body that `render_error` gives.
        example: a body to show in the documentation.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    mount: ClassVar[str]
    paths: ClassVar[tuple[str, ...]]
    key_headers: ClassVar[tuple[str, ...]] = ("authorization",)
    field_names: ClassVar[Mapping[str, str]] = MappingProxyType({})
    message_type: type[M]
    answer_type: ClassVar[Any]
    error_type: ClassVar[Any]
    example: ClassVar[Mapping[str, Any]]

    def decode(self, body: bytes, headers: Headers) -> M:
        """Read a body; JSON unless a dialect says otherwise.

        Raises:
            RequestError: the body is not of the message type.
        """
        return parse_json(body, self.message_type)

    @abstractmethod
    def parse(self, message: M) -> RerankRequest | PairRequest:
        """Say in our words what the client asks; `timeout_s` only if the message has one.

        Rows with queries of their own are a PairRequest; in its result an index is a row.

        Raises:
            RequestError: the fields are well typed but make no sense together.
        """

    @abstractmethod
    def render(self, message: M, result: RerankResult) -> Any:  # noqa: ANN401
        """Say the result in the client's words; `message` is what it sent.

        Raises:
            RerankError: this dialect has no words for the result, so the call is an error.
        """

    def encode(self, message: M, answer: Any) -> tuple[bytes, Headers]:  # noqa: ANN401
        """Write an answer and the headers that describe it; JSON unless overridden."""
        return msgspec.json.encode(answer), JSON_HEADERS

    def headers(self, result: RerankResult) -> Headers:
        """Give the headers that this dialect adds to an answer."""
        return {}

    @abstractmethod
    def render_error(self, error: RerankError) -> tuple[int, Any]:
        """Give the HTTP status and the body, None being an empty one, for a call that failed.

        A field is named in the client's words already.
        """

    def info(self) -> Mapping[str, Info]:
        """Give what the client asks about the server, by path below the mount, by GET."""
        return {}
