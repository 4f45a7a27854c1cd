"""Work that ends when nobody waits for it any more."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.types import Receive

from rerank_sidecar.errors import Cancelled

T = TypeVar("T")


async def unless_disconnected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Await some work, but cancel it as soon as the HTTP client goes away.

    `receive` is the ASGI channel of a request whose body has been read to its end: all that it
    can still tell is that the client has disconnected.

    Raises:
        Cancelled: the client went away first.
    """
    # The work stays in the caller's task, as under `asyncio.timeout`: a task of its own would cost
    # as much as refusing a request does.
    caller, gone = asyncio.current_task(), asyncio.Event()
    watching = asyncio.create_task(_cancel_when_gone(receive, caller, gone))
    try:
        return await work
    except asyncio.CancelledError:
        # A server that stops cancels the task, too, and that is for the caller to hear.
        if caller is not None and gone.is_set() and caller.uncancel() == 0:
            raise Cancelled("the caller went away") from None
        raise
    finally:
        watching.cancel()


async def _cancel_when_gone(
    receive: Receive, caller: asyncio.Task[Any] | None, gone: asyncio.Event
) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    gone.set()
    if caller is not None:
        caller.cancel()
