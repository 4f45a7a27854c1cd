"""The clients in a bare virtualenv: the package without extras is all that they need."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.contract.running import running_sidecar

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

PROGRAM = """
import asyncio, importlib.resources, sys
from rerank_adapters import *

target, url = sys.argv[1:]
documents = ["the sky is blue", "red fruit"]
assert importlib.resources.files("rerank_adapters").joinpath("py.typed").is_file()

def best(response):
    assert response.passed_through is None
    return response.results[0].index

def refused(read):
    for _ in range(20):  # whichever comes first, the refusal or the next document
        try:
            read()
        except InvalidField as error:
            assert error.field == "options.top_n"
        else:
            raise AssertionError("nothing was refused")

with RerankClient(target) as client:
    print("grpc", best(client.rerank("red fruit", documents)), client.models()[0].name)
    with client.rerank_stream("red fruit", iter(documents)) as stream:
        print("stream", len(list(stream)), best(stream.response))
    refused(lambda: list(client.rerank_stream("q", iter(documents * 50), top_n=0)))
with HttpRerankClient(url) as client:
    print("http", best(client.rerank("red fruit", documents)), client.models()[0].name)

async def main():
    async with AsyncRerankClient(target) as client, AsyncHttpRerankClient(url) as http:
        print("async grpc", best(await client.rerank("red fruit", documents)))
        async with client.rerank_stream("red fruit", documents) as stream:
            print("async stream", len([each async for each in stream]), best(stream.response))
        print("async http", best(await http.rerank("red fruit", documents)))

async def read():
    async with AsyncRerankClient(target) as client:
        async for _ in client.rerank_stream("q", iter(documents * 50), top_n=0):
            pass

asyncio.run(main())
refused(lambda: asyncio.run(read()))
"""

EXPECTED = """\
grpc 1 lexical
stream 2 1
http 1 lexical
async grpc 1
async stream 2 1
async http 1
"""


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    subprocess.run(
        [folder / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", ROOT],
        check=True,
        env=os.environ | {"PIP_COMPILE": "0"},  # most of it is never imported
    )
    return folder / "bin" / "python"


def run(*command: str | Path) -> str:
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_every_client_works_in_a_bare_virtualenv(bare_python: Path) -> None:
    with running_sidecar(model="lexical") as sidecar:
        printed = run(
            *(bare_python, "-W", "error", "-c", PROGRAM),
            f"127.0.0.1:{sidecar.grpc_port}",
            f"http://127.0.0.1:{sidecar.http_port}",
        )
    assert printed == EXPECTED


def test_nothing_is_installed_but_what_the_package_names(bare_python: Path) -> None:
    listed = run(bare_python, "-m", "pip", "list", "--format=freeze").split()
    installed = {line.partition("==")[0].lower() for line in listed}
    named = {re.split("[<>=]", each)[0] for each in PROJECT["dependencies"]}
    of_the_interpreter = {"pip", "setuptools"}
    of_grpcio = {"typing_extensions"}
    assert installed - of_the_interpreter == {PROJECT["name"], *named, *of_grpcio}
