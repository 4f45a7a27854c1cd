"""A chat model behind an HTTP server, after OpenAI's API reference, "Create chat completion".

It reads the question as a model would, and answers, or fails as servers do.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from openai import AsyncOpenAI

Reply = Callable[["Asked", asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True)
class Asked:
    """One request as it arrived."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def text(self) -> str:
        """Give all that the model reads."""
        return "\n".join(message["content"] for message in self.body["messages"])

    @property
    def passages(self) -> list[str]:
        """Give the passages that a model would see, in the order of their identifiers."""
        listed = re.findall(r"^\[(\d+)\] ?(.*)$", self.text, re.MULTILINE)
        assert [int(number) for number, _ in listed] == list(range(1, len(listed) + 1))
        return [text for _, text in listed]


@dataclass
class ChatServer:
    """Answers with `replies` in turn, the last one for ever; keeps what it was asked."""

    replies: Sequence[Reply]
    asked: list[Asked] = field(default_factory=list)
    arrivals: asyncio.Queue[Asked] = field(default_factory=asyncio.Queue)
    url: str = ""
    at_once: int = 0
    most_at_once: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        try:
            while (asked := await _read(reader)) is not None:
                self.asked.append(asked)
                self.arrivals.put_nowait(asked)
                self.at_once += 1
                self.most_at_once = max(self.most_at_once, self.at_once)
                reply = self.replies[min(len(self.asked), len(self.replies)) - 1]
                try:
                    await reply(asked, writer)
                    await writer.drain()
                finally:
                    self.at_once -= 1
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def chat_server(*replies: Reply) -> AsyncIterator[ChatServer]:
    """Run a server that gives these replies in turn."""
    chat = ChatServer(replies)
    connections: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.current_task()
        assert connection is not None
        connections.add(connection)
        with suppress(asyncio.CancelledError):  # which asyncio's server would report
            await chat.serve(reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    chat.url = f"http://{host}:{port}/v1"
    try:
        yield chat
    finally:
        server.close()
        for connection in connections:
            connection.cancel()
        if connections:
            await asyncio.wait(connections)


@asynccontextmanager
async def chat_client(chat: ChatServer) -> AsyncIterator[AsyncOpenAI]:
    """Open the client that a listwise reranker uses."""
    async with AsyncOpenAI(api_key="key", base_url=chat.url, max_retries=0) as client:
        yield client


async def _read(reader: asyncio.StreamReader) -> Asked | None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Asked(first.split(" ")[1], headers, json.loads(body))


def says(answer: str | Callable[[Asked], str | None] | None, **usage: int) -> Reply:
    """Answer with a completion; without usage the server does not tell what it cost."""

    async def reply(asked: Asked, writer: asyncio.StreamWriter) -> None:
        content = answer(asked) if callable(answer) else answer
        _send(writer, 200, completion(asked.body["model"], content, usage or None))

    return reply


def completion(model: str, content: str | None, usage: dict[str, int] | None) -> bytes:
    """Make the body of an answer."""
    message: dict[str, Any] = {
        "role": "assistant",
        "content": content,
        "refusal": None,
        "annotations": [],
    }
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    whole = {
        "id": "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT",
        "object": "chat.completion",
        "created": 1741569952,
        "model": model,
        "choices": [choice],
        "service_tier": "default",
    }
    return json.dumps(whole | ({"usage": usage} if usage else {})).encode()


def sends(body: bytes, status: int = 200, **headers: str) -> Reply:
    """Answer with these bytes, said to be JSON; `_` in a header's name stands for `-`."""

    async def reply(_: Asked, writer: asyncio.StreamWriter) -> None:
        _send(writer, status, body, **headers)

    return reply


def refuses(status: int, **headers: str) -> Reply:
    """Answer with an error in OpenAI's form, whose message quotes the question."""

    async def reply(asked: Asked, writer: asyncio.StreamWriter) -> None:
        error = {"message": asked.text, "type": "server_error", "param": None, "code": None}
        _send(writer, status, json.dumps({"error": error}).encode(), **headers)

    return reply


async def hangs_up(_: Asked, writer: asyncio.StreamWriter) -> None:
    """Close the connection instead of answering."""
    writer.close()


async def breaks_off(asked: Asked, writer: asyncio.StreamWriter) -> None:
    """Close the connection in the middle of the answer."""
    body = completion(asked.body["model"], "[1] > [2]", None)
    writer.write(_head(200, len(body)) + body[: len(body) // 2])
    await writer.drain()
    writer.close()


async def stalls(_: Asked, writer: asyncio.StreamWriter) -> None:
    """Trickle bytes for ever: each read of the client succeeds."""
    writer.write(_head(200, 1_000_000))
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.01)


def _send(writer: asyncio.StreamWriter, status: int, body: bytes, **headers: str) -> None:
    writer.write(_head(status, len(body), **headers) + body)


def _head(status: int, length: int, **headers: str) -> bytes:
    told = {"Content-Type": "application/json", "Content-Length": str(length)}
    told |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = (f"{name}: {value}\r\n" for name, value in told.items())
    return f"HTTP/1.1 {status} Status\r\n{''.join(lines)}\r\n".encode()
