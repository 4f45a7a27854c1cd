"""Chat models that put documents in order: `listwise:MODEL`, or `listwise:URL#MODEL`."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

from rerank_sidecar.errors import InvalidSetting, MissingExtra
from rerank_sidecar.loading.family import Loading
from rerank_sidecar.loading.remote import quieten
from rerank_sidecar.rerankers.base import Reranker, RerankerInfo
from rerank_sidecar.rerankers.listwise.call_queue import CallQueue
from rerank_sidecar.rerankers.listwise.chat_endpoint import ChatConfig, ChatEndpoint
from rerank_sidecar.rerankers.listwise.prompt import PROMPT_VERSION
from rerank_sidecar.rerankers.listwise.sliding_window import SlidingWindow
from rerank_sidecar.rerankers.llm_listwise import ListwiseConfig, ListwiseReranker
from rerank_sidecar.rerankers.members import version_of
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.settings import Settings

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_PREFIX = "listwise:"
_PUBLIC_URL = "https://api.openai.com/v1"
_PUBLIC_KEY = "OPENAI_API_KEY"
_NO_KEY = "none"
"""The client wants one; servers that need none do not look at it."""

_WINDOW, _SHOWN = SlidingWindow(), ListwiseConfig()
_CHAT = ChatConfig(model="")


class ListwiseOptions(BaseModel):
    """How much the model is shown, how it is asked, and what one request may cost."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    window: int = Field(_WINDOW.size, ge=2)
    step: PositiveInt = _WINDOW.step
    passes: PositiveInt = _WINDOW.passes
    max_words_per_document: PositiveInt = _SHOWN.max_words_per_document
    max_calls: PositiveInt = _SHOWN.max_calls
    max_total_tokens: PositiveInt = _SHOWN.max_total_tokens
    max_concurrent_calls: PositiveInt = 8
    timeout_s: PositiveFloat = _CHAT.timeout_s
    max_tries: PositiveInt = _CHAT.max_tries
    send_temperature: bool = _CHAT.send_temperature
    api_key_env: str | None = None
    extra_body: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _windows_overlap(self) -> Self:
        if self.step > self.window:
            raise ValueError("step must be at most window, or documents are skipped")
        return self


class ListwiseFamily:
    """A chat model says the order: `--model listwise:gpt-4.1-mini`."""

    name = "llm_listwise"

    def claims(self, source: str) -> bool:
        """Tell whether a chat model is meant."""
        return source.startswith(_PREFIX)

    def claims_folder(self, folder: Path) -> bool:
        """There are no files of it."""
        return False

    def prepare(self, folder: Path, settings: Settings) -> None:
        """There is nothing to do."""

    async def load(self, loading: Loading) -> Reranker:
        """Open a client; the first request is the first to ask the model."""
        source, options = _Source.of(loading.settings.model), loading.options(ListwiseOptions)
        client = await asyncio.to_thread(_client, source, options)
        loading.stack.push_async_callback(client.close)
        info = RerankerInfo(
            name=loading.name,
            version=version_of(source, PROMPT_VERSION, options.model_dump_json()),
            family=self.name,
            score_kind=ScoreKind.RANK,
            engine=f"chat at {urlsplit(source.url).netloc}",
            source=loading.settings.model,
            comparable_across_requests=False,
            keep_scores=False,
        )
        return ListwiseReranker(
            info,
            ChatEndpoint(loading.name, client, _chat_config(source, options)),
            CallQueue(options.max_concurrent_calls),
            _listwise_config(options),
        )


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a chat model is, and what it is called there."""

    url: str
    model: str

    @classmethod
    def of(cls, source: str) -> Self:
        """Read `listwise:MODEL` or `listwise:URL#MODEL`.

        Raises:
            InvalidSetting: it is neither, or the address has more in it than an address.
        """
        url, model = _PUBLIC_URL, source.removeprefix(_PREFIX)
        if model.startswith(("http://", "https://")):
            url, _, model = model.partition("#")
        if not model.strip():
            raise InvalidSetting("model: must be listwise:MODEL or listwise:URL#MODEL")
        try:
            parts = urlsplit(url)
            is_plain = bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_plain = False
        if not is_plain or parts.username or parts.password or parts.query:
            # The source is shown to whoever asks which models there are.
            raise InvalidSetting(
                "model: the URL of a listwise model is scheme, host, port and path alone; a key "
                "belongs into an environment variable, see api_key_env"
            )
        return cls(url, model)


def _client(source: _Source, options: ListwiseOptions) -> AsyncOpenAI:
    """Open a client; imports, and reads certificates."""
    try:
        from openai import AsyncOpenAI
    except ModuleNotFoundError as error:
        raise MissingExtra("listwise", "a listwise model") from error
    # On the level DEBUG the package logs what it sends, and what it is built on headers.
    quieten("openai", "httpx", "httpcore", "httpx2", "httpcore2")
    return AsyncOpenAI(
        api_key=_api_key(source, options.api_key_env),
        base_url=source.url,
        timeout=options.timeout_s,
        max_retries=0,
    )


def _api_key(source: _Source, variable: str | None) -> str:
    """Read the key; a key for the public API is sent nowhere else unless that is asked for.

    Raises:
        InvalidSetting: there is none, or it cannot be sent in a header.
    """
    if variable is None and source.url != _PUBLIC_URL:
        return _NO_KEY
    variable = variable or _PUBLIC_KEY
    key = os.environ.get(variable, "").strip()
    if not key or not key.isascii() or not key.isprintable():
        raise InvalidSetting(
            f"family_options.api_key_env: the environment variable {variable} holds no key"
        )
    return key


def _chat_config(source: _Source, options: ListwiseOptions) -> ChatConfig:
    return ChatConfig(
        source.model,
        timeout_s=options.timeout_s,
        max_tries=options.max_tries,
        send_temperature=options.send_temperature,
        extra_body=options.extra_body,
    )


def _listwise_config(options: ListwiseOptions) -> ListwiseConfig:
    return ListwiseConfig(
        SlidingWindow(options.window, options.step, options.passes),
        max_words_per_document=options.max_words_per_document,
        max_calls=options.max_calls,
        max_total_tokens=options.max_total_tokens,
    )
