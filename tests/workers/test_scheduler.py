"""Who is admitted, who is cancelled, and whose error is whose, with a runtime that follows a script."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from queue import SimpleQueue

import pytest

from multimodel.errors import BadRequest
from multimodel.types import Message, PromptSize, SamplingParams
from multimodel.workers.child import serve
from multimodel.workers.protocol import Facts, Frame, Request, encode, ran_out, request_from
from multimodel.workers.scheduler import Scheduler, joined


class Scripted:
    """Answers every request with as many words as its prompt says, one a step; `fail` makes a step raise."""

    def __init__(self, slots: int = 2) -> None:
        self.facts = Facts(100, "cpu", "F32", 1, "own", 0, slots=slots)
        self.left: dict[int, int] = {}
        self.dropped: list[int] = []
        self.fail: Exception | None = None
        self.threads = 0

    def admit(self, request: Request) -> list[Frame]:
        if request.messages[0].content == "bad":
            raise BadRequest("no", hint="Say something else.")
        if request.messages[0].content == "huge":
            raise MemoryError
        self.left[request.id] = int(request.messages[0].content)
        return [{"event": "note", "id": request.id, "text": "hello"}]

    def step(self) -> list[Frame]:
        if self.fail:
            raise self.fail
        events: list[Frame] = []
        for id in list(self.left):
            self.left[id] -= 1
            events.append({"event": "text", "id": id, "text": "x"})
            if not self.left[id]:
                del self.left[id]
                usage = {"input_tokens": 10, "output_tokens": 1, "reused_tokens": 4}
                events.append({"event": "done", "id": id, "finish_reason": "stop", "usage": usage})
        return events

    def drop(self, id: int) -> None:
        self.left.pop(id, None)
        self.dropped.append(id)

    def active(self) -> int:
        return len(self.left)

    def measure(self, messages: Sequence[Message]) -> PromptSize:
        return PromptSize(len(messages), 100)

    def set_threads(self, count: int) -> None:
        self.threads = count

    def cached(self) -> int:
        return 7

    def trial(self) -> None: ...

    def close(self) -> None: ...


Make = Callable[..., tuple[Scheduler, Scripted, list[Frame]]]


@pytest.fixture
def make() -> Make:
    def build(slots: int = 2) -> tuple[Scheduler, Scripted, list[Frame]]:
        runtime, sent = Scripted(slots), list[Frame]()
        return Scheduler(runtime, sent.extend), runtime, sent

    return build


def ask(scheduler: Scheduler, id: int, text: str) -> None:
    messages = [{"role": "user", "content": text}]
    scheduler.handle({"op": "generate", "id": id, "messages": messages, "params": {"stop": ["END"]}})


def events(sent: list[Frame], id: int) -> list[str]:
    return [event["event"] for event in sent if event["id"] == id]


def test_one_answer_from_start_to_end_with_times_that_never_go_back(make: Make) -> None:
    scheduler, _, sent = make()
    ask(scheduler, 1, "2")
    while scheduler.busy:
        scheduler.step()
    assert events(sent, 1) == ["started", "note", "text", "text", "done"]
    times = [event["at"] for event in sent if event["event"] != "note"]
    assert times == sorted(times)


def test_more_requests_than_slots_wait_their_turn(make: Make) -> None:
    scheduler, runtime, sent = make(slots=2)
    for id, text in enumerate(["1", "2", "1"], start=1):
        ask(scheduler, id, text)
    assert runtime.active() == 2
    assert events(sent, 3) == []
    scheduler.step()  # the first one ends, the third takes its place
    assert events(sent, 3) == ["started", "note"]


def test_cancelling_frees_the_place_of_one_and_takes_another_out_of_the_queue(make: Make) -> None:
    scheduler, runtime, sent = make(slots=1)
    for id in (1, 2, 3):
        ask(scheduler, id, "9")
    scheduler.handle({"op": "cancel", "id": 2})
    scheduler.handle({"op": "cancel", "id": 1})
    assert list(runtime.left) == [3]
    assert events(sent, 2) == []


def test_a_refused_request_ends_alone(make: Make) -> None:
    scheduler, _, sent = make()
    ask(scheduler, 1, "1")
    ask(scheduler, 2, "bad")
    scheduler.step()
    assert events(sent, 1)[-1] == "done"
    refusal = next(event for event in sent if event["event"] == "error")
    assert (refusal["id"], refusal["type"], refusal["hint"]) == (2, "BadRequest", "Say something else.")


@pytest.mark.parametrize(
    ("raised", "type"),
    [
        (MemoryError(), "NotEnoughMemory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "NotEnoughMemory"),
        (RuntimeError("odd"), "Unexpected"),
    ],
)
def test_a_failed_step_ends_its_answers_and_the_next_one_works(make: Make, raised: Exception, type: str) -> None:
    scheduler, runtime, sent = make()
    ask(scheduler, 1, "5")
    ask(scheduler, 2, "5")
    runtime.fail = raised
    scheduler.step()
    assert {(e["id"], e["type"]) for e in sent if e["event"] == "error"} == {(1, type), (2, type)}
    assert not scheduler.busy
    runtime.fail = None
    ask(scheduler, 3, "1")
    scheduler.step()
    assert events(sent, 3)[-1] == "done"


def test_a_child_whose_memory_ran_out_ends_once_the_answers_it_has_begun_are_whole(make: Make) -> None:
    scheduler, _, sent = make()
    commands: SimpleQueue[Frame | None] = SimpleQueue()
    for id, text in ((1, "3"), (2, "huge"), (3, "2")):
        commands.put({"op": "generate", "id": id, "messages": [{"role": "user", "content": text}], "params": {}})
    serve(scheduler, commands, lambda: any(map(ran_out, sent)))  # would wait for the next command
    assert [events(sent, id)[-1] for id in (1, 2, 3)] == ["done", "error", "done"]


def test_measuring_and_threads_pass_through(make: Make) -> None:
    scheduler, runtime, sent = make()
    scheduler.handle({"op": "measure", "id": 7, "messages": [{"role": "user", "content": "x"}]})
    scheduler.handle({"op": "threads", "count": 3})
    assert sent == [
        {"event": "size", "id": 7, "size": {"tokens": 1, "context_length": 100, "dropped": 0, "estimated": False}}
    ]
    assert runtime.threads == 3


def test_the_status_says_who_is_answered_who_waits_and_what_was_reused(make: Make) -> None:
    scheduler, _, sent = make(slots=1)
    for id, text in enumerate(["1", "9", "9"], start=1):
        ask(scheduler, id, text)
    scheduler.step()
    scheduler.handle({"op": "status", "id": 8})
    assert sent[-1] == {
        "event": "status",
        "id": 8,
        "status": {
            "answering": 1,
            "waiting": 1,
            "threads": 1,
            "cached_tokens": 7,
            "prompt_tokens": 10,
            "reused_tokens": 4,
        },
    }


def test_joined_pieces_keep_what_was_told_of_their_tokens() -> None:
    def piece(text: str, *tokens: str) -> Frame:
        told = {"logprobs": [[token, -1.0, []] for token in tokens]} if tokens else {}
        return {"event": "text", "id": 1, "text": text, "at": 1.0, **told}

    (both,) = joined([piece("", "\xc3"), piece("é", "\xa9"), piece("!")])
    assert both["text"] == "é!" and [token for token, *_ in both["logprobs"]] == ["\xc3", "\xa9"]


def test_parameters_are_the_same_at_the_other_end() -> None:
    params = SamplingParams(stop=("a", "b"), logit_bias=((5, -1.5), (7, 2.0)), grammar='root ::= "a"', top_logprobs=0)
    frame = json.loads(encode({"id": 1, "messages": [], "params": params.asdict()}))
    assert request_from(frame).params == params
