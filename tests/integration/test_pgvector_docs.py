"""The code of docs/pgvector.md prints what the page says; the example finds the right answers."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.contract.conftest import Running
from tests.integration.postgres import database
from tests.unit.adapters.every_client import Sidecar

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "pgvector.md").read_text("utf-8")
CLOSING = "sidecar.close()\nconnection.close()\nengine.dispose()\n"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def run(*command: str, **environment: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-W", "error", *command],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=ROOT,
        env={**os.environ, **environment},
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_the_pages_code_prints_what_the_page_says(
    postgres: str, sidecar: Running, reads_vectors: Sidecar
) -> None:
    with database(postgres, "docs") as uri:
        code = "\n".join([*blocks("python"), CLOSING])
        code = code.replace("localhost:50051", f"127.0.0.1:{sidecar.grpc_port}")
        code = code.replace("localhost:50052", reads_vectors.target)
        code = re.sub(
            r"(postgresql\S*)://localhost/app", rf"\1{uri.removeprefix('postgresql')}", code
        )
        printed = run("-c", code)
    assert printed == "".join(blocks("text"))


def test_the_example_finds_more_right_answers_after_reranking(tmp_path: Path) -> None:
    # The package of the embedded server asks for such a folder, and warns if there is none.
    tmp_path.chmod(0o700)
    printed = run("-m", "examples.pgvector", XDG_RUNTIME_DIR=str(tmp_path))
    assert re.findall(r"^(\w+): P@1 (.*)$", printed, re.MULTILINE) == [
        ("before", "0.30"),
        ("after", "0.90"),
    ]
