"""Computing away from the event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(
    executor: Executor | None, compute: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> tuple[T, float]:
    """Run something in a thread of the executor, None being the event loop's own.

    Gives its result and how many seconds it took there.
    """
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(executor, lambda: _timed(compute, *args, **kwargs))


def _timed(compute: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> tuple[T, float]:
    started = time.perf_counter()
    result = compute(*args, **kwargs)
    return result, time.perf_counter() - started
