"""Where and in which numbers torch runs a model: what the settings ask for and this machine has.

Nothing here imports torch before a GPU is asked for, or is known to be there.
"""

from __future__ import annotations

import ctypes
import importlib.util
import re
from dataclasses import dataclass
from enum import StrEnum

from rerank_sidecar.errors import InvalidSetting, MissingExtra
from rerank_sidecar.model_settings import ANY_DEVICE, EngineChoice
from rerank_sidecar.settings import Settings

CPU = "cpu"
CUDA = "cuda"

_ARCHITECTURE = re.compile(r"(?P<kind>sm|compute)_(?P<major>\d+)(?P<minor>\d)[a-z]?")
"""What torch calls the GPUs that it is built for: sm_86, sm_100, sm_90a, compute_120."""

_MULTIPLIES_BF16 = (8, 0)
"""The compute capability, Ampere's, from which a GPU has bfloat16 and flash attention."""


class TorchDtype(StrEnum):
    """In which numbers torch keeps the weights and computes."""

    FLOAT32 = "float32"
    BF16 = "bf16"
    FP16 = "fp16"


@dataclass(frozen=True, slots=True)
class TorchEngine:
    """On which devices torch runs a model, a copy on each, in which numbers, and why."""

    devices: tuple[str, ...]
    dtype: TorchDtype
    reason: str

    @property
    def is_cuda(self) -> bool:
        """Tell whether it runs on GPUs."""
        return self.devices[0] != CPU


_DTYPES = {
    EngineChoice.TORCH_FLOAT32: TorchDtype.FLOAT32,
    EngineChoice.TORCH_BF16: TorchDtype.BF16,
    EngineChoice.TORCH_FP16: TorchDtype.FP16,
}


def choose_torch_engine(settings: Settings) -> TorchEngine | None:
    """Say how torch is to run a model, None where OpenVINO runs it on the CPU.

    Under `engine=auto` torch takes what runs on a GPU, in bfloat16 where the GPU multiplies it.

    Raises:
        InvalidSetting: the GPU is not there, or engine and device do not go together.
        MissingExtra: torch is needed and not installed.
    """
    wanted = wanted_device(settings)
    dtype = _DTYPES.get(settings.engine)
    if dtype is None and settings.engine is not EngineChoice.AUTO:
        if wanted not in {ANY_DEVICE, CPU}:
            raise InvalidSetting(
                f"engine: `{settings.engine.value}` runs on the CPU, but {asked_by(settings)} asks "
                f"for {wanted}"
            )
        return None
    devices = choose_devices(wanted, asked_by(settings))
    if dtype is None:
        return _automatic(devices)
    if devices == (CPU,) and dtype is TorchDtype.FP16:
        raise InvalidSetting("engine: `torch-fp16` is for a GPU; a CPU has `torch-bf16`")
    _require_torch(f"engine {settings.engine.value}")
    return TorchEngine(devices, dtype, f"the setting engine={settings.engine.value}")


def wanted_device(settings: Settings) -> str:
    """Give the device that is asked for: `device`, else `cuda_core` where `enable_cuda` is set."""
    if settings.device == ANY_DEVICE and settings.enable_cuda:
        return settings.cuda_core
    return settings.device


def asked_by(settings: Settings) -> str:
    """Name the setting that asks for `wanted_device`."""
    is_stock = settings.device == ANY_DEVICE and settings.enable_cuda
    return "enable_cuda" if is_stock else "device"


def choose_devices(wanted: str, setting: str = "device") -> tuple[str, ...]:
    """Turn `auto`, `cpu`, `cuda` (all GPUs) or `cuda:N` into torch's names of devices.

    `auto` is all GPUs if there are any and torch is here to use them. `setting` is the one that
    asks, which errors name.

    Raises:
        InvalidSetting: a GPU is asked for that is not there; says why in one sentence.
        MissingExtra: a GPU is asked for, and torch is not installed.
    """
    if wanted == CPU:
        return (CPU,)
    if wanted == ANY_DEVICE:
        if not (_is_torch_here() and _driver_sees_gpu()):
            return (CPU,)
        return _gpus() or (CPU,)
    _require_torch(f"device {wanted}")
    gpus = _gpus()
    if not gpus:
        raise InvalidSetting(f"{setting}: `{wanted}` was asked for, but {_why_no_gpu()}")
    if wanted == CUDA:
        return gpus
    if wanted not in gpus:
        raise InvalidSetting(f"{setting}: torch can use no `{wanted}`, only {', '.join(gpus)}")
    return (wanted,)


def _automatic(devices: tuple[str, ...]) -> TorchEngine | None:
    if devices == (CPU,):
        return None
    if all(multiplies_bf16(each) for each in devices):
        return TorchEngine(devices, TorchDtype.BF16, "this GPU multiplies bfloat16")
    return TorchEngine(devices, TorchDtype.FP16, "this GPU does not multiply bfloat16")


def multiplies_bf16(device: str) -> bool:
    """Tell whether a GPU has bfloat16 arithmetic and, with it, flash attention."""
    import torch

    return torch.cuda.get_device_capability(device) >= _MULTIPLIES_BF16


def _gpus() -> tuple[str, ...]:
    """List the GPUs that the torch that is installed has kernels for; on others it only fails."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    names = (f"{CUDA}:{number}" for number in range(count))
    return tuple(name for name in names if _has_kernels(torch.cuda.get_device_capability(name)))


def _has_kernels(capability: tuple[int, int]) -> bool:
    """Tell whether torch is built for a compute capability.

    Machine code (`sm_86`) runs on its major version from its minor one on, PTX (`compute_90`) is
    compiled for whatever is newer:
    https://docs.nvidia.com/cuda/cuda-compiler-driver-nvcc/#gpu-feature-list
    """
    import torch

    major, minor = capability
    built = [_ARCHITECTURE.fullmatch(each) for each in torch.cuda.get_arch_list()]
    if not any(built):  # not told, or AMD's
        return True
    return any(
        (major, minor) >= (int(each["major"]), int(each["minor"]))
        and (each["kind"] == "compute" or major == int(each["major"]))
        for each in built
        if each is not None
    )


def _why_no_gpu() -> str:
    import torch

    if torch.version.cuda is None:
        return f"the torch that is installed ({torch.__version__}) is built without CUDA"
    if not _driver_sees_gpu():
        return "NVIDIA's driver is missing or shows no GPU to this process"
    if torch.cuda.is_available():
        return f"the torch that is installed ({torch.__version__}) has no kernels for this GPU"
    return f"the driver is too old for CUDA {torch.version.cuda}, which torch is built for"


def _is_torch_here() -> bool:
    return importlib.util.find_spec("torch") is not None


def _require_torch(purpose: str) -> None:
    if not _is_torch_here():
        raise MissingExtra("torch", purpose)


def _driver_sees_gpu() -> bool:
    """Ask NVIDIA's driver itself, which takes no import of torch, for GPUs.

    The two calls are of its "driver API", which keeps them stable:
    https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__INITIALIZE.html
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int(0)
    return (
        driver.cuInit(0) == 0
        and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
        and count.value > 0
    )
