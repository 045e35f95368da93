"""Weights in large pages: asked for in the child's environment, and only where there is room for both copies."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from multimodel.types import LoadOptions
from multimodel.workers import pages
from multimodel.workers.client import Worker

from ..support import GUIDE_GGUF, needs

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="large pages are asked for on Linux only")


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A system that gives large pages to who asks, and a process that asks."""
    switch = tmp_path / "enabled"
    switch.write_text("always [madvise] never")
    monkeypatch.setattr(pages, "ENABLED", switch)
    monkeypatch.setenv("GLIBC_TUNABLES", pages.ASKS)
    monkeypatch.setattr(pages.os, "confstr", lambda name: "glibc 2.36")
    return switch


def test_what_was_set_before_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.check=3")
    assert pages.environment() == {"GLIBC_TUNABLES": f"glibc.malloc.check=3:{pages.ASKS}"}


def test_weights_are_read_where_there_is_room(kernel: Path) -> None:
    assert pages.worth_copying(1 << 30, free=2 << 30)
    assert not pages.worth_copying(1 << 30, free=(2 << 30) - 1)


@pytest.mark.parametrize("library", ["glibc 2.34", "", "musl"])
def test_an_older_or_another_library_maps_them(kernel: Path, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages.os, "confstr", lambda name: library)
    assert not pages.worth_copying(1, free=1 << 40)


def test_so_does_a_system_that_gives_none(kernel: Path) -> None:
    kernel.write_text("always madvise [never]")
    assert not pages.worth_copying(1, free=1 << 40)
    kernel.unlink()
    assert not pages.worth_copying(1, free=1 << 40)


def test_so_does_a_process_that_did_not_ask(kernel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GLIBC_TUNABLES")
    assert not pages.worth_copying(1, free=1 << 40)


def large(pid: int) -> int:
    """kB of its own memory that a process has in large pages."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("AnonHugePages"))


@needs("llama_cpp")
@pytest.mark.parametrize("asked", [True, False])
def test_the_weights_of_a_model_lie_in_large_pages(asked: bool) -> None:
    if not pages.ENABLED.exists() or "[madvise]" not in pages.ENABLED.read_text():
        pytest.skip("this system gives no large pages, or gives them to all")
    worker = Worker("guide", threads=1, more=pages.environment() if asked else None)
    try:
        for _ in worker.load("llama", GUIDE_GGUF, LoadOptions(context_length=512, sequences=1)):
            pass
        mapped = str(GUIDE_GGUF) in Path(f"/proc/{worker.pid}/maps").read_text()
        assert (large(worker.pid) > GUIDE_GGUF.stat().st_size // 2048, mapped) == (asked, not asked)
    finally:
        worker.close(grace=0)
