"""What the processor can do is read from what Linux says of it."""

from pathlib import Path

import pytest

from rerank_sidecar.models.cpu import Cpu, read_cpu


@pytest.mark.parametrize(
    ("content", "expected", "has_bfloat16"),
    [
        (
            "processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: fpu avx2 avx512f avx512_vnni\n",
            Cpu("Some CPU", ("avx2", "avx512f", "avx512_vnni")),
            False,
        ),
        ("model name: X\nflags: avx512_bf16\n", Cpu("X", ("avx512_bf16",)), True),
        ("processor: 0\nFeatures: fp asimddp bf16\n", None, True),
        ("", Cpu("unknown processor", ()), False),
    ],
)
def test_cpu_info(
    tmp_path: Path, content: str, expected: Cpu | None, *, has_bfloat16: bool
) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(content, encoding="utf-8")
    cpu = read_cpu(path)
    assert expected is None or cpu == expected
    assert cpu.has_bfloat16 is has_bfloat16


def test_a_system_without_the_file(tmp_path: Path) -> None:
    assert read_cpu(tmp_path / "none") == Cpu("unknown processor", ())


def test_a_cpu_in_a_line() -> None:
    assert str(Cpu("Some CPU", ("avx2", "avx512f"))) == "Some CPU avx2 avx512f"
