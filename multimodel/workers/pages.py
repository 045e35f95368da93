"""Large pages of memory for weights: fewer addresses to look up, so a token needs less time.

Weights are read whole for every token, far more than the processor's table of addresses covers in pages of 4 kB. Linux
gives pages of 2 MB to a program that asks for them, but not to a mapped file. Measured with llama.cpp and 85M
parameters at one thread, over the mapped file: Q8_0 4 to 12 per cent less time a token, F16 8 to 16.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ..settings import child_environment

ASKS = "glibc.malloc.hugetlb=1"  # malloc asks for large pages; read once, when a process starts
SINCE = (2, 35)  # of glibc
ENABLED = Path("/sys/kernel/mm/transparent_hugepage/enabled")
ROOM = 2.0  # times the weights that have to be free: mapped ones can leave memory when it gets short, these cannot


def environment() -> dict[str, str]:
    """The variables of a process whose memory shall come in large pages, where the system has them."""
    if sys.platform != "linux":
        return {}
    known = child_environment().get("GLIBC_TUNABLES")
    return {"GLIBC_TUNABLES": f"{known}:{ASKS}" if known else ASKS}


def worth_copying(size: int, free: int) -> bool:
    """Whether weights of `size` bytes are better read into memory than mapped, with `free` bytes there.

    >>> worth_copying(3 << 30, free=4 << 30)
    False
    """
    return ROOM * size <= free and _given()


def _given() -> bool:
    """Whether this process gets large pages for what it allocates."""
    if sys.platform != "linux" or ASKS not in child_environment().get("GLIBC_TUNABLES", "").split(":"):
        return False
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
        new = name == "glibc" and tuple(map(int, version.split("."))) >= SINCE
        return new and "[never]" not in ENABLED.read_text(encoding="ascii")
    except (OSError, ValueError):  # another C library, or a kernel without them
        return False
