"""What this machine's processor is and which short arithmetic it has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_CPU_INFO = Path("/proc/cpuinfo")

_BFLOAT16 = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
_INT8_DOT_PRODUCTS = frozenset({"avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm"})
_SHORT_ARITHMETIC = (
    *("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16"),
    *("asimddp", "i8mm", "bf16"),
)


@dataclass(frozen=True, slots=True)
class Cpu:
    """A processor's name and those of its abilities that decide which kernel is fastest."""

    name: str
    abilities: tuple[str, ...]

    @property
    def has_bfloat16(self) -> bool:
        """Tell whether it multiplies bfloat16 itself; emulated, that is slower than float32."""
        return not _BFLOAT16.isdisjoint(self.abilities)

    @property
    def is_arm_with_bfloat16(self) -> bool:
        """Tell whether it is an Arm processor that multiplies bfloat16, by Arm's name for it."""
        return "bf16" in self.abilities

    @property
    def adds_int8_products_exactly(self) -> bool:
        """Tell whether sums of int8 products cannot overflow 16 bits, as they can in AVX2."""
        return not _INT8_DOT_PRODUCTS.isdisjoint(self.abilities)

    def __str__(self) -> str:
        return " ".join([self.name, *self.abilities])


def read_cpu(cpu_info: Path = _CPU_INFO) -> Cpu:
    """Read what Linux says of the first core; a system that says nothing has no ability."""
    try:
        lines = cpu_info.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    facts: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        facts.setdefault(name.strip(), value.strip())
    flags = set((facts.get("flags") or facts.get("Features") or "").split())
    return Cpu(
        facts.get("model name", "unknown processor"),
        tuple(ability for ability in _SHORT_ARITHMETIC if ability in flags),
    )
