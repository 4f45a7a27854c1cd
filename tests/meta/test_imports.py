"""Imports point down only, and an application needs no more than the base install."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SERVER = ROOT / "sidecar" / "rerank_sidecar"
ADAPTERS = ROOT / "adapters" / "rerank_adapters"

LEAVES = {
    "access_settings",
    "errors",
    "json_text",
    "model_settings",
    "score_kinds",
    "settings",
    "telemetry",
    "third_party",
    "types",
    "v1",
}
FLOORS = {
    "__main__": 0,
    "cli": 1,
    "in_process": 0,
    "engine_thread": 1,
    "app": 2,
    "load": 2,
    "api": 3,
    "loading": 3,
    "evaluation": 3,
    "engine": 4,
    "rerankers": 5,
    "batching": 6,
    "backends": 7,
    "models": 8,
}


def _modules(package: Path) -> list[Path]:
    return sorted(path for path in package.rglob("*.py") if "_pb2" not in path.name)


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _rooms_imported(path: Path) -> set[str]:
    parts = (name.split(".") for name in _imported(path))
    rooms = {part[1] for part in parts if part[0] == "rerank_sidecar" and len(part) > 1}
    return rooms & (LEAVES | set(FLOORS))


def _room(path: Path) -> str:
    return path.relative_to(SERVER).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", _modules(SERVER), ids=lambda path: str(path.relative_to(SERVER)))
def test_imports_point_down(path: Path) -> None:
    room = _room(path)
    if room == "__init__":
        assert not _rooms_imported(path)
        return
    assert room in LEAVES | set(FLOORS), f"{room} has no floor: add it to the house"
    imported = _rooms_imported(path) - {room}
    if room in LEAVES:
        assert imported <= LEAVES
    else:
        upward = {other for other in imported - LEAVES if FLOORS[other] <= FLOORS[room]}
        assert not upward, f"{path} reaches up or sideways to {upward}"


@pytest.mark.parametrize("path", _modules(ADAPTERS), ids=lambda path: path.stem)
def test_adapters_know_only_the_contract(path: Path) -> None:
    ours = {name for name in _imported(path) if name.split(".")[0] == "rerank_sidecar"}
    assert all(name.startswith("rerank_sidecar.v1") for name in ours), ours


def test_the_base_install_is_all_that_an_application_needs() -> None:
    program = """
import sys
allowed = {"grpc", "google", "cygrpc", "typing_extensions", "rerank_sidecar", "rerank_adapters"}
class OnlyTheBase:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in allowed and top not in sys.stdlib_module_names and not top.startswith("_"):
            raise ModuleNotFoundError(f"{name} is not in the base install", name=name)
sys.meta_path.insert(0, OnlyTheBase())
import rerank_adapters, rerank_sidecar.v1.rerank_pb2_grpc, rerank_sidecar.types
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr


def test_contributors_are_shown_the_same_house() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    house = page.split("## The house")[1].split("```")
    floors = [re.split(r"  +", line)[0].split(", ") for line in house[1].strip().splitlines()]
    assert [set(names) for names in floors] == [
        {name for name, floor in FLOORS.items() if floor == at} for at in range(len(floors))
    ]
    assert sum(map(len, floors)) == len(FLOORS)
    assert set(re.findall(r"`(\w+)`", house[2].split(" are leaves")[0])) == LEAVES


def test_files_stay_short() -> None:
    long = {
        str(path.relative_to(ROOT)): count
        for path in (*_modules(SERVER), *_modules(ADAPTERS))
        if (count := len(path.read_text("utf-8").splitlines())) > 300
    }
    assert not long
