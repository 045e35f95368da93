"""Limits of a container are the limits; a machine where torch fails is still described."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from multimodel import hardware

from .support import needs

GIB = 1 << 30


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """64 GiB, 40 of them available, eight cores."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=64 * GIB, available=40 * GIB))
    monkeypatch.setattr(hardware.os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)


@pytest.mark.usefixtures("machine")
def test_without_limits_the_machine_is_the_limit(tmp_path: Path) -> None:
    put(tmp_path / "memory.max", "max\n")
    put(tmp_path / "cpu.max", "max 100000\n")
    assert hardware.memory(tmp_path) == hardware.Memory(64 * GIB, 40 * GIB)
    assert hardware.cores(tmp_path) == 8


@pytest.mark.usefixtures("machine")
def test_version_2_limits(tmp_path: Path) -> None:
    put(tmp_path / "memory.max", str(8 * GIB))
    put(tmp_path / "memory.current", str(7 * GIB))
    put(tmp_path / "memory.stat", f"anon 1\ninactive_file {2 * GIB}\n")
    put(tmp_path / "cpu.max", "150000 100000\n")
    assert hardware.memory(tmp_path) == hardware.Memory(8 * GIB, 3 * GIB)  # cached pages can be dropped at once
    assert hardware.cores(tmp_path) == 2


@pytest.mark.usefixtures("machine")
def test_version_1_limits(tmp_path: Path) -> None:
    put(tmp_path / "memory" / "memory.limit_in_bytes", str(4 * GIB))
    put(tmp_path / "memory" / "memory.usage_in_bytes", str(1 * GIB))
    put(tmp_path / "cpu" / "cpu.cfs_quota_us", "300000")
    put(tmp_path / "cpu" / "cpu.cfs_period_us", "100000")
    assert hardware.memory(tmp_path) == hardware.Memory(4 * GIB, 3 * GIB)
    assert hardware.cores(tmp_path) == 3


@pytest.mark.usefixtures("machine")
def test_version_1_without_a_limit_writes_a_huge_number(tmp_path: Path) -> None:
    put(tmp_path / "memory" / "memory.limit_in_bytes", "9223372036854771712")
    put(tmp_path / "memory" / "memory.usage_in_bytes", "1")
    put(tmp_path / "cpu" / "cpu.cfs_quota_us", "-1")
    put(tmp_path / "cpu" / "cpu.cfs_period_us", "100000")
    assert hardware.memory(tmp_path).total == 64 * GIB
    assert hardware.cores(tmp_path) == 8


@pytest.mark.usefixtures("machine")
def test_a_limit_above_ours_in_the_tree_binds_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = Path.read_text
    monkeypatch.setattr(
        Path, "read_text", lambda p, *a: "0::/box/inner\n" if str(p) == "/proc/self/cgroup" else own(p, *a)
    )
    put(tmp_path / "box" / "memory.max", str(2 * GIB))
    put(tmp_path / "box" / "memory.current", str(GIB))
    put(tmp_path / "box" / "inner" / "memory.max", "max")
    assert hardware.memory(tmp_path) == hardware.Memory(2 * GIB, GIB)


def test_the_probe_runs_in_a_process_of_its_own_and_says_why() -> None:
    pytest.importorskip("torch")
    found = hardware.probe()
    assert found.devices[-1].kind == "cpu"
    assert all(d.reason.startswith(f"{d.dtype}: ") for d in found.devices)
    assert "looking for a GPU" not in found.devices[-1].reason
    assert 0 < found.best.free <= found.best.total


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        (subprocess.TimeoutExpired("x", 60), "took longer than 60 s"),
        (subprocess.CalledProcessError(1, "x", stderr="Traceback\nImportError: no torch"), "ImportError: no torch"),
        (subprocess.CalledProcessError(-11, "x", stderr=""), "exit code -11"),
        (FileNotFoundError("no python"), "no python"),
        (subprocess.CompletedProcess("x", 0, stdout="nonsense"), "failed"),
    ],
)
def test_a_failed_probe_still_describes_the_processor(outcome: Any, reason: str) -> None:
    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome  # type: ignore[no-any-return]

    found = hardware.probe(run=run)
    assert [d.kind for d in found.devices] == ["cpu"]
    assert reason in found.best.reason


def processor(*, amx: bool = False, avx512: bool = False) -> SimpleNamespace:
    """What torch tells of a processor that multiplies bfloat16 in one way or the other, or not."""
    return SimpleNamespace(_is_amx_tile_supported=lambda: amx, _is_avx512_bf16_supported=lambda: avx512)


def fake_torch(**parts: Any) -> SimpleNamespace:
    """As much of torch as `detect` asks: a machine without any accelerator, unless `parts` say otherwise."""
    nothing: dict[str, Any] = {
        "backends": SimpleNamespace(mps=SimpleNamespace(is_available=lambda: False)),
        "cuda": SimpleNamespace(is_available=lambda: False),
        "cpu": processor(),
    }
    return SimpleNamespace(**{**nothing, **parts})


@pytest.mark.parametrize(
    ("capability", "reason"),
    [
        ((9, 0), "bfloat16: CUDA SM 9.0"),
        ((7, 5), "float16: CUDA SM 7.5, older than bfloat16"),
        ((5, 2), "float32: CUDA SM 5.2, older than bfloat16"),
    ],
)
def test_cuda_comes_before_the_processor(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], reason: str
) -> None:
    cuda = SimpleNamespace(
        is_available=lambda: True,
        device_count=lambda: 1,
        mem_get_info=lambda i: (60 * GIB, 80 * GIB),
        get_device_capability=lambda i: capability,
        get_device_name=lambda i: "GPU",
    )
    monkeypatch.setitem(sys.modules, "torch", fake_torch(cuda=cuda))
    found = hardware.detect()
    assert [d.kind for d in found.devices] == ["cuda", "cpu"]
    assert (found.best.total, found.best.free, found.best.reason) == (80 * GIB, 60 * GIB, reason)
    assert found.of("cpu") == found.devices[1] and found.of("auto") == found.best and found.of("mps") is None


@pytest.mark.parametrize(
    ("cpu", "dtype", "word"),
    [
        (processor(amx=True, avx512=True), "bfloat16", "(AMX)"),
        (processor(avx512=True), "bfloat16", "(AVX-512)"),
        (processor(), "float32", "no shorter format is known to be quicker"),
    ],
)
def test_a_processor_that_multiplies_bfloat16_prefers_it(
    monkeypatch: pytest.MonkeyPatch, cpu: Any, dtype: str, word: str
) -> None:
    monkeypatch.setitem(sys.modules, "torch", fake_torch(cpu=cpu))
    best = hardware.detect().best
    assert best.dtype == dtype and best.reason.startswith(dtype) and word in best.reason


@needs("torch")
def test_without_a_gpu_the_same_is_known_at_once() -> None:
    """The kernel's flags and torch agree on this processor."""
    at_once, asked = hardware.without_gpu().best, hardware.detect().of("cpu")
    assert asked and (at_once.dtype, at_once.reason) == (asked.dtype, asked.reason)


@pytest.mark.usefixtures("machine")
def test_an_apple_gpu_shares_the_main_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    available = SimpleNamespace(mps=SimpleNamespace(is_available=lambda: True))
    mps = SimpleNamespace(recommended_max_memory=lambda: 48 * GIB)
    monkeypatch.setitem(sys.modules, "torch", fake_torch(backends=available, mps=mps))
    best = hardware.detect().best
    assert (best.kind, best.total) == ("mps", 48 * GIB) and best.free <= 40 * GIB
