"""The checked-in code is what the pinned generator makes of the contract, and buf is content."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHECKED_IN = ROOT / "sidecar" / "rerank_sidecar" / "v1"
GENERATED = tuple(
    f"{contract}_pb2{ending}"
    for contract in ("admin", "rerank")
    for ending in (".py", ".pyi", "_grpc.py", "_grpc.pyi")
)


def _run(*command: str) -> None:
    """Run a tool of the environment that runs the tests, whichever one the shell would find."""
    tools = Path(sys.executable).parent
    path = f"{tools}:/usr/local/bin:/usr/bin:/bin"
    ran = subprocess.run(
        command, cwd=ROOT, env={"PATH": path}, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("proto")
    _run("make", "proto-generate", f"PROTO_OUT={out}")
    return out / "rerank_sidecar" / "v1"


def test_the_generator_is_the_pinned_one() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    constraints = (ROOT / "tests" / "constraints.txt").read_text("utf-8").splitlines()
    for tool in ("grpcio-tools", "mypy-protobuf"):
        pin = f"{tool}=={version(tool)}"
        assert pin in makefile, f"install the tools that the Makefile names, not {pin}"
        assert pin in constraints


@pytest.mark.parametrize("name", GENERATED)
def test_generated_code_is_fresh(fresh: Path, name: str) -> None:
    made, kept = ((folder / name).read_text("utf-8") for folder in (fresh, CHECKED_IN))
    assert made == kept, "run `make proto` and commit the result"


def test_nothing_else_is_kept_among_generated_code(fresh: Path) -> None:
    kept = {path.name for path in CHECKED_IN.iterdir() if path.is_file()}
    assert (
        kept
        == {path.name for path in fresh.iterdir()} | {"__init__.py"}
        == {
            *GENERATED,
            "__init__.py",
        }
    )


def test_the_package_admits_what_the_generated_code_needs_and_no_less() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    grpc_version = re.search(
        r"GRPC_GENERATED_VERSION = '(\d+\.\d+)", (CHECKED_IN / "rerank_pb2_grpc.py").read_text()
    )
    protobuf_version = re.search(
        r"Protobuf Python Version: (\S+)", (CHECKED_IN / "rerank_pb2.py").read_text()
    )
    assert grpc_version
    assert protobuf_version
    floors = [requirement.split(",")[0] for requirement in project["dependencies"]]
    assert f"grpcio>={grpc_version[1]}" in floors
    assert f"protobuf>={protobuf_version[1]}" in floors


def test_buf_finds_nothing_to_complain_about() -> None:
    _run("buf", "lint")
