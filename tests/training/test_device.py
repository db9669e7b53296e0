from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from automl_pt.config import TrainConfig
from automl_pt.core.cores import available_cores, cgroup_quota
from automl_pt.core.errors import ConfigError, DeviceError
from automl_pt.runs.setup import evaluation_batch, set_up
from automl_pt.training.device import (
    choose_device,
    choose_precision,
    default_threads,
    gpu_out_of_reach,
    has_fast_bf16,
    prepare_device,
    synchronise,
)
from automl_pt.training.layout import arrange
from automl_pt.training.rehearsal import rehearse


def test_a_device_that_is_absent_is_an_error_that_lists_what_is_there() -> None:
    with pytest.raises(DeviceError, match=r"'cuda:99'; present: cpu"):
        choose_device("cuda:99")


def test_a_driver_that_pytorch_cannot_use_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    driver = tmp_path / "version"
    assert gpu_out_of_reach(driver) is None  # no driver: no GPU that is out of reach

    def too_old() -> None:
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 11040).\nUpdate it")

    driver.touch()
    monkeypatch.setattr(torch.cuda, "init", too_old)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "driver on your system is too old (found version 11040)." in (gpu_out_of_reach(driver) or "")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert gpu_out_of_reach(driver) is None


def test_a_run_makes_its_gpu_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    device, precision = set_up(TrainConfig(dataset="drawn", device="cuda:1", threads=1))
    assert (device, precision) == (torch.device("cuda", 1), "bf16")
    assert chosen == [device]
    prepare_device(torch.device("cpu"))
    assert chosen == [device]


def test_fp32_on_a_gpu_is_no_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    model = torch.nn.Linear(1, 1)
    monkeypatch.setattr(model, "to", lambda *given, **options: model)
    arrange(model, torch.device("cuda", 0), "fp32")
    assert not torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("mode", ["training", "backward"])
def test_an_operation_without_a_deterministic_form_is_told_before_training(mode: str) -> None:
    class Pools(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, values: torch.Tensor) -> torch.Tensor:
            if mode == "training" and not torch.is_inference_mode_enabled():
                raise RuntimeError(ERROR)
            return values.clone()

        @staticmethod
        def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
            raise RuntimeError(ERROR)

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(3 * 8 * 8, 3)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = Pools.apply(self.layer(images.flatten(1)))
            return logits

    with pytest.raises(ConfigError, match="--deterministic") as caught:
        rehearse(Net(), "pooled", 3, 8, device=torch.device("cpu"), precision="fp32", channels_last=False)
    assert "pooled needs adaptive_avg_pool2d_backward_cuda, which" in str(caught.value)


ERROR = (
    "adaptive_avg_pool2d_backward_cuda does not have a deterministic implementation, but you set "
    "'torch.use_deterministic_algorithms(True)'."
)


def test_the_clock_waits_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    synchronise(torch.device("cpu"))
    synchronise(torch.device("cuda", 1))
    assert waited == [torch.device("cuda", 1)]


def test_auto_always_gives_a_device() -> None:
    assert choose_device("auto").type in ("cpu", "cuda", "mps")
    assert choose_device("cpu") == torch.device("cpu")


def test_auto_precision_on_a_cpu_is_what_pays_there() -> None:
    assert choose_precision("auto", torch.device("cpu")) == ("bf16" if has_fast_bf16() else "fp32")
    assert choose_precision("bf16", torch.device("cpu")) == "bf16"


@pytest.mark.parametrize(
    ("supported", "vendor", "pays"),
    [
        ({"_is_amx_tile_supported"}, "GenuineIntel", True),
        ({"_is_avx512_bf16_supported"}, "GenuineIntel", False),
        ({"_is_avx512_bf16_supported"}, "AuthenticAMD", True),
        ({"_is_avx512_bf16_supported"}, "", False),
        (set(), "AuthenticAMD", False),
    ],
)
def test_where_bfloat16_pays(
    supported: set[str], vendor: str, pays: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda name=name: name in supported, raising=False)
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\nvendor_id\t: {vendor}\nmodel name\t: any\n")
    assert has_fast_bf16(cpuinfo) is pays


def test_a_torch_that_does_not_tell_of_the_cpu_computes_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert choose_precision("auto", torch.device("cpu")) == "fp32"


@pytest.mark.parametrize(("text", "quota"), [("max 100000", None), ("150000 100000", 1.5), ("400000 100000", 4.0)])
def test_cgroup_version_2(tmp_path: Path, text: str, quota: float | None) -> None:
    (tmp_path / "cpu.max").write_text(text)
    assert cgroup_quota(tmp_path) == quota


@pytest.mark.parametrize(("text", "quota"), [("-1", None), ("200000", 2.0)])
def test_cgroup_version_1(tmp_path: Path, text: str, quota: float | None) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(text)
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000")
    assert cgroup_quota(tmp_path) == quota


def test_no_cgroup_means_no_quota(tmp_path: Path) -> None:
    assert cgroup_quota(tmp_path) is None
    assert available_cores() >= 1


@pytest.mark.parametrize(("told", "threads"), [("1", 1), ("junk", None), ("0", None), ("99999", None)])
def test_omp_num_threads_bounds_the_threads(told: str, threads: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", told)
    assert default_threads() == (threads or available_cores())


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system has no figure of this process alone")
def test_the_peak_memory_of_a_process_is_not_that_of_the_one_that_started_it() -> None:
    held = bytearray(b"1") * 2**30
    code = "import torch; from automl_pt.training.device import peak_memory; print(peak_memory(torch.device('cpu')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 2**25 < int(done.stdout) < len(held)


@pytest.mark.parametrize(
    ("kind", "side", "expected"),
    [("cpu", 32, 64), ("cpu", 224, 64), ("cuda", 32, 4096), ("cuda", 64, 2048), ("cuda", 224, 167), ("cuda", 512, 64)],
)
def test_a_gpu_validates_as_many_images_as_fill_it(kind: str, side: int, expected: int) -> None:
    assert evaluation_batch(side, torch.device(kind)) == expected
