"""Other people's messages: fresh from our descriptions, and out of the way of their own clients."""

import subprocess
import sys
from pathlib import Path

import pytest

from rerank_sidecar.third_party import kserve_pb2, tei_pb2

ROOT = Path(__file__).parents[2]
CHECKED_IN = ROOT / "sidecar" / "rerank_sidecar" / "third_party"
GENERATED = ("descriptors.bin", "kserve_pb2.pyi", "tei_pb2.pyi")


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("proto")
    path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
    ran = subprocess.run(
        ["make", "proto-generate", f"PROTO_OUT={out}"],
        cwd=ROOT,
        env={"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return out / "rerank_sidecar" / "third_party"


@pytest.mark.parametrize("name", GENERATED)
def test_generated_files_are_fresh(fresh: Path, name: str) -> None:
    made, kept = ((folder / name).read_bytes() for folder in (fresh, CHECKED_IN))
    assert made == kept, "run `make proto` and commit the result"


def test_nothing_else_is_generated(fresh: Path) -> None:
    assert {path.name for path in fresh.iterdir()} == set(GENERATED)


@pytest.mark.parametrize("module", [kserve_pb2, tei_pb2])
def test_every_message_and_enum_has_its_name_in_the_module(module: object) -> None:
    file = module.DESCRIPTOR  # type: ignore[attr-defined]
    for name in (*file.message_types_by_name, *file.enum_types_by_name):
        assert getattr(module, name).DESCRIPTOR.full_name == f"{file.package}.{name}"


def test_a_client_can_register_the_same_names_in_the_same_process() -> None:
    program = """
from google.protobuf import descriptor_pb2, descriptor_pool
from rerank_sidecar.third_party import kserve_pb2, tei_pb2
for ours in (kserve_pb2, tei_pb2):
    file = descriptor_pb2.FileDescriptorProto(name=ours.DESCRIPTOR.name, syntax="proto3")
    file.package = ours.DESCRIPTOR.package
    for name in ours.DESCRIPTOR.message_types_by_name:
        file.message_type.add(name=name)  # without a field: nothing like ours
    descriptor_pool.Default().Add(file)
    pool = descriptor_pool.Default()
    theirs = pool.FindMessageTypeByName(f"{file.package}.{file.message_type[0].name}")
    assert theirs is not None and not theirs.fields
assert kserve_pb2.ModelInferRequest(id="a").id == "a"
assert tei_pb2.RerankRequest(query="a").query == "a"
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
