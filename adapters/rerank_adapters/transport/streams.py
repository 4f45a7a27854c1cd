"""The streaming form: documents go in as they are found, results come out as they are known."""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Generator,
    Iterable,
    Iterator,
)
from types import TracebackType
from typing import Self

from rerank_adapters.messages import Document, RerankOptions, RerankResponse, RerankResult
from rerank_adapters.transport.wire import (
    add_documents,
    add_vectors,
    build_options,
    check_documents,
    check_text,
    parse_result,
    parse_summary,
)
from rerank_adapters.vectors import packed
from rerank_sidecar.v1 import rerank_pb2 as pb

Arriving = str | Document | list[str | Document] | tuple[str | Document, ...]
"""What arrives at once: one document, or a list of them, which travels together and costs less."""

_AT_ONCE = 64
"""Documents of one message, where all are there from the start."""


class StreamedResults:
    """What has come of a stream so far, and the whole answer once it has ended."""

    def __init__(self) -> None:
        self._results: dict[int, RerankResult] = {}
        self._response: RerankResponse | None = None

    @property
    def response(self) -> RerankResponse:
        """Give the whole answer as `rerank` gives it: in order, cut by top_n and threshold.

        Raises:
            RuntimeError: the stream has not been read to its end.
        """
        if self._response is None:
            raise RuntimeError("the stream has not been read to its end")
        return self._response

    def _take(self, message: pb.RerankStreamResponse) -> RerankResult | None:
        if message.HasField("result"):
            result = parse_result(message.result)
            self._results[result.index] = result
            return result
        best_first = [self._results[index] for index in message.summary.order]
        failed = [each for _, each in sorted(self._results.items()) if each.error is not None]
        self._response = parse_summary(message.summary.summary, (*best_first, *failed))
        return None


class RerankStream(StreamedResults):
    """Iterates over results as they come, in no promised order; `response` is the whole answer.

    The results are not cut by `top_n` and the threshold, which need all of them. Iterating raises
    `RerankCallError` if the call fails, and whatever the caller's own iterable raises; what came
    before is good. Leaving the `with` block ends the call.
    """

    def __init__(self, messages: Generator[pb.RerankStreamResponse, None, None]) -> None:
        super().__init__()
        self._messages = messages

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> RerankResult:
        for message in self._messages:
            result = self._take(message)
            if result is not None:
                return result
        raise StopIteration

    def close(self) -> None:
        """End the call, wherever it is."""
        self._messages.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class AsyncRerankStream(StreamedResults):
    """The same for asyncio."""

    def __init__(self, messages: AsyncGenerator[pb.RerankStreamResponse, None]) -> None:
        super().__init__()
        self._messages = messages

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> RerankResult:
        async for message in self._messages:
            result = self._take(message)
            if result is not None:
                return result
        raise StopAsyncIteration

    async def close(self) -> None:
        """End the call, wherever it is."""
        await self._messages.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()


def start_message(query: str, options: RerankOptions) -> pb.RerankStreamRequest:
    """Write the first message of a stream; raises what `build_request` raises."""
    start = pb.RerankStreamStart(query=check_text(query, "query"), options=build_options(options))
    add_vectors(start.query_vectors, packed(options.get("query_vectors")))
    return pb.RerankStreamRequest(start=start)


def document_messages(documents: Iterable[Arriving]) -> Iterator[pb.RerankStreamRequest]:
    """Write documents as they arrive; those of a list or tuple have all arrived.

    Raises:
        TypeError: `documents` is one string, or has something that is no document.
        ValueError: a text is none.
    """
    if isinstance(documents, str):
        raise TypeError("documents must be several texts, not one string")
    if isinstance(documents, (list, tuple)):
        for start in range(0, len(documents), _AT_ONCE):
            yield _message(documents[start : start + _AT_ONCE])
    else:
        for each in documents:
            yield _message([each])


async def arriving_messages(
    documents: Iterable[Arriving] | AsyncIterable[Arriving],
) -> AsyncGenerator[pb.RerankStreamRequest, None]:
    """Write documents as they arrive; raises what `document_messages` raises."""
    if isinstance(documents, AsyncIterable):
        async for each in documents:
            yield _message([each])
    else:
        for message in document_messages(documents):
            yield message


def _message(arrived: Iterable[Arriving]) -> pb.RerankStreamRequest:
    message = pb.RerankStreamRequest()
    message.documents.SetInParent()
    for each in arrived:
        together = each if isinstance(each, (list, tuple)) else [each]
        add_documents(message.documents.documents, check_documents(together))
    return message
