"""The twins without a server: when they load, to whom they belong, how they end.

What they answer is tested beside the other clients, in tests/unit/adapters/test_client.py.
"""

import asyncio
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rerank_adapters import DeadlineExceeded, RerankResponse
from rerank_sidecar.errors import StartupError
from rerank_sidecar.in_process import AsyncInProcessRerankClient, InProcessRerankClient
from rerank_sidecar.settings import Settings

LEXICAL = Settings(model="lexical")

WAIT_S = 60.0


def engine_threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "rerank-engine"]


def test_the_model_is_loaded_by_the_with_block_and_given_back_after_it() -> None:
    client = InProcessRerankClient(LEXICAL)
    assert not engine_threads()
    with client:
        assert len(engine_threads()) == 1
        assert client.rerank("red", ["red"]).model == "lexical"
    assert not engine_threads()


def test_the_settings_are_those_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RERANK_SIDECAR_MODEL", "lexical")
    monkeypatch.setenv("RERANK_SIDECAR_MAX_DOCUMENT_BYTES", "3")
    with InProcessRerankClient() as client:
        response = client.rerank("red", ["green", "red"])
    assert response.model == "lexical"
    assert [each.index for each in response.results] == [1, 0]


def test_threads_that_come_first_together_load_one_model() -> None:
    client = InProcessRerankClient(LEXICAL)
    together, responses = threading.Barrier(8), []

    def ask() -> None:
        together.wait(WAIT_S)
        responses.append(client.rerank("red", ["red"]))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(responses) == 8
    assert len(engine_threads()) == 1
    client.close()


@pytest.mark.parametrize("on_error", ["raise", "passthrough"])
def test_a_model_that_cannot_be_had_is_told_and_not_passed_through(
    tmp_path: Path, on_error: str
) -> None:
    client = InProcessRerankClient(Settings(model=str(tmp_path)), on_error=on_error)  # type: ignore[arg-type]
    for _ in range(2):
        with pytest.raises(StartupError):
            client.rerank("red", ["red"])
    client.close()
    assert not engine_threads()


async def test_the_same_for_asyncio(tmp_path: Path) -> None:
    with pytest.raises(StartupError):
        async with AsyncInProcessRerankClient(Settings(model=str(tmp_path))):
            pass


def test_an_async_twin_belongs_to_its_loop() -> None:
    client = AsyncInProcessRerankClient(LEXICAL)

    async def ask() -> RerankResponse:
        return await client.rerank("red", ["red"])

    with asyncio.Runner() as runner:
        assert runner.run(ask()).results
        with pytest.raises(RuntimeError, match="event loop"):
            asyncio.run(ask())
        runner.run(client.close())


def test_a_deadline_is_kept_and_passes_through() -> None:
    with InProcessRerankClient(LEXICAL, on_error="passthrough") as client:
        response = client.rerank("red", ["a", "b"], timeout_s=1e-6)
        assert isinstance(response.passed_through, DeadlineExceeded)
        assert client.passthrough_count == 1


def test_a_script_that_forgets_to_close_ends() -> None:
    program = """
from rerank_sidecar.in_process import InProcessRerankClient
from rerank_sidecar.settings import Settings
print(len(InProcessRerankClient(Settings(model="lexical")).rerank("red", ["red"]).results))
"""
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        check=False,
        timeout=WAIT_S,
    )
    assert (ran.stdout, ran.stderr, ran.returncode) == ("1\n", "", 0)


def test_a_waiting_call_can_be_interrupted() -> None:
    program = """
import _thread, signal, threading, time
from rerank_sidecar.in_process import InProcessRerankClient
from rerank_sidecar.settings import Settings

signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs inherit none

def never():
    threading.Timer(0.2, _thread.interrupt_main).start()
    time.sleep(1)
    yield "red"
    time.sleep(1)

with InProcessRerankClient(Settings(model="lexical")) as client:
    try:
        list(client.rerank_stream("red", never()))
    except KeyboardInterrupt:
        print("interrupted")
"""
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        check=False,
        timeout=WAIT_S,
    )
    assert (ran.stdout, ran.stderr, ran.returncode) == ("interrupted\n", "", 0)
