"""Downloads of the server: side by side, paused, resumed, after a restart, and whatever can go wrong with them."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from multimodel import transfer
from multimodel.downloads import AT_ONCE, Download, Downloads
from multimodel.errors import BrokenFile, DownloadFailed, InvalidModelId
from multimodel.jobs import Job, Meter
from multimodel.locate import locate
from multimodel.settings import ModelSettings, Settings
from multimodel.types import ModelId, ModelSpec

from .hub import FakeHub, Repo
from .support import ROOT, eventually

BIG = os.urandom(6_000_000)
MODEL = ModelId("gguf", "o/g:Q4_K_M")


@pytest.fixture
def hub(hub: FakeHub) -> FakeHub:
    hub.repos["o/g"] = Repo({"m-Q4_K_M.gguf": BIG, "m-Q8_0.gguf": b"x" * 100, "README.md": b"# Hi"})
    return hub


@pytest.fixture
def settings(tmp_path: Path, hub: FakeHub) -> Settings:
    return Settings(models=ModelSettings(cache_dir=tmp_path / "cache", hub_url=hub.url, offline=False))


@pytest.fixture
def downloads(settings: Settings) -> Iterator[Downloads]:
    made = Downloads(settings)
    yield made
    made.close()


def ended(downloads: Downloads, model: ModelId = MODEL) -> Download:
    found = downloads.wait(model, 60)
    assert found and not found.active
    return found


def halfway(downloads: Downloads, model: ModelId = MODEL) -> None:
    """Wait until some bytes of a stalled download have come."""
    eventually(lambda: any(d.model == model and d.progress.done > 500_000 for d in downloads.all()))


def names(settings: Settings) -> list[str]:
    """What the cache shows as whole files."""
    return sorted(path.name for path in settings.models.cache_dir.glob("*/snapshots/*/*"))


def parts(settings: Settings) -> list[Path]:
    return list(settings.models.cache_dir.rglob("*.incomplete"))


# the way it should go


def test_a_download_brings_just_the_model_and_counts_its_bytes(settings: Settings, downloads: Downloads) -> None:
    assert downloads.start(MODEL).state in ("queued", "running")
    last = ended(downloads)
    assert (last.state, last.error) == ("done", None)
    assert last.progress.done == last.progress.total == len(BIG)
    assert names(settings) == ["m-Q4_K_M.gguf"]
    assert not parts(settings) and not list(settings.models.cache_dir.glob(".multimodel/downloads/*"))
    *_, located = iterate(settings)
    assert located.read_bytes() == BIG


def iterate(settings: Settings) -> list[Any]:
    steps = locate(ModelSpec(MODEL), settings)
    try:
        while True:
            next(steps)
    except StopIteration as end:
        return [end.value.path]


def test_several_run_at_once_and_the_rest_waits_its_turn(hub: FakeHub, downloads: Downloads) -> None:
    hub.stall = threading.Event()
    models = [ModelId("gguf", f"o/m{i}:Q4_0") for i in range(AT_ONCE + 2)]
    for i, model in enumerate(models):
        hub.repos[f"o/m{i}"] = Repo({"m-Q4_0.gguf": BIG[: 2_000_000 + i]})
        downloads.start(model)
    eventually(lambda: [d.state for d in downloads.all()].count("running") == AT_ONCE)
    assert [d.state for d in downloads.all()].count("queued") == 2
    hub.stall.set()
    assert [ended(downloads, model).state for model in models] == ["done"] * len(models)


def test_starting_twice_is_one_download(hub: FakeHub, downloads: Downloads) -> None:
    hub.stall = threading.Event()
    downloads.start(MODEL)
    downloads.start(MODEL)
    hub.stall.set()
    ended(downloads)
    assert len(downloads.all()) == 1
    assert len({r for _, path, r in hub.requests if "/cdn/" in path}) == sum("/cdn/" in p for _, p, _ in hub.requests)


# pause, resume, cancel


def test_pause_keeps_what_came_and_resume_asks_only_for_the_rest(
    hub: FakeHub, settings: Settings, downloads: Downloads
) -> None:
    hub.stall = threading.Event()
    downloads.start(MODEL)
    halfway(downloads)
    downloads.pause(MODEL)
    hub.stall.set()
    paused = ended(downloads)
    assert paused.state == "paused" and 0 < paused.progress.done < len(BIG)
    (part,) = parts(settings)
    held = part.stat().st_size
    assert 0 < held < len(BIG) and part.read_bytes() == BIG[:held] and not names(settings)
    hub.stall = None
    hub.requests.clear()
    downloads.start(MODEL)
    assert ended(downloads).state == "done"
    starts = [int(r[6:].partition("-")[0]) for _, _, r in hub.requests if r]
    assert min(starts) == held
    assert names(settings) == ["m-Q4_K_M.gguf"]


def test_a_download_from_which_nothing_comes_can_be_paused(
    hub: FakeHub, settings: Settings, downloads: Downloads
) -> None:
    hub.stall = threading.Event()
    downloads.start(MODEL)
    halfway(downloads)
    downloads.pause(MODEL)
    assert ended(downloads).state == "paused" and not hub.stall.is_set()
    (part,) = parts(settings)
    held = part.stat().st_size
    assert 0 < held < len(BIG) and part.read_bytes() == BIG[:held]


def test_cancel_deletes_what_came(hub: FakeHub, settings: Settings, downloads: Downloads) -> None:
    hub.stall = threading.Event()
    downloads.start(MODEL)
    halfway(downloads)
    downloads.cancel(MODEL)
    hub.stall.set()
    eventually(lambda: not downloads.all())
    assert not parts(settings) and not names(settings)
    assert not list(settings.models.cache_dir.glob(".multimodel/downloads/*"))


def test_cancel_of_a_paused_one_after_a_restart(hub: FakeHub, settings: Settings, downloads: Downloads) -> None:
    hub.stall = threading.Event()
    downloads.start(MODEL)
    halfway(downloads)
    downloads.pause(MODEL)
    hub.stall.set()
    ended(downloads)
    again = Downloads(settings)
    (found,) = again.all()
    assert (found.model, found.state, found.progress.total) == (MODEL, "paused", len(BIG))
    again.cancel(MODEL)
    assert not parts(settings) and not again.all() and not Downloads(settings).all()


def test_a_finished_one_can_be_taken_off_the_list(settings: Settings, downloads: Downloads) -> None:
    downloads.start(MODEL)
    ended(downloads)
    downloads.cancel(MODEL)
    assert not downloads.all()
    assert names(settings) == ["m-Q4_K_M.gguf"]


# restart and kill


def test_what_ran_when_the_program_ended_is_found_again_and_goes_on(
    hub: FakeHub, settings: Settings, downloads: Downloads
) -> None:
    hub.stall = threading.Event()
    downloads.start(MODEL)
    halfway(downloads)
    closing = threading.Thread(target=downloads.close)
    closing.start()
    hub.stall.set()
    closing.join()
    again = Downloads(settings)
    assert [(d.model, d.state) for d in again.all()] == [(MODEL, "interrupted")]
    hub.stall = None
    again.start(MODEL)
    assert ended(again).state == "done"
    assert names(settings) == ["m-Q4_K_M.gguf"]


VICTIM = """
import sys, time
from pathlib import Path
from multimodel.downloads import Downloads
from multimodel.settings import ModelSettings, Settings
from multimodel.types import ModelId
settings = Settings(models=ModelSettings(cache_dir=Path(sys.argv[1]), hub_url=sys.argv[2], offline=False))
downloads = Downloads(settings)
downloads.start(ModelId("gguf", "o/g:Q4_K_M"))
time.sleep(60)
"""


@pytest.mark.slow
def test_a_kill_in_the_middle_loses_little_and_nothing_partial_looks_whole(hub: FakeHub, settings: Settings) -> None:
    hub.stall_after = 1_500_000  # of each answer's bytes
    hub.stall = threading.Event()
    hub.repos["o/g"].files["m-Q4_K_M.gguf"] = BIG * 4
    command = [sys.executable, "-c", VICTIM, str(settings.models.cache_dir), hub.url]
    environment = {**os.environ, "HF_HUB_OFFLINE": "0", "PYTHONPATH": str(ROOT)}
    victim = subprocess.Popen(command, cwd=ROOT, env=environment)
    try:
        eventually(lambda: any(part.stat().st_size >= 4_000_000 for part in parts(settings)), 60)
    finally:
        victim.send_signal(signal.SIGKILL)
        victim.wait()
    hub.stall.set()
    hub.stall = None
    (part,) = parts(settings)
    held = part.stat().st_size
    assert held < len(BIG) * 4 and part.read_bytes() == (BIG * 4)[:held] and not names(settings)
    again = Downloads(settings)
    assert [d.state for d in again.all()] == ["interrupted"]
    hub.requests.clear()
    again.start(MODEL)
    assert ended(again).state == "done"
    assert min(int(r[6:].partition("-")[0]) for _, _, r in hub.requests if r) == held
    assert iterate(settings)[0].read_bytes() == BIG * 4


def test_a_damaged_record_is_left_out(settings: Settings, downloads: Downloads) -> None:
    folder = settings.models.cache_dir / ".multimodel/downloads"
    folder.mkdir(parents=True)
    keep = settings.models.cache_dir / "keep.bin"
    keep.write_bytes(b"x")
    for i, text in enumerate(["", "[]", '{"model": "x", "state": "paused", "done": 1, "total": 2, "parts": []}']):
        (folder / f"{i}.json").write_text(text)
    hostile = (
        '{"model": "gguf:o/g:Q8_0", "state": "x", "done": 1, "total": 2, "parts": ["keep.bin", "../y.incomplete"]}'
    )
    (folder / "9.json").write_text(hostile)
    (found,) = Downloads(settings).all()
    assert (found.model.name, found.state, found.parts) == ("o/g:Q8_0", "interrupted", ())


# what goes wrong


def test_a_failure_is_kept_with_its_remedy_and_can_be_tried_again(
    hub: FakeHub, settings: Settings, downloads: Downloads
) -> None:
    hub.corrupt = True
    downloads.start(MODEL)
    failed = ended(downloads)
    assert failed.state == "failed" and isinstance(failed.error, BrokenFile) and failed.error.hint
    assert not parts(settings) and not names(settings)
    hub.corrupt = False
    downloads.start(MODEL)
    assert ended(downloads).state == "done"


def test_a_disk_that_fills_up_in_the_middle(
    hub: FakeHub, settings: Settings, downloads: Downloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(pieces: Any, out: Any, digest: Any) -> None:
        out.write(next(pieces))
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(transfer, "_append", full)
        downloads.start(MODEL)
        failed = ended(downloads)
    assert isinstance(failed.error, DownloadFailed) and "disk is full" in str(failed.error)
    assert "MODEL_CACHE_DIR" in failed.error.hint
    assert not names(settings) and len(parts(settings)) == 1
    downloads.start(MODEL)
    assert ended(downloads).state == "done"
    assert names(settings) == ["m-Q4_K_M.gguf"]


def test_the_space_that_others_will_take_is_counted(
    hub: FakeHub, downloads: Downloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.stall = threading.Event()
    hub.repos["o/other"] = Repo({"m-Q4_0.gguf": BIG})
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 8_000_000))
    downloads.start(MODEL)
    halfway(downloads)
    other = ModelId("gguf", "o/other:Q4_0")
    downloads.start(other)
    failed = ended(downloads, other)
    assert failed.error and "beside the other downloads" in str(failed.error)
    hub.stall.set()
    assert ended(downloads).state == "done"


@pytest.mark.parametrize("text", ["openai:gpt-x", "gguf:guide", "gguf:/etc/passwd", "transformers:../../x", "echo:any"])
def test_only_models_of_the_hub_can_be_downloaded(downloads: Downloads, text: str) -> None:
    with pytest.raises(InvalidModelId) as caught:
        downloads.start(ModelId.parse(text))
    assert "OWNER/REPO" in caught.value.hint
    assert not downloads.all()


# the transfer itself


@pytest.mark.parametrize("said", [len(BIG) - 1, len(BIG) + 1])
def test_a_file_of_another_length_than_the_hub_lists(hub: FakeHub, downloads: Downloads, said: int) -> None:
    hub.claimed_size = said
    downloads.start(MODEL)
    failed = ended(downloads)
    assert isinstance(failed.error, BrokenFile) and f"instead of the {said:,}" in str(failed.error)


def test_a_longer_leftover_is_no_beginning_of_the_file(hub: FakeHub, settings: Settings, downloads: Downloads) -> None:
    hub.stall = threading.Event()
    downloads.start(MODEL)
    halfway(downloads)
    downloads.pause(MODEL)
    hub.stall.set()
    ended(downloads)
    parts(settings)[0].write_bytes(b"?" * (len(BIG) + 5))
    hub.stall = None
    downloads.start(MODEL)
    assert ended(downloads).state == "done"


def test_a_leftover_of_other_content_is_found_out(hub: FakeHub, settings: Settings, downloads: Downloads) -> None:
    hub.stall = threading.Event()
    downloads.start(MODEL)
    halfway(downloads)
    downloads.pause(MODEL)
    hub.stall.set()
    ended(downloads)
    parts(settings)[0].write_bytes(b"?" * 1_000_000)
    hub.stall = None
    downloads.start(MODEL)
    assert isinstance(ended(downloads).error, BrokenFile)
    downloads.start(MODEL)
    assert ended(downloads).state == "done"


def test_an_address_whose_time_is_over_is_asked_for_again(hub: FakeHub, downloads: Downloads) -> None:
    hub.expire_after = 3  # answers of the address the Hub redirects to, then it refuses until the Hub is asked again
    downloads.start(MODEL)
    assert ended(downloads).state == "done"
    assert len(hub.downloads()) > 1


def test_speed_is_that_of_the_last_seconds() -> None:
    now = [0.0]
    meter = Meter("o/g", 1_000, 100, Job(), clock=lambda: now[0])
    for second in range(1, 11):
        now[0] = second
        meter.add(10)
    progress = meter.job.progress
    assert (progress.done, progress.rate, progress.seconds_left) == (200, 10.0, 80.0)
    for second in range(11, 16):
        now[0] = second
        meter.add(100)
    assert meter.job.progress.rate > 80
    now[0] = 60
    assert meter.job.progress.rate < 3  # nothing comes any more
    meter.add(-500)
    assert (meter.job.progress.done, meter.job.progress.rate, meter.job.progress.seconds_left) == (200, 0.0, None)
