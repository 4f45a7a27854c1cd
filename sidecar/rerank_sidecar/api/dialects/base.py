"""The seam to a wire dialect: what a client sends becomes our request, our result its answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Generic, TypeVar

from rerank_sidecar.errors import RerankError
from rerank_sidecar.types import RerankRequest, RerankResult

M = TypeVar("M")


class Dialect(ABC, Generic[M]):
    """How one family of clients asks over HTTP and JSON, and how it wants to be answered.

    A dialect only translates. Reading, parsing into `message_type`, limits, deadlines and
    disconnects are done once for all of them in http_rerank.py.

    Attributes:
        name: the door's name in metrics, lower case.
        summary: one line for the API documentation.
        paths: where it is served, by POST.
        message_type: what a client sends, a msgspec.Struct; its fields are checked on parsing.
        answer_type: what `render` gives.
        error_type: the body that `render_error` gives.
        example: a body to show in the documentation.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    paths: ClassVar[tuple[str, ...]]
    message_type: type[M]
    answer_type: ClassVar[type]
    error_type: ClassVar[type]
    example: ClassVar[Mapping[str, Any]]

    @abstractmethod
    def parse(self, path: str, message: M) -> RerankRequest:
        """Say in our words what the client asks; the time limit is added by the caller.

        Raises:
            RequestError: the fields are well typed but make no sense together.
        """

    @abstractmethod
    def render(self, message: M, result: RerankResult) -> Any:  # noqa: ANN401
        """Say the result in the client's words; `message` is what it sent.

        Raises:
            RerankError: this dialect has no words for the result, so the call is an error.
        """

    @abstractmethod
    def render_error(self, error: RerankError) -> tuple[int, Any]:
        """Give the HTTP status and the body for a call that failed."""
