"""Machines to ask "does it fit?" for: this one's devices, common GPUs, Apple computers, and any size that is typed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches

from .errors import InvalidParameter
from .hardware import Hardware
from .memory import Target, target_of
from .memory.target import kind_of

GIB = 1 << 30
HERE = "here"
SIZE = re.compile(r"(.*?)\b(\d{1,4}(?:\.\d{1,2})?)\s*(?:gb|gib|g)?\s*(?:ram|vram|memory)?$", re.IGNORECASE)
TURNED = re.compile(r"(\d{1,4}(?:\.\d{1,2})?)\s*(?:gb|gib|g)\s+(.+)", re.IGNORECASE)  # the size first
BARE = re.compile(r"\d{1,3}(?:\.\d+)?\s*(?:gb|gib|g)?", re.IGNORECASE)  # a size and nothing else

APPLE = "Apple Silicon"
NVIDIA, CENTRE, AMD = "NVIDIA GeForce and RTX", "Data centre GPUs", "AMD GPUs"
PLAIN = "Processor only"
SIZES: dict[str, tuple[tuple[str, int], ...]] = {  # name and GiB of memory, as the makers state them
    APPLE: tuple((f"Apple Silicon, {gib} GB", gib) for gib in (8, 16, 24, 32, 36, 48, 64, 96, 128, 192, 256, 512)),
    NVIDIA: (
        *(("GeForce GTX 1060", 6), ("GeForce GTX 1080 Ti", 11), ("GeForce RTX 2060", 6), ("GeForce RTX 2080 Ti", 11)),
        *(("GeForce RTX 3060", 12), ("GeForce RTX 3070", 8), ("GeForce RTX 3080", 10), ("GeForce RTX 3090", 24)),
        *(("GeForce RTX 4060", 8), ("GeForce RTX 4060 Ti 16 GB", 16), ("GeForce RTX 4070", 12)),
        *(("GeForce RTX 4070 Ti Super", 16), ("GeForce RTX 4080", 16), ("GeForce RTX 4090", 24)),
        *(("GeForce RTX 5060", 8), ("GeForce RTX 5060 Ti 16 GB", 16), ("GeForce RTX 5070", 12)),
        *(("GeForce RTX 5070 Ti", 16), ("GeForce RTX 5080", 16), ("GeForce RTX 5090", 32)),
        *(("RTX A4000", 16), ("RTX A6000", 48), ("RTX 6000 Ada", 48), ("RTX PRO 6000 Blackwell", 96)),
    ),
    CENTRE: (
        *(("NVIDIA T4", 16), ("NVIDIA V100", 32), ("NVIDIA L4", 24), ("NVIDIA A10", 24), ("NVIDIA L40S", 48)),
        *(("NVIDIA A100 40 GB", 40), ("NVIDIA A100 80 GB", 80), ("NVIDIA H100", 80), ("NVIDIA H200", 141)),
        *(("NVIDIA B200", 180), ("AMD GPU MI300X", 192)),
    ),
    AMD: (
        *(("Radeon RX 6700 XT", 12), ("Radeon RX 6800 XT", 16), ("Radeon RX 7600", 8), ("Radeon RX 7800 XT", 16)),
        *(("Radeon RX 7900 XT", 20), ("Radeon RX 7900 XTX", 24), ("Radeon RX 9070 XT", 16)),
    ),
    PLAIN: tuple((f"PC, {gib} GB of memory", gib) for gib in (4, 8, 16, 32, 64, 128, 256)),
}


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine that can be chosen. `memory` in bytes."""

    key: str
    name: str
    group: str
    memory: int

    @property
    def target(self) -> Target:
        """What a memory plan is made for."""
        return target_of((self.name, self.memory))


KNOWN: dict[str, Machine] = {
    name: Machine(name, name, group, gib * GIB) for group, rows in SIZES.items() for name, gib in rows
}


def devices(hardware: Hardware) -> dict[str, Target]:
    """The devices of this machine by the keys that choose them; the first is the best."""
    return {f"{HERE}:{i}": target_of(device) for i, device in enumerate(hardware.devices)}


def target(key: str, hardware: Hardware) -> Target:
    """What was chosen or typed: a device of this machine, a known machine, or a size. Raises InvalidParameter.

    >>> from .hardware import without_torch
    >>> pc = without_torch("no need")
    >>> [target(text, pc).name for text in ("24 GB", "rtx 4090", "M3 Max, 64 GB")]
    ['GPU, 24 GB', 'GeForce RTX 4090', 'M3 Max']
    """
    here = devices(hardware)
    if key in ("", HERE):
        return next(iter(here.values()))
    if key in here:
        return here[key]
    return (_known(key) or _typed(key)).target


def _known(text: str) -> Machine | None:
    """The machine of that name, or the only one whose name holds all the words."""
    if text in KNOWN:
        return KNOWN[text]
    words = text.lower().split()
    if BARE.fullmatch(text.strip()) or not any(any(c.isdigit() for c in word) for word in words):
        return None
    found = [machine for name, machine in KNOWN.items() if all(word in name.lower().split() for word in words)]
    return min(found, key=lambda machine: len(machine.name), default=None)


def _typed(text: str) -> Machine:
    """A size, with a name before it, or that of a GPU or an Apple computer after it; without a name, of a GPU."""
    if (turned := TURNED.fullmatch(text.strip())) and kind_of(turned[2]) != "cpu":
        text = f"{turned[2]}, {turned[1]} GB"
    found = SIZE.fullmatch(text.strip())
    gib = float(found[2]) if found else 0
    before = found[1].strip(" ,:") if found else ""
    if not found or not 0.25 <= gib <= 4096 or (before and not any(c.isalpha() for c in before)):
        near = get_close_matches(text, KNOWN, n=2, cutoff=0.4)
        hint = f"Did you mean {' or '.join(near)}?" if near else "Write a size such as 24 GB, or 64 GB RAM."
        raise InvalidParameter(f"{text!r} is no machine that is known, and no size.", hint=hint)
    name = before or ("PC" if text.lower().rstrip().endswith(("ram", "memory")) else "GPU")
    label = f"{name}, {gib:g} GB" if name in ("PC", "GPU") else name
    return Machine(text, label, "Typed", int(gib * GIB))
