"""Questions to a chat model behind an OpenAI-compatible API, asked by the `openai` package.

The wire is OpenAI's "Create chat completion" (POST /chat/completions). The package neither knows a
request's deadline nor validates what it reads, so tries and checks are made here.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from rerank_sidecar.errors import (
    Overloaded,
    RemoteFailed,
    RemoteUnavailable,
    RerankError,
    error_row,
)
from rerank_sidecar.rerankers.base import Meter
from rerank_sidecar.rerankers.deadlines import cancelled_once
from rerank_sidecar.rerankers.remote.answers import plausible
from rerank_sidecar.rerankers.remote.http_client import REFUSALS
from rerank_sidecar.rerankers.retry_after import read_retry_after
from rerank_sidecar.telemetry import metrics

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI
    from openai.types.chat import ChatCompletionMessageParam

_LONGEST_PAUSE_S = 8.0


@dataclass(frozen=True, slots=True)
class ChatConfig:
    """Which model is asked, and how.

    `timeout_s` is for one try, `max_tries` counts the first. `pause_s` is the wait before the
    second try, which doubles for each further one; a longer Retry-After goes before. Temperature
    is 0 unless `send_temperature` is false, for models that refuse it. `extra_body` is merged into
    every request.
    """

    model: str
    timeout_s: float = 60.0
    max_tries: int = 3
    pause_s: float = 0.5
    send_temperature: bool = True
    extra_body: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """What the model said, empty if it refused; `tokens` are prompt and answer, None if untold."""

    text: str
    tokens: int | None


class ChatEndpoint:
    """Asks one chat model; `name` is what metrics call it.

    The client is closed by whoever opened it, and makes no tries of its own.
    """

    def __init__(self, name: str, client: AsyncOpenAI, config: ChatConfig) -> None:
        self._name = name
        self._client = client
        self._config = config
        temperature = {"temperature": 0.0} if config.send_temperature else {}
        self._extra_body = {**temperature, **config.extra_body}

    async def ask(
        self, messages: Sequence[ChatCompletionMessageParam], deadline: float | None, meter: Meter
    ) -> ChatAnswer:
        """Ask, and ask again while that may help and the deadline leaves time for it.

        Counts each try as a remote call. Messages of errors hold nothing that the server said.

        Raises:
            RemoteFailed: it refused (`is_refusal`: this question, and may answer others), failed,
                did not answer in time, or sent what is no completion.
            RemoteUnavailable: it cannot be reached, or says that it is down.
            Overloaded: it has too much to do; `retry_after_s` is what it says.
        """
        pause_s = self._config.pause_s
        for tries_left in reversed(range(self._config.max_tries)):
            meter.remote_calls += 1
            try:
                return await self._counted(messages)
            except _TryFailed as failed:
                wait_s = max(failed.retry_after_s, random.uniform(0.5, 1) * pause_s)  # noqa: S311
                is_in_time = deadline is None or time.monotonic() + wait_s < deadline
                if not (tries_left and failed.may_pass and is_in_time):
                    raise failed.error from None  # whose text may quote the question
            await asyncio.sleep(wait_s)
            pause_s = min(_LONGEST_PAUSE_S, 2 * pause_s)
        raise AssertionError("there is at least one try")

    async def _counted(self, messages: Sequence[ChatCompletionMessageParam]) -> ChatAnswer:
        outcome, began_at = "CANCELLED", time.monotonic()
        try:
            answer = await self._try(messages)
            outcome = "OK"
            return answer
        except _TryFailed as failed:
            outcome = error_row(failed.error).reason
            raise
        finally:
            spent_s = time.monotonic() - began_at
            metrics.REMOTE_CALLS.labels(model=self._name, outcome=outcome).inc()
            metrics.REMOTE_CALL_SECONDS.labels(model=self._name).observe(spent_s)

    async def _try(self, messages: Sequence[ChatCompletionMessageParam]) -> ChatAnswer:
        import openai

        config = self._config
        try:
            # The client's own limit is for each read: a trickle of bytes never reaches it.
            async with asyncio.timeout(config.timeout_s):
                completion = await cancelled_once(
                    self._client.chat.completions.create(
                        model=config.model, messages=messages, extra_body=self._extra_body
                    )
                )
            return _answer(completion)
        except (TimeoutError, openai.APITimeoutError) as error:
            late = RemoteFailed(f"the chat endpoint did not answer within {config.timeout_s:g} s")
            raise _TryFailed(late) from error
        except openai.APIConnectionError as error:
            gone = RemoteUnavailable("the chat endpoint cannot be reached, or hung up")
            raise _TryFailed(gone) from error
        except openai.APIStatusError as error:
            raise _refused(error) from error
        except (
            openai.OpenAIError,
            msgspec.ValidationError,
            ValueError,
            RecursionError,
        ) as error:
            nonsense = RemoteFailed("the chat endpoint answered what is no chat completion")
            raise _TryFailed(nonsense) from error


class _TryFailed(Exception):
    """One try failed; another may not."""

    def __init__(
        self, error: RerankError, *, may_pass: bool = True, retry_after_s: float = 0.0
    ) -> None:
        super().__init__(error.message)
        self.error = error
        self.may_pass = may_pass
        self.retry_after_s = retry_after_s


def _refused(error: APIStatusError) -> _TryFailed:
    status = error.status_code
    told_s = read_retry_after(error.response.headers.get("retry-after"))
    retry_after_s = 1.0 if told_s is None else told_s
    message = f"the chat endpoint answered with status {status}"
    if status == 429:
        return _TryFailed(Overloaded(message, retry_after_s), retry_after_s=told_s or 0.0)
    if status == 503:
        return _TryFailed(RemoteUnavailable(message, retry_after_s), retry_after_s=told_s or 0.0)
    if status in REFUSALS:
        return _TryFailed(RemoteFailed(message, is_refusal=True), may_pass=False)
    may_pass = status >= 500 or status in {408, 409}
    return _TryFailed(RemoteFailed(message), may_pass=may_pass, retry_after_s=told_s or 0.0)


class _Message(msgspec.Struct):
    content: str | list[Any] | None = None


class _Choice(msgspec.Struct):
    message: _Message


class _Completion(msgspec.Struct):
    choices: list[_Choice]
    usage: Any = None


def _answer(completion: object) -> ChatAnswer:
    read = msgspec.convert(completion, _Completion, from_attributes=True)
    if not read.choices:
        raise ValueError("no choices")
    return ChatAnswer(_text(read.choices[0].message.content), _tokens(read.usage))


def _text(content: str | list[Any] | None) -> str:
    """Give what is said, without what is thought: Mistral's reasoning models send parts of both."""
    if not isinstance(content, list):
        return content or ""
    texts = (part.get("text") if isinstance(part, dict) else part for part in content)
    return "".join(text for text in texts if isinstance(text, str))


def _tokens(usage: object) -> int | None:
    """Give what a call cost; an answer is not thrown away because nobody can tell."""
    counts = (getattr(usage, name, None) for name in ("prompt_tokens", "completion_tokens"))
    return plausible(sum(count for count in counts if isinstance(count, int))) or None
