"""The machine a plan is made for: a device of this one, or another by its name and memory."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..hardware import Device, Kind

APPLE = re.compile(r"\b(apple|mac|macbook|m[1-9])\b", re.IGNORECASE)
GPU = re.compile(
    r"\b(rtx|gtx|geforce|quadro|tesla|nvidia|radeon|rx|gpu|arc|[ahbltv]\d{1,3}s?|gb?\d{3})\b", re.IGNORECASE
)
LARGE_APPLE = 36 << 30  # bytes; from here on the GPU may wire three quarters of the memory, below two thirds
SYSTEM = 1 << 30  # bytes that a system keeps for itself at least


@dataclass(frozen=True, slots=True)
class Target:
    """Where a model is to run. `usable`: bytes it may take there; `total`: all there are."""

    name: str = "this machine"
    kind: Kind = "cpu"
    usable: int = 0
    total: int = 0
    dtype: str = "float32"  # the number format to prefer there
    here: bool = True  # False: another machine


HERE = Target()


def target_of(device: Device | tuple[str, int] | Target) -> Target:
    """The target that a device, or the (name, bytes) of another machine, stands for.

    >>> target_of(("RTX 4090", 24 << 30)).kind, target_of(("Apple M2", 24 << 30)).usable >> 30
    ('cuda', 16)
    """
    if isinstance(device, Target):
        return device
    if isinstance(device, Device):
        return Target(device.name, device.kind, device.free, device.total, device.dtype)
    name, size = device
    return Target(name, kind_of(name), usable(name, size), size, _dtype(kind_of(name)), here=False)


def kind_of(name: str) -> Kind:
    """What sort of memory a machine of that name has; plain main memory where the name tells nothing."""
    if APPLE.search(name):
        return "mps"
    return "cuda" if GPU.search(name) else "cpu"


def usable(name: str, size: int) -> int:
    """Bytes of a machine's memory that a model may take, when nothing else of weight runs.

    Apple: the share that Metal recommends as a working set. GPU: the desktop takes some. Elsewhere: the system does.
    """
    kind = kind_of(name)
    if kind == "mps":
        return size * 3 // 4 if size >= LARGE_APPLE else size * 2 // 3
    keep = max(SYSTEM // 2, size // 32) if kind == "cuda" else max(SYSTEM, size // 8)
    return max(0, size - keep)


def _dtype(kind: Kind) -> str:
    return {"mps": "float16", "cuda": "bfloat16"}.get(kind, "float32")
