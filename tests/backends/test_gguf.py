"""A GGUF model as the app sees it: found, loaded once, asked by many, stopped, restarted, unloaded."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Generator, Iterator
from itertools import takewhile
from pathlib import Path
from threading import Thread

import psutil
import pytest

from multimodel.backends import gguf
from multimodel.backends.local import LocalBackend, Locate, chunk_of
from multimodel.errors import BrokenFile, ModelNotFound, WorkerCrashed
from multimodel.locate import Located
from multimodel.pool import Pool
from multimodel.settings import ModelSettings, Settings
from multimodel.types import Chunk, Message, ModelId, ModelSpec, SamplingParams, Stage, TokenLogprob, Usage, collect

from ..support import GUIDE_GGUF, eventually, needs

pytestmark = [needs("llama_cpp", "gguf", "torch"), pytest.mark.skipif(sys.platform == "win32", reason="needs signals")]

ASK = [Message("user", "hello there")]
SHORT = SamplingParams(max_tokens=8)


def connected(name: str | Path, pool: Pool | None = None) -> LocalBackend:
    return gguf.connect(ModelSpec(ModelId("gguf", str(name))), Settings(), pool or Pool())


def with_locate(locate: Locate) -> LocalBackend:
    spec = ModelSpec(ModelId("gguf", "test"))
    return LocalBackend(spec, Settings(), Pool(), runtime="llama", locate=locate, takes=gguf.TAKES)


@pytest.fixture
def backend(tiny_gguf_file: Path) -> Iterator[LocalBackend]:
    made = connected(tiny_gguf_file)
    yield made
    made.close()


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE}


def stages(chunks: list[Chunk]) -> list[str]:
    return list(dict.fromkeys(chunk.stage.name for chunk in chunks if chunk.stage))


def test_the_first_answer_loads_it_the_second_reuses_it(backend: LocalBackend) -> None:
    first, second = (list(backend.stream(ASK, SHORT)) for _ in range(2))
    assert stages(first) == ["starting", "loading", "reading"]
    assert stages(second) == ["reading"]
    assert collect(first)[0] == collect(second)[0] != ""
    usage = second[-1].usage
    assert usage and usage.output_tokens == 8 and usage.reused_tokens == usage.input_tokens - 1 > 0


def test_the_clock_starts_when_the_request_is_admitted(backend: LocalBackend) -> None:
    chunks = list(backend.stream(ASK, SHORT))
    admitted = next(chunk.at for chunk in chunks if chunk.stage and chunk.stage.name == "reading")
    texts = [chunk.at for chunk in chunks if chunk.text]
    assert admitted and all(texts) and [admitted, *texts] == sorted([admitted, *texts])


def test_concurrent_callers_share_one_load(backend: LocalBackend) -> None:
    before, answers = children(), list[list[Chunk]]()
    threads = [Thread(target=lambda: answers.append(list(backend.stream(ASK, SHORT)))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(children() - before) == 1
    assert len({collect(chunks)[0] for chunks in answers}) == 1
    assert all({"starting", "loading"} & set(stages(chunks)) for chunks in answers)


def test_closing_while_it_loads_ends_the_child(backend: LocalBackend) -> None:
    before = children()
    stream = backend.stream(ASK, SHORT)
    eventually(lambda: bool(next(stream) and children() - before))
    stream.close()
    assert children() == before
    assert collect(backend.stream(ASK, SHORT))[0]


def test_one_of_two_who_wait_may_leave(backend: LocalBackend) -> None:
    leaving, staying = (backend.stream(ASK, SHORT) for _ in range(2))
    next(leaving), next(staying)
    leaving.close()
    assert collect(staying)[1].finish_reason == "length"


def test_closing_while_it_is_looked_for_stops_the_search() -> None:
    ended = list[str]()

    def download(spec: ModelSpec, settings: Settings) -> Generator[Chunk, None, Located]:
        try:
            while True:
                yield Chunk(stage=Stage("downloading", fraction=0.5))
        finally:
            ended.append("closed")

    stream = with_locate(download).stream(ASK, SHORT)
    assert "downloading" in stages([next(stream) for _ in range(2)])
    stream.close()
    assert ended == ["closed"]


def test_a_failed_load_is_told_to_all_and_tried_again_by_the_next(tiny_gguf_file: Path) -> None:
    attempts = list[int]()

    def locate(spec: ModelSpec, settings: Settings) -> Generator[Chunk, None, Located]:
        attempts.append(1)
        yield Chunk(stage=Stage("downloading"))
        if len(attempts) == 1:
            raise ModelNotFound("not there", hint="Look elsewhere.")
        return Located(tiny_gguf_file, ("found it",))

    backend = with_locate(locate)
    waiting = [backend.stream(ASK, SHORT) for _ in range(2)]
    for stream in waiting:
        next(stream)
    for stream in waiting:
        with pytest.raises(ModelNotFound):
            list(stream)
    assert len(attempts) == 1
    chunks = list(backend.stream(ASK, SHORT))
    assert "found it" in [chunk.note for chunk in chunks]
    backend.close()


def test_a_fault_of_ours_while_loading_does_not_leave_others_waiting() -> None:
    def locate(spec: ModelSpec, settings: Settings) -> Generator[Chunk, None, Located]:
        yield Chunk()
        raise KeyError("oops")

    with pytest.raises(Exception, match="KeyError") as caught:
        list(with_locate(locate).stream(ASK, SHORT))
    assert type(caught.value).__name__ == "Unexpected"


@pytest.mark.parametrize("leave", [False, True])
def test_a_child_that_died_is_started_anew(backend: LocalBackend, leave: bool) -> None:
    text, _ = collect(backend.stream(ASK, SHORT))
    assert backend._place.worker
    pid = backend._place.worker.pid
    os.kill(pid, signal.SIGSTOP)
    stream = backend.stream(ASK, SHORT)
    assert next(stream).stage == Stage("queued", "waiting for a free place")
    os.kill(pid, signal.SIGKILL)
    if leave:
        stream.close()
        eventually(lambda: backend.facts is None)
    else:
        with pytest.raises(WorkerCrashed, match="SIGKILL") as caught:
            list(stream)
        assert caught.value.model == str(backend.model)
    assert collect(backend.stream(ASK, SHORT))[0] == text


def test_a_broken_file_leaves_no_child(tmp_path: Path) -> None:
    before = children()
    path = tmp_path / "empty.gguf"
    path.write_bytes(b"")
    with pytest.raises(BrokenFile):
        list(connected(path).stream(ASK, SHORT))
    assert children() == before


def test_measure_and_facts_are_known_while_it_is_loaded(backend: LocalBackend) -> None:
    assert (backend.measure(ASK), backend.facts, backend.inspect(ASK, SHORT)) == (None, None, None)
    _, last = collect(backend.stream(ASK, SHORT))
    size = backend.measure(ASK)
    assert size and last.usage and size.tokens == last.usage.input_tokens
    assert backend.facts
    backend.close()
    assert (backend.measure(ASK), backend.facts) == (None, None)
    backend.close()


def test_the_child_is_told_its_share_of_the_cores(tiny_gguf_file: Path) -> None:
    pool = Pool(4)
    backend = connected(tiny_gguf_file, pool)
    seen = list[int]()
    for chunk in backend.stream(ASK, SHORT):
        if chunk.stage and chunk.stage.name == "reading" and (worker := backend._place.worker):
            with pool.cores.share(lambda count: None):
                seen.append(worker.threads)
            seen.append(worker.threads)
    backend.close()
    assert seen[:2] == [2, 4]


def test_closing_an_answer_hands_its_cores_back(tiny_gguf_file: Path) -> None:
    pool, told = Pool(4), list[int]()
    backend = connected(tiny_gguf_file, pool)
    stream = backend.stream(ASK, SamplingParams())
    list(takewhile(lambda chunk: not (chunk.stage and chunk.stage.name == "reading"), stream))
    stream.close()
    with pool.cores.share(told.append):
        pass
    assert told == [4]
    backend.close()


def test_a_small_context_drops_old_turns_with_a_note(tiny_gguf_file: Path) -> None:
    settings = Settings(models=ModelSettings(context_length=64))
    backend = gguf.connect(ModelSpec(ModelId("gguf", str(tiny_gguf_file))), settings, Pool())
    turns = [Message("user", "one two three"), Message("assistant", "four five six")] * 4
    chunks = list(backend.stream([*turns, *ASK], SHORT))
    assert any("left out" in chunk.note for chunk in chunks)
    assert backend.facts and backend.facts.context_length == 64
    backend.close()


@pytest.mark.parametrize(
    ("event", "chunk"),
    [
        (None, Chunk()),
        (
            {"event": "progress", "stage": "loading", "fraction": 0.5, "detail": ""},
            Chunk(stage=Stage("loading", "", 0.5)),
        ),
        ({"event": "started", "id": 1, "at": 2.0}, Chunk(stage=Stage("reading"), at=2.0)),
        ({"event": "reading", "id": 1, "fraction": 0.1}, Chunk(stage=Stage("reading", fraction=0.1))),
        ({"event": "text", "id": 1, "text": "a", "at": 2.0}, Chunk("a", at=2.0)),
        (
            {"event": "text", "id": 1, "text": "", "at": 2.0, "logprobs": [["\xc3", -0.5, [["a", -1.5]]]]},
            Chunk(at=2.0, logprobs=(TokenLogprob("\ufffd", -0.5, (TokenLogprob("a", -1.5),), b"\xc3"),)),
        ),
        ({"event": "note", "id": 1, "text": "n"}, Chunk(note="n")),
        (
            {"event": "done", "id": 1, "finish_reason": "stop", "usage": {"input_tokens": 1}, "at": 2.0},
            Chunk(finish_reason="stop", usage=Usage(1), at=2.0),
        ),
    ],
)
def test_events_become_chunks(event: dict[str, object] | None, chunk: Chunk) -> None:
    assert chunk_of(event) == chunk


@pytest.mark.skipif(not GUIDE_GGUF.exists(), reason="needs assets/guide/guide-q8_0.gguf")
def test_the_built_in_model_answers() -> None:
    backend = connected("guide")
    text, last = collect(backend.stream([Message("user", "What is a token?")], SamplingParams(max_tokens=80)))
    backend.close()
    assert text
    assert last.finish_reason == "stop"
