"""What this machine has: devices, memory, cores, and the number format that suits each, with the reason.

`memory()` and `cores()` answer at once. `detect()` imports torch, which takes seconds and memory, so the app asks
`probe()`, which runs `main` in a process of its own.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Container, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.util import find_spec
from math import ceil
from pathlib import Path
from typing import Any, Literal

import psutil

Kind = Literal["mps", "cuda", "cpu"]
CGROUP = Path("/sys/fs/cgroup")
GPU_DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # of NVIDIA, AMD, and either under WSL
BFLOAT16 = {"amx_tile": "AMX", "avx512_bf16": "AVX-512"}  # a processor's flag: the instructions that multiply it
LLAMA_BACKENDS = ("ggml-cuda", "ggml-metal", "ggml-hip", "ggml-vulkan", "ggml-sycl")
UNLIMITED = 1 << 60  # cgroup v1 writes "no limit" as a number near 2**63


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of main memory this process may use."""

    total: int
    free: int


@dataclass(frozen=True, slots=True)
class Device:
    """One place where a model can run. Memory in bytes."""

    kind: Kind
    name: str
    total: int
    free: int
    dtype: str  # the number format to prefer here: float32, bfloat16 or float16
    reason: str  # why


@dataclass(frozen=True, slots=True)
class Hardware:
    """The devices of this machine, the best first."""

    devices: tuple[Device, ...]

    @property
    def best(self) -> Device:
        return self.devices[0]

    def of(self, kind: str) -> Device | None:
        """The first device of that kind; "auto" is the best one."""
        return next((d for d in self.devices if kind in ("auto", d.kind)), None)


def memory(root: Path = CGROUP) -> Memory:
    """Main memory: the machine's, or the container's where that is less."""
    machine = psutil.virtual_memory()
    total, free = int(machine.total), int(machine.available)
    for limit, used in _memory_limits(root):
        if limit < total:
            total, free = limit, min(free, max(0, limit - used))
    return Memory(total, free)


def cores(root: Path = CGROUP) -> int:
    """How many processor cores this process may keep busy, at least one."""
    try:
        usable = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        usable = os.cpu_count() or 1
    return max(1, min([usable, *_core_limits(root)]))


def _groups(root: Path) -> Iterator[tuple[Path, str]]:
    """Every cgroup this process is in, with its controllers, from its own up to the root; a limit above also binds."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    for line in [*lines, "0::/", ":memory:/", ":cpu,cpuacct:/"]:  # in a container the path shown may not exist
        _, controllers, path = line.split(":", 2)
        base = root if not controllers else next((root / c for c in [controllers, *controllers.split(",")]), root)
        here = base / path.strip("/")
        for folder in [here, *here.parents]:
            if folder.is_relative_to(base):
                yield folder, controllers


def _memory_limits(root: Path) -> Iterator[tuple[int, int]]:
    """(limit, used) in bytes; what the kernel can drop at once, cached file pages, is not counted as used."""
    for folder, controllers in _groups(root):
        v2 = not controllers
        if not v2 and "memory" not in controllers.split(","):
            continue
        limit = _number(folder / ("memory.max" if v2 else "memory.limit_in_bytes"))
        used = _number(folder / ("memory.current" if v2 else "memory.usage_in_bytes"))
        if limit is not None and limit < UNLIMITED and used is not None:
            yield limit, max(0, used - _droppable(folder / "memory.stat"))


def _droppable(stat: Path) -> int:
    try:
        rows = dict(line.split() for line in stat.read_text().splitlines())
    except (OSError, ValueError):
        return 0
    return int(rows.get("total_inactive_file", rows.get("inactive_file", 0)))


def _core_limits(root: Path) -> Iterator[int]:
    for folder, controllers in _groups(root):
        if not controllers:
            quota, period = _pair(folder / "cpu.max")
        elif "cpu" in controllers.split(","):
            quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
        else:
            continue
        if quota is not None and period and quota > 0:
            yield ceil(quota / period)


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # no such file, or the word "max"
        return None


def _pair(path: Path) -> tuple[int | None, int | None]:
    try:
        quota, period = path.read_text().split()
        return int(quota), int(period)
    except (OSError, ValueError):
        return None, None


def gpu_possible() -> bool:
    """Whether torch might find a GPU here. Known at once: looking for one takes seconds."""
    if platform.system() == "Linux":
        return any(map(os.path.exists, GPU_DRIVERS))
    return platform.system() != "Darwin" or platform.machine() == "arm64"


@lru_cache(maxsize=1)
def llama_on_gpu() -> bool:
    """Whether llama.cpp is built with a GPU backend here; seen by the libraries beside it."""
    spec = find_spec("llama_cpp")
    folder = Path(spec.origin).parent / "lib" if spec and spec.origin else None
    names = [path.name for path in folder.iterdir()] if folder and folder.is_dir() else []
    return any(backend in name for name in names for backend in LLAMA_BACKENDS)


def detect() -> Hardware:
    """The devices torch can use: MPS, then CUDA, then the processor. Imports torch."""
    import torch

    has = {"amx_tile": torch.cpu._is_amx_tile_supported(), "avx512_bf16": torch.cpu._is_avx512_bf16_supported()}
    return Hardware((*_mps(torch), *_cuda(torch), _cpu({flag for flag, there in has.items() if there})))


def _mps(torch: Any) -> Iterator[Device]:
    if torch.backends.mps.is_available():
        main = memory()  # the same chips serve processor and GPU
        total = min(main.total, int(torch.mps.recommended_max_memory()))
        yield Device("mps", "Apple GPU", total, min(main.free, total), "float16", "float16: Apple GPU, shared memory")


def _cuda(torch: Any) -> Iterator[Device]:
    if not torch.cuda.is_available():
        return
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        major, minor = torch.cuda.get_device_capability(index)
        dtype = "bfloat16" if major >= 8 else "float16" if major >= 6 else "float32"
        why = "" if major >= 8 else ", older than bfloat16"
        yield Device(
            "cuda", torch.cuda.get_device_name(index), total, free, dtype, f"{dtype}: CUDA SM {major}.{minor}{why}"
        )


def _cpu(flags: Container[str]) -> Device:
    main = memory()
    if by := next((name for flag, name in BFLOAT16.items() if flag in flags), ""):
        dtype, reason = "bfloat16", f"bfloat16: the processor multiplies it in hardware ({by}), not for tiny models"
    else:
        dtype, reason = "float32", "float32: no shorter format is known to be quicker on this processor"
    return Device("cpu", _processor(), main.total, main.free, dtype, reason)


def _processor() -> str:
    """The processor's own name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{next(names, 'Processor')}, {(count := cores())} core{'s' * (count > 1)}"


def without_torch(reason: str) -> Hardware:
    """The processor alone, with the reason why no more is known."""
    main = memory()
    return Hardware((Device("cpu", _processor(), main.total, main.free, "float32", f"float32: {reason}"),))


def without_gpu() -> Hardware:
    """The processor alone, as `detect` finds it where there is no GPU, but at once."""
    try:
        flags = re.search(r"^flags.*", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        flags = None
    return Hardware((_cpu(flags[0].split() if flags else ()),))


Run = Callable[..., subprocess.CompletedProcess[str]]


def probe(seconds: float = 60.0, run: Run = subprocess.run) -> Hardware:
    """What `detect` finds, asked in a process of its own; the processor alone where that fails."""
    try:
        done = run(
            [sys.executable, "-c", "from multimodel.hardware import main; main()"],
            capture_output=True,
            text=True,
            timeout=seconds,
            cwd=Path(__file__).parents[1],
            check=True,
        )
        return from_json(done.stdout)
    except subprocess.TimeoutExpired:
        return without_torch(f"looking for a GPU took longer than {seconds:g} s")
    except subprocess.CalledProcessError as error:
        last = (error.stderr or "").strip().splitlines()[-1:] or [f"exit code {error.returncode}"]
        return without_torch(f"looking for a GPU failed ({last[0]})")
    except (OSError, ValueError, TypeError, KeyError) as error:
        return without_torch(f"looking for a GPU failed ({error})")


def from_json(text: str) -> Hardware:
    """What `main` printed. Raises ValueError, TypeError or KeyError."""
    return Hardware(tuple(Device(**device) for device in json.loads(text)["devices"]))


def main() -> None:
    """Print what `detect` finds, as JSON."""
    sys.stdout.write(json.dumps(asdict(detect())))
