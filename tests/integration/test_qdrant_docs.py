"""The code of docs/qdrant.md prints what the page says, and the example finds the right answers."""

import re
import subprocess
import sys
from pathlib import Path

from tests.contract.conftest import Running
from tests.unit.adapters.every_client import Sidecar

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "qdrant.md").read_text("utf-8")

TRYING_THE_ASYNC_BLOCK = """
async def try_it():
    store = AsyncQdrantClient(":memory:")
    params = models.VectorParams(size=2, distance=models.Distance.COSINE)
    await store.create_collection("articles", vectors_config=params)
    records, _ = client.scroll("articles", with_vectors=True)
    for each in records:
        point = models.PointStruct(id=each.id, vector=each.vector, payload=each.payload)
        await store.upsert("articles", [point])
    found = await search(store, [1.0, 0.1], "red fruit")
    assert found == ["strawberries", "a brick wall"], found
    await store.close()

asyncio.run(try_it())
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def run(*command: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-W", "error", *command],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=ROOT,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_the_pages_code_prints_what_the_page_says(sidecar: Running, reads_vectors: Sidecar) -> None:
    code = "\n".join(
        [*blocks("python"), TRYING_THE_ASYNC_BLOCK, "sidecar.close()", "client.close()"]
    )
    code = code.replace("localhost:50051", f"127.0.0.1:{sidecar.grpc_port}")
    printed = run("-c", code.replace("localhost:50052", reads_vectors.target))
    assert printed == "".join(blocks("text"))


def test_the_example_finds_more_right_answers_after_reranking() -> None:
    printed = run("-m", "examples.qdrant")
    assert re.findall(r"^(\w+): P@1 (.*)$", printed, re.MULTILINE) == [
        ("before", "0.30"),
        ("after", "0.90"),
    ]
