"""The console script without the `server` extra names the line that installs it."""

import re
import subprocess
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from pathlib import Path

import pytest

from rerank_sidecar.__main__ import SERVER_MODULES

PYPROJECT = Path(__file__).parents[3] / "pyproject.toml"

ONLY_SOME_MODULES = """
import sys
absent = set(sys.argv.pop(1).split(","))
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
from rerank_sidecar.__main__ import main
main()
"""


def _run_without(*modules: str, command: str = "--version") -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-c", ONLY_SOME_MODULES, ",".join(modules), command]
    return subprocess.run(program, capture_output=True, text=True, check=False)


def test_base_install_is_told_what_to_install() -> None:
    ran = _run_without(*SERVER_MODULES)
    assert ran.returncode == 1
    assert "pip install 'rerank-sidecar[server]'" in ran.stderr.splitlines()
    assert "Traceback" not in ran.stderr


def test_one_missing_part_is_told_the_same() -> None:
    ran = _run_without("uvicorn", command="serve")
    assert ran.returncode == 1
    assert "pip install 'rerank-sidecar[server]'" in ran.stderr.splitlines()


def test_other_import_errors_surface() -> None:
    ran = _run_without("asyncio")
    assert ran.returncode != 0
    assert "ModuleNotFoundError: No module named 'asyncio'" in ran.stderr
    assert "pip install" not in ran.stderr


def test_module_can_be_run_too() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "rerank_sidecar", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert re.fullmatch(r"rerank-sidecar \d+\.\d+\S*\n", ran.stdout)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _server_distributions() -> list[str]:
    extras = tomllib.loads(PYPROJECT.read_text("utf-8"))["project"]["optional-dependencies"]
    return [_normal(re.split(r"[\[<>=!~; ]", line)[0]) for line in extras["server"]]


@cache
def _modules_of() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for module, distributions in packages_distributions().items():
        for each in distributions:
            found.setdefault(_normal(each), set()).add(module)
    return found


@pytest.mark.parametrize("distribution", _server_distributions())
def test_each_part_of_the_extra_is_known_by_its_module(distribution: str) -> None:
    assert _modules_of()[distribution] & SERVER_MODULES


def test_no_module_is_named_in_vain() -> None:
    assert [module for module in SERVER_MODULES if find_spec(module) is None] == []
