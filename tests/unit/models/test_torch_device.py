"""Which device and which numbers: what is asked for, what is there, and one sentence if not."""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import ModuleSpec
from typing import Any

import pytest
import torch

from rerank_sidecar.errors import InvalidSetting, MissingExtra
from rerank_sidecar.model_settings import ModelTable
from rerank_sidecar.models.torch_device import (
    TorchDtype,
    TorchEngine,
    choose_devices,
    choose_torch_engine,
    wanted_device,
)
from rerank_sidecar.settings import EngineChoice, read_settings


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two GPUs of Ampere's kind, as far as torch and the driver tell."""
    monkeypatch.setattr("rerank_sidecar.models.torch_device._driver_sees_gpu", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (8, 6))
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_80", "sm_90"])


@pytest.fixture
def no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec

    def without_torch(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name == "torch" else find(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", without_torch)
    monkeypatch.setitem(sys.modules, "torch", None)


def engine_of(**settings: Any) -> TorchEngine | None:
    return choose_torch_engine(read_settings(**settings))


@pytest.mark.usefixtures("no_gpu")
class TestWithoutGpu:
    @pytest.mark.parametrize("device", ["auto", "cpu"])
    def test_openvino_runs_on_the_cpu(self, device: str) -> None:
        assert engine_of(device=device) is None

    @pytest.mark.parametrize("device", ["cuda", "cuda:3"])
    def test_a_gpu_that_is_asked_for_is_missed_in_one_sentence(self, device: str) -> None:
        with pytest.raises(InvalidSetting) as caught:
            engine_of(device=device)
        message = caught.value.message
        assert message.startswith(f"device: `{device}` was asked for, but ")
        assert "\n" not in message

    def test_enable_cuda_asks_for_the_gpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ENABLE_CUDA", "1")
        monkeypatch.setenv("CUDA_CORE", "cuda:1")
        assert wanted_device(read_settings()) == "cuda:1"
        with pytest.raises(InvalidSetting, match="`cuda:1` was asked for"):
            engine_of()
        assert engine_of(device="cpu") is None

    def test_torch_runs_on_the_cpu_if_it_is_asked_to(self) -> None:
        engine = engine_of(engine=EngineChoice.TORCH_BF16)
        assert engine is not None
        assert (engine.devices, engine.dtype, engine.is_cuda) == (("cpu",), TorchDtype.BF16, False)

    def test_half_precision_that_a_cpu_has_not_is_refused(self) -> None:
        with pytest.raises(InvalidSetting, match="torch-fp16"):
            engine_of(engine=EngineChoice.TORCH_FP16)


@pytest.mark.usefixtures("gpus")
class TestWithGpus:
    @pytest.mark.parametrize(
        ("device", "devices"),
        [("auto", ("cuda:0", "cuda:1")), ("cuda", ("cuda:0", "cuda:1")), ("cuda:1", ("cuda:1",))],
    )
    def test_torch_runs_on_them_in_bfloat16(self, device: str, devices: tuple[str, ...]) -> None:
        engine = engine_of(device=device)
        assert engine is not None
        assert (engine.devices, engine.dtype, engine.is_cuda) == (devices, TorchDtype.BF16, True)

    def test_an_older_gpu_gets_float16(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (7, 5))
        engine = engine_of()
        assert engine is not None
        assert engine.dtype is TorchDtype.FP16

    def test_a_gpu_that_torch_is_not_built_for_is_left_alone(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        of_each = {"cuda:0": (7, 0), "cuda:1": (8, 6)}
        monkeypatch.setattr(torch.cuda, "get_device_capability", of_each.__getitem__)
        assert choose_devices("auto") == choose_devices("cuda") == ("cuda:1",)
        with pytest.raises(InvalidSetting, match="torch can use no `cuda:0`, only cuda:1"):
            choose_devices("cuda:0")
        of_each["cuda:1"] = (7, 0)
        monkeypatch.setattr(torch.version, "cuda", "13.0")
        assert engine_of() is None
        with pytest.raises(InvalidSetting, match="has no kernels for this GPU"):
            choose_devices("cuda")

    @pytest.mark.parametrize(
        ("capability", "built", "runs"),
        [
            ((8, 9), ["sm_80"], True),
            ((8, 0), ["sm_86"], False),
            ((9, 0), ["sm_80", "sm_90a"], True),
            ((12, 1), ["sm_90", "compute_90"], True),
            ((10, 3), ["sm_90", "sm_120"], False),
            ((9, 0), ["gfx90a"], True),
            ((7, 0), [], True),
        ],
    )
    def test_which_gpus_torch_is_built_for(
        self,
        monkeypatch: pytest.MonkeyPatch,
        capability: tuple[int, int],
        built: list[str],
        runs: bool,
    ) -> None:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: built)
        assert choose_devices("auto") == (("cuda:0", "cuda:1") if runs else ("cpu",))

    def test_the_engine_may_say_otherwise(self) -> None:
        engine = engine_of(engine=EngineChoice.TORCH_FLOAT32)
        assert engine is not None
        assert (engine.devices, engine.dtype) == (("cuda:0", "cuda:1"), TorchDtype.FLOAT32)

    def test_a_number_too_high_is_refused(self) -> None:
        with pytest.raises(InvalidSetting, match="torch can use no `cuda:2`, only cuda:0, cuda:1"):
            choose_devices("cuda:2")

    def test_openvino_stays_on_the_cpu(self) -> None:
        assert engine_of(engine=EngineChoice.OPENVINO_INT8) is None
        with pytest.raises(InvalidSetting, match="`openvino-int8` runs on the CPU"):
            engine_of(engine=EngineChoice.OPENVINO_INT8, device="cuda")

    def test_what_asks_for_the_gpu_is_named(self) -> None:
        with pytest.raises(InvalidSetting, match=r"^enable_cuda: torch can use no `cuda:7`"):
            engine_of(enable_cuda=True, cuda_core="cuda:7")
        with pytest.raises(InvalidSetting, match="but enable_cuda asks for cuda:0"):
            engine_of(enable_cuda=True, engine=EngineChoice.ONNXRUNTIME_INT8)
        with pytest.raises(InvalidSetting, match=r"^cuda_core: "):
            read_settings(cuda_core="gpu7")

    def test_a_table_may_have_a_device_of_its_own(self) -> None:
        settings = read_settings().of_model(ModelTable(name="m", source="s", device="cuda:1"))
        assert wanted_device(settings) == "cuda:1"


@pytest.mark.usefixtures("no_torch")
class TestWithoutTorch:
    def test_nothing_is_asked_of_it(self) -> None:
        assert engine_of() is None

    @pytest.mark.parametrize(
        "settings", [{"device": "cuda"}, {"engine": EngineChoice.TORCH_FLOAT32, "device": "cpu"}]
    )
    def test_it_is_named_where_it_is_needed(self, settings: dict[str, Any]) -> None:
        with pytest.raises(MissingExtra, match=r"pip install 'rerank-sidecar\[torch\]'"):
            engine_of(**settings)


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "CPU", "cuda:0,cuda:1"])
def test_other_devices_are_refused(device: str) -> None:
    with pytest.raises(InvalidSetting, match="device"):
        read_settings(device=device)
