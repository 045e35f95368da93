"""A child process from its start to its end: what it is given, how it dies, what is left of it."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from pathlib import Path
from threading import Thread

import psutil
import pytest

from multimodel.errors import BrokenFile, MultimodelError, NotEnoughMemory, WorkerCrashed
from multimodel.types import LoadOptions, Message, SamplingParams
from multimodel.workers.client import Worker
from multimodel.workers.protocol import Frame

from ..support import CHAT_TEMPLATE, eventually, needs, tiny_gguf, tiny_llama

pytestmark = [needs("llama_cpp", "gguf", "torch"), pytest.mark.skipif(sys.platform == "win32", reason="needs signals")]
needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")

ASK = [Message("user", "hello there")]
SHORT = SamplingParams(max_tokens=8)


def started(path: Path, options: LoadOptions = LoadOptions()) -> Worker:
    worker = Worker("gguf:tiny", threads=1)
    try:
        for _ in worker.load("llama", path, options):
            pass
    except BaseException:
        worker.close(grace=0)
        raise
    return worker


@pytest.fixture
def worker(tiny_gguf_file: Path) -> Iterator[Worker]:
    made = started(tiny_gguf_file)
    yield made
    made.close()


def said(worker: Worker, params: SamplingParams = SHORT) -> str:
    events = [event for event in worker.generate(ASK, params) if event]
    assert events[-1]["event"] == "done"
    return "".join(event.get("text", "") for event in events)


def test_it_loads_answers_measures_and_weighs(worker: Worker) -> None:
    assert worker.facts and worker.facts.context_length == 512
    assert said(worker) == said(worker) != ""
    size = worker.measure(ASK)
    assert size and 0 < size.tokens < 30
    assert worker.memory() > 10_000_000


def test_several_threads_ask_at_once(worker: Worker) -> None:
    alone, answers = said(worker), list[str]()
    threads = [Thread(target=lambda: answers.append(said(worker))) for _ in range(12)]  # more than there are slots
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [alone] * 12


def test_closing_an_answer_cancels_it_in_the_child(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    sent, send = list[str](), worker._send
    monkeypatch.setattr(worker, "_send", lambda command: (sent.append(command["op"]), send(command)))
    for _ in range(20):
        with closing(worker.generate(ASK, SamplingParams())) as events:
            assert next(event for event in events if event)["event"] == "started"
    assert sent == ["generate", "cancel"] * 20
    assert said(worker)
    assert sent[40:] == ["generate"]


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL])
def test_a_child_that_dies_is_an_error_for_everyone_who_waits(worker: Worker, number: signal.Signals) -> None:
    os.kill(worker.pid, signal.SIGSTOP)  # so that it cannot finish first
    answers = [worker.generate(ASK, SHORT) for _ in range(3)]
    assert [next(events) for events in answers] == [None] * 3  # heartbeats
    os.kill(worker.pid, number)
    os.kill(worker.pid, signal.SIGCONT)
    for events in answers:
        with pytest.raises(WorkerCrashed, match=rf"gguf:tiny ended \({number.name}\)") as caught:
            list(events)
        assert "again" in caught.value.hint
    assert not worker.alive
    assert worker.memory() == 0
    with pytest.raises(WorkerCrashed):
        list(worker.generate(ASK, SHORT))


def test_what_the_child_said_last_is_in_the_message(worker: Worker) -> None:
    with pytest.raises(WorkerCrashed, match="KeyError: 'params'"):
        list(worker._ask(1, {"op": "generate", "id": 1}))


@pytest.mark.parametrize(
    "said",
    [
        "SystemError: error return without exception set",
        "RuntimeError: can't start new thread",
        "SystemError: <built-in function exec> returned NULL without setting an exception",
        "memory allocation of 144 bytes failed\nstack backtrace:\n   0: main\nnote: Some details are omitted.",
    ],
)
def test_want_of_memory_is_called_so_whoever_says_it(worker: Worker, said: str) -> None:
    worker._said.extend(line.encode() + b"\n" for line in said.splitlines())
    ended = worker._obituary(1)
    assert isinstance(ended, NotEnoughMemory) and "Close other models" in ended.hint
    assert next(word for word in ("SystemError", "RuntimeError", "memory allocation of 144") if word in said) in str(
        ended
    )


LOOPS_FOR_SOME = (
    "{% if messages[0].content == 'loop' %}{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}"
    "{% endfor %}{% endif %}" + CHAT_TEMPLATE
)


def test_a_template_that_loops_is_an_error_for_one_and_the_child_answers_the_others(tmp_path: Path) -> None:
    path = tiny_gguf(tiny_llama(tmp_path / "hf", template=LOOPS_FOR_SOME), tmp_path / "loops.gguf")
    worker = started(path)
    try:
        before = said(worker)
        other = worker.generate(ASK, SamplingParams())
        assert next(event for event in other if event and event["event"] == "text")
        with pytest.raises(BrokenFile, match="template of this model runs longer than 2 s"):
            list(worker.generate([Message("user", "loop")], SHORT))
        assert [event for event in other if event][-1]["event"] == "done"
        assert said(worker) == before
    finally:
        worker.close()


def test_a_template_that_had_to_be_killed_is_named(worker: Worker) -> None:
    os.kill(worker.pid, signal.SIGVTALRM)
    with pytest.raises(WorkerCrashed, match="chat template of gguf:tiny did not come to an end") as caught:
        list(worker.generate(ASK, SamplingParams()))
    assert "another" in caught.value.hint


@pytest.mark.parametrize(
    ("said", "kind", "last"),
    [
        (
            b"/tmp/pip-install/vendor/ggml.c:16: GGML_ASSERT(ctx->mem_buffer != NULL) failed\n",
            NotEnoughMemory,
            "ggml.c:16",
        ),
        (b"terminate called\n  what():  std::bad_alloc\n", NotEnoughMemory, r"what\(\)"),
        (b"/tmp/pip-install/vendor/ggml.c:16: GGML_ASSERT(a == b) failed\n", WorkerCrashed, "ggml.c:16"),
    ],
)
def test_an_end_for_want_of_memory_is_told_as_such(
    worker: Worker, said: bytes, kind: type[MultimodelError], last: str
) -> None:
    worker._said.append(said)
    os.kill(worker.pid, signal.SIGABRT)
    with pytest.raises(kind, match=rf"SIGABRT\)\. Its last words: {last}") as caught:
        list(worker.generate(ASK, SamplingParams()))
    assert "lose other models" in caught.value.hint


@pytest.mark.parametrize("keep", [0, 100, 3000, 30_000])
def test_a_broken_file_is_one_error(tiny_gguf_file: Path, tmp_path: Path, keep: int) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(tiny_gguf_file.read_bytes()[:keep])
    with pytest.raises(BrokenFile, match=r"cut\.gguf") as caught:
        started(path)
    assert "again" in caught.value.hint


def test_ctrl_c_is_for_the_app(worker: Worker) -> None:
    os.kill(worker.pid, signal.SIGINT)
    assert said(worker)


@needs_proc
def test_the_child_gets_no_secrets_and_finds_the_package_anywhere(
    tiny_gguf_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "HF_TOKEN", "my_secret", "DB_PASSWORD"):
        monkeypatch.setenv(name, "canary")
    (tmp_path / "json.py").write_text("raise SystemExit('a module of the working folder was imported')")
    monkeypatch.chdir(tmp_path)
    worker = started(tiny_gguf_file)
    environment = Path(f"/proc/{worker.pid}/environ").read_text()
    worker.close()
    assert "canary" not in environment
    assert "HF_HUB_OFFLINE=1" in environment
    assert "OMP_NUM_THREADS=1" in environment
    assert "GGML_NO_BACKTRACE=1" in environment  # else the last words of an abort are a debugger's
    assert "omp_wait_policy=passive" in environment.lower()  # OpenMP takes either case


@needs_proc
def test_what_native_code_prints_cannot_reach_the_protocol(worker: Worker) -> None:
    output, errors = (os.readlink(f"/proc/{worker.pid}/fd/{number}") for number in (1, 2))
    assert output == errors


def test_closing_ends_the_child_by_itself(worker: Worker) -> None:
    worker.close()
    assert worker._process.returncode == 0
    worker.close()


def test_closing_ends_a_child_that_does_not_listen(worker: Worker) -> None:
    os.kill(worker.pid, signal.SIGSTOP)
    worker.close(grace=0.1)
    assert worker._process.returncode == -signal.SIGKILL


def test_an_answer_of_a_closed_worker_ends(worker: Worker) -> None:
    events = worker.generate(ASK, SamplingParams())
    next(events)
    worker.close()
    with pytest.raises(WorkerCrashed, match="unloaded"):
        list(_only_news(events))


def _only_news(events: Generator[Frame | None]) -> Iterator[Frame]:
    for event in events:
        assert not event or event["event"] != "done", "it must not end as if nothing had happened"
        if event:
            yield event


def _end(worker: Worker) -> None:
    worker.close()


def _kill(worker: Worker) -> None:
    os.kill(worker.pid, signal.SIGKILL)
    eventually(lambda: not worker.alive)
    worker.close()


@pytest.mark.parametrize("end", [_end, _kill])
def test_nothing_is_left_of_a_child(tiny_gguf_file: Path, end: Callable[[Worker], None]) -> None:
    def cycle() -> tuple[int, int, int]:
        worker = started(tiny_gguf_file)
        said(worker)
        end(worker)
        here = psutil.Process()
        return here.num_fds(), threading.active_count(), len(here.children())

    first = cycle()
    assert cycle() == first
