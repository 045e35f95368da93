"""Each fault of a remote service, asked through the engine: one sentence in one column, text kept, all given back."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from pydantic import SecretStr

from multimodel import Engine, Message, ModelId, Snapshot, race
from multimodel.errors import (
    AuthenticationFailure,
    BadRequest,
    ConnectionFailure,
    ContextLengthExceeded,
    GatedModel,
    ModelNotFound,
    MultimodelError,
    ProtocolFailure,
    QuotaExceeded,
    RateLimited,
    Retryable,
    ServerFailure,
    TimedOut,
)
from multimodel.settings import ApiSettings, Endpoint, Settings

from .faults import FAULTS, FIN, HEL, LO, FaultServer, error, reply, streamed
from .support import needs

pytestmark = needs("openai")

KEY = "sk-canary-0123456789abcdef"
HI = [Message("user", "hi")]

ENDS: dict[str, tuple[str, str]] = {  # fault: (finish reason, text)
    **dict.fromkeys(
        (
            *("good", "no-usage", "whole", "no-choices", "empty-choices", "null-delta", "strange-types", "parts"),
            *("comments", "crlf", "split-crlf", "cr", "bom", "no-space", "two-lines", "no-last-line"),
        ),
        ("stop", "Hello"),
    ),
    "reasoning": ("stop", "lo"),
    "cached": ("stop", "lo"),
    "refusal": ("stop", "I will not."),
    "content-filter": ("content_filter", "par"),
    "length": ("length", "par"),
    "thinking-only": ("length", ""),
    "bad-utf8": ("stop", "\ufffd\ufffd\ufffd"),
    "split-escapes": ("stop", "né€😀"),
    "split-utf8": ("stop", "né€😀"),
    "control": ("stop", "ab\ufffdc"),
    "finish-then-stall": ("stop", "Hel"),
    **dict.fromkeys(("stall", "drop", "reset-in-the-middle"), ("incomplete", "Hello")),
    **dict.fromkeys(("end-without-finish", "done-without-finish"), ("incomplete", "Hello")),
    **dict.fromkeys(("pings-after-text", "drop-in-chunk", "cut-json"), ("incomplete", "Hel")),
}
ERRORS: dict[str, tuple[type[MultimodelError], str]] = {  # fault: (error, text kept)
    **dict.fromkeys(("400", "413", "422"), (BadRequest, "")),
    **dict.fromkeys(("401", "403"), (AuthenticationFailure, "")),
    "404": (ModelNotFound, ""),
    **dict.fromkeys(("408", "504", "no-answer", "slow-head", "pings", "stall-before-text"), (TimedOut, "")),
    **dict.fromkeys(("409", "500", "502", "503", "529", "loading", "html-502", "json-error"), (ServerFailure, "")),
    **dict.fromkeys(("429", "429-seconds", "429-long", "429-negative", "429-date", "error-code"), (RateLimited, "")),
    **dict.fromkeys(("quota", "402"), (QuotaExceeded, "")),
    **dict.fromkeys(("context", "context-llama"), (ContextLengthExceeded, "")),
    "gated": (GatedModel, ""),
    **dict.fromkeys(("redirect", "redirect-307", "html-200", "empty", "plain", "done-at-once"), (ProtocolFailure, "")),
    **dict.fromkeys(("null-delta-only", "huge", "one-line-without-end"), (ProtocolFailure, "")),
    **dict.fromkeys(("reset", "hang-up", "drop-before-text"), (ConnectionFailure, "")),
    **dict.fromkeys(("bad-json", "no-object", "deep-json"), (ProtocolFailure, "Hel")),
    **dict.fromkeys(("error-object", "error-event", "error-string"), (ServerFailure, "Hel")),
}


SILENT = {"no-answer", "slow-head", "pings"}
STALLING = {"stall", "stall-before-text", "pings-after-text", "finish-then-stall"}


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer() as running:
        yield running


def settings_for(server: FaultServer, *faults: str, retries: int = 0, first: float = 20.0) -> Settings:
    """One endpoint a fault, named after it, with a key. Only faults that wait get short deadlines."""
    endpoints = tuple(Endpoint(name=fault, base_url=server.url(fault), key_var="CANARY") for fault in faults)
    stall = 0.4 if STALLING & set(faults) else 20.0
    api = ApiSettings(endpoints=endpoints, retries=retries, first_token_timeout=first, stall_timeout=stall)
    return Settings(api=api, environment={"CANARY": SecretStr(KEY)})


def ask(server: FaultServer, fault: str, model: str = "good-model") -> Snapshot:
    with Engine(settings_for(server, fault, first=0.4 if fault in SILENT else 20.0)) as engine:
        *_, last = engine.ask(ModelId(fault, model), HI)
    return last


def test_every_fault_is_expected_to_end_somehow() -> None:
    assert ENDS.keys() | ERRORS.keys() | {"endless"} == FAULTS.keys()
    assert not ENDS.keys() & ERRORS.keys()


@pytest.mark.parametrize("fault", ENDS)
def test_an_answer_ends_as_it_should(server: FaultServer, fault: str) -> None:
    last = ask(server, fault)
    assert (last.finish_reason, last.text) == ENDS[fault]
    assert last.error is None
    assert last.usage is not None and last.usage.output_tokens > 0
    assert server.idle()


@pytest.mark.parametrize("fault", ERRORS)
def test_a_fault_is_one_sentence_and_what_to_do(server: FaultServer, fault: str) -> None:
    last = ask(server, fault)
    kind, text = ERRORS[fault]
    assert type(last.error) is kind
    assert (last.finish_reason, last.text) == ("error", text)
    assert last.error.hint
    sentence = f"{last.error} {last.error.hint}"
    assert KEY not in sentence and "<" not in sentence and len(sentence) <= 600
    assert last.error.__cause__ is None and last.error.__context__ is None  # an SDK's error holds the key
    assert server.idle()


def test_an_answer_without_end_is_ended(server: FaultServer) -> None:
    last = ask(server, "endless")
    assert isinstance(last.error, ProtocolFailure)
    assert 1 << 20 > len(last.text) > 900_000
    assert server.idle()


@pytest.mark.parametrize(
    ("fault", "seconds"), [("429-seconds", 1.0), ("429-long", 3600.0), ("429-negative", 0.0), ("loading", 20.5)]
)
def test_a_service_may_name_the_time_to_come_back(server: FaultServer, fault: str, seconds: float) -> None:
    found = ask(server, fault).error
    assert isinstance(found, Retryable) and found.retry_after == seconds


def test_a_service_may_name_the_time_as_a_date(server: FaultServer) -> None:
    found = ask(server, "429-date").error
    assert isinstance(found, Retryable) and found.retry_after is not None and 1.0 < found.retry_after <= 3.0


def test_figures_and_notes_of_an_answer(server: FaultServer) -> None:
    assert ask(server, "good").usage == ask(server, "crlf").usage
    good, cached, counted = ask(server, "good").usage, ask(server, "cached").usage, ask(server, "no-usage").usage
    assert good and (good.input_tokens, good.output_tokens, good.estimated) == (7, 2, False)
    assert cached and cached.reused_tokens == 5
    assert counted and (counted.output_tokens, counted.estimated) == (2, True)
    assert ask(server, "reasoning").reasoning == "Hm. So."
    assert "max_tokens" in ask(server, "thinking-only").notes[0]
    assert "may be cut" in ask(server, "stall").notes[0]


def test_a_wrong_name_gets_the_nearest_right_ones(server: FaultServer) -> None:
    found = ask(server, "404", "good-modle").error
    assert found and found.hint == "Did you mean 404:good-model or 404:good-model-large?"


def test_a_redirect_carries_no_key_anywhere(server: FaultServer) -> None:
    with FaultServer() as elsewhere:
        server.once("good", reply(307, b"", f"Location: {elsewhere.url()}/chat/completions"))
        assert isinstance(ask(server, "good").error, ProtocolFailure)
        assert elsewhere.requests == []


def test_nothing_at_the_address(server: FaultServer) -> None:
    endpoint = Endpoint(name="off", base_url="http://127.0.0.1:9/v1")
    with Engine(Settings(api=ApiSettings(endpoints=(endpoint,), retries=0))) as engine:
        *_, last = engine.ask(ModelId("off", "m"), HI)
    assert isinstance(last.error, ConnectionFailure)
    assert str(last.error) == "Nothing answers at http://127.0.0.1:9/v1: is the server running?"


@pytest.mark.parametrize("fault", ["401", "html-502"])
def test_a_service_that_repeats_the_key_does_not_get_it_shown(server: FaultServer, fault: str) -> None:
    server.once(fault, reply(int(fault[-3:]), error(f"<b>Incorrect</b> key {KEY} in {KEY}")))
    found = ask(server, fault).error
    assert found and KEY not in f"{found} {found.hint}" and "<b>" not in str(found)


def test_a_retryable_fault_is_asked_again_before_the_first_text_only(server: FaultServer) -> None:
    server.once("good", reply(503, None, "Retry-After: 0"))
    server.once("drop", streamed(HEL, error_event()))
    with Engine(settings_for(server, "good", "drop", retries=2)) as engine:
        *_, good = engine.ask(ModelId("good", "m"), HI)
        *_, broken = engine.ask(ModelId("drop", "m"), HI)
    assert (good.text, len(server.asked("good"))) == ("Hello", 2)
    assert (broken.text, broken.finish_reason, len(server.asked("drop"))) == ("Hel", "error", 1)


def error_event() -> bytes:
    return b'event: error\ndata: {"message": "overloaded"}\n\n'


@pytest.mark.parametrize("fault", ["quota", "401", "404", "400", "context"])
def test_what_asking_again_cannot_mend_is_asked_once(server: FaultServer, fault: str) -> None:
    with Engine(settings_for(server, fault, retries=3)) as engine:
        list(engine.ask(ModelId(fault, "m"), HI))
    assert len(server.asked(fault)) == 1


@pytest.mark.parametrize("fault", ["stall", "error-object", "reset", "huge", "401"])
def test_the_other_column_is_not_affected(server: FaultServer, fault: str) -> None:
    with Engine(settings_for(server, fault, "good")) as engine:
        lanes = {name: engine.ask(ModelId(name, "m"), HI) for name in (fault, "good")}
        ends = {lane: snapshot for lane, snapshot in race(lanes) if snapshot.done}
    assert (ends["good"].text, ends["good"].finish_reason) == ("Hello", "stop")
    assert ends[fault].finish_reason in ("error", "incomplete")


@pytest.mark.parametrize("fault", ["no-answer", "slow-head", "pings"])
def test_stop_is_seen_by_the_server_while_it_is_waited_for(server: FaultServer, fault: str) -> None:
    with Engine(settings_for(server, fault, first=60.0)) as engine:
        run = engine.start(ModelId(fault, "m"), HI)
        assert server.reached()
        run.stop()
        assert server.idle(2.0)  # the fault itself would wait for twenty seconds
        run.join(2.0)
        assert run.newest.state == "stopped"


def test_stop_frees_a_service_that_never_stops_talking(server: FaultServer) -> None:
    with Engine(settings_for(server, "endless")) as engine:
        run = engine.start(ModelId("endless", "m"), HI)
        next(event for event in run.follow() if event.snapshot.text)
        run.stop()
        assert server.idle(2.0)


def test_nothing_grows(server: FaultServer) -> None:
    faults = ("good", "stall", "drop", "reset", "500", "404", "error-event", "huge", "no-answer")

    def round_of_faults() -> None:
        with Engine(settings_for(server, *faults, first=0.4)) as engine:
            lanes = {fault: engine.ask(ModelId(fault, "m"), HI) for fault in faults}
            assert len([1 for _, snapshot in race(lanes) if snapshot.done]) == len(faults)
        assert server.idle()

    round_of_faults()
    threads, files = threading.active_count(), open_files()
    for _ in range(3):
        round_of_faults()
    deadline = time.monotonic() + 3
    while (threading.active_count() > threads or open_files() > files) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert threading.active_count() <= threads
    assert open_files() <= files


def open_files() -> int:
    return psutil.Process().num_fds() if hasattr(psutil.Process, "num_fds") else 0


def test_the_text_so_far_is_kept_word_for_word(server: FaultServer, tmp_path: Path) -> None:
    server.once("good", streamed(HEL, LO, FIN))
    text = ask(server, "control").text + ask(server, "good").text
    (tmp_path / "answer.txt").write_text(text, "utf-8")  # nothing in it that a file cannot hold
    assert (tmp_path / "answer.txt").read_text("utf-8") == text
