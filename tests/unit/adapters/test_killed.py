"""A sidecar that is killed in mid-query: what the callers get, under each `on_error`."""

import asyncio
import signal
from dataclasses import replace

import pytest

from rerank_adapters import Unreachable
from tests.contract.running import running_sidecar
from tests.unit.adapters.every_client import (
    GRPC,
    HTTP,
    WAIT_S,
    asking,
    failure,
    in_thread,
    listening,
)


@pytest.mark.parametrize("kind", [*GRPC, *HTTP])
async def test_a_sidecar_that_is_killed_fails_or_passes_through(kind: str) -> None:
    async with listening() as template:
        pass
    with running_sidecar(model="lexical") as running:
        sidecar = replace(
            template,
            target=f"127.0.0.1:{running.grpc_port}",
            url=f"http://127.0.0.1:{running.http_port}",
        )
        async with asking(kind, sidecar, max_attempts=2) as ask:
            assert (await ask("rerank", "red", ["red"])).results
            running.process.send_signal(signal.SIGSTOP)  # so that it is in the middle of them
            raising = asyncio.create_task(ask("rerank", "red", ["red"]))
            passing = asyncio.create_task(ask("rerank", "q", ["b", "a"], on_error="passthrough"))
            await asyncio.sleep(0.1)
            running.process.kill()
            await in_thread(running.process.wait)
            async with asyncio.timeout(WAIT_S):
                assert type(await failure(raising)) is Unreachable
                response = await passing
    assert type(response.passed_through) is Unreachable
    assert [each.index for each in response.results] == [0, 1]
