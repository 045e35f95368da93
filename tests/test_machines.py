"""Machines by name and by size."""

from __future__ import annotations

import pytest

from multimodel.errors import InvalidParameter
from multimodel.hardware import Device, Hardware
from multimodel.machines import APPLE, GIB, HERE, KNOWN, PLAIN, devices, target

GPU = Device("cuda", "NVIDIA L4", 24 * GIB, 20 * GIB, "bfloat16", "why")
CPU = Device("cpu", "Xeon", 64 * GIB, 50 * GIB, "float32", "why")
HARDWARE = Hardware((GPU, CPU))


def test_this_machine_is_its_devices_with_what_is_free() -> None:
    assert [(key, found.usable) for key, found in devices(HARDWARE).items()] == [
        ("here:0", 20 * GIB),
        ("here:1", 50 * GIB),
    ]
    assert target("", HARDWARE) == target(HERE, HARDWARE) == target("here:0", HARDWARE)
    assert target("here:1", HARDWARE).name == "Xeon"


@pytest.mark.parametrize("name", KNOWN)
def test_every_known_machine_keeps_some_memory_for_itself(name: str) -> None:
    found = target(name, HARDWARE)
    kind = {APPLE: "mps", PLAIN: "cpu"}.get(KNOWN[name].group, "cuda")
    assert (found.name, found.kind, found.total) == (name, kind, KNOWN[name].memory)
    assert 0.6 * found.total < found.usable < found.total


@pytest.mark.parametrize(
    ("typed", "name", "kind", "gib"),
    [
        ("24", "GPU, 24 GB", "cuda", 24),
        ("24 GB", "GPU, 24 GB", "cuda", 24),
        ("0.5gb", "GPU, 0.5 GB", "cuda", 0.5),
        ("64 GB RAM", "PC, 64 GB", "cpu", 64),
        ("M2 Ultra 192 GB", "M2 Ultra", "mps", 192),
        ("my box: 12 GiB", "my box", "cpu", 12),
        ("16 GB Mac", "Mac", "mps", 16),
        ("24gb GPU", "GPU, 24 GB", "cuda", 24),
        ("rtx 3060", "GeForce RTX 3060", "cuda", 12),
        ("4090", "GeForce RTX 4090", "cuda", 24),
        ("h100", "NVIDIA H100", "cuda", 80),
    ],
)
def test_what_is_typed(typed: str, name: str, kind: str, gib: float) -> None:
    found = target(typed, HARDWARE)
    assert (found.name, found.kind, found.total) == (name, kind, gib * GIB)


@pytest.mark.parametrize("typed", ["abacus", "0 GB", "99999 GB", "GB", "-5", "24 GB of cheese"])
def test_what_is_no_machine_is_said_with_what_to_write(typed: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        target(typed, HARDWARE)
    assert "Did you mean" in caught.value.hint or "24 GB" in caught.value.hint
