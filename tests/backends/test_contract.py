"""What every backend promises, asked of each of them in the same words."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import fields
from itertools import pairwise, zip_longest
from typing import Any

import psutil
import pytest

from multimodel.errors import BadRequest, MultimodelError
from multimodel.registry import BACKENDS
from multimodel.types import Backend, Chunk, Message, SamplingParams, Usage, collect

from ..support import eventually
from .cases import ASK, CASES, Case

GREEDY = SamplingParams(temperature=0.0, max_tokens=24)
LONG = [Message("user", "word " * 60)]
ENDS = {"stop", "length"}


def said(model: Backend, messages: Sequence[Message] = ASK, params: SamplingParams = GREEDY) -> str:
    return collect(model.stream(messages, params))[0]


def usage(model: Backend, messages: Sequence[Message] = ASK, params: SamplingParams = GREEDY) -> Usage:
    found = collect(model.stream(messages, params))[1].usage
    assert found
    return found


def in_use() -> tuple[int, int, int]:
    """Threads, processes and open files: what a stream may take, and has to give back."""
    here = psutil.Process()
    children = [child for child in here.children(recursive=True) if child.status() != psutil.STATUS_ZOMBIE]
    return threading.active_count(), len(children), here.num_fds() if psutil.POSIX else here.num_handles()


def takes(model: Backend, field: str) -> bool:
    return field in model.capabilities.params


def test_no_backend_is_without_a_case() -> None:
    assert {name.partition(" ")[0] for name in CASES} == BACKENDS.keys()


# The stream


def test_there_is_one_final_chunk_and_it_is_the_last(model: Backend) -> None:
    *before, last = model.stream(ASK, GREEDY)
    assert last.finish_reason in ENDS
    assert not any(chunk.finish_reason or chunk.usage for chunk in before)
    assert "".join(chunk.text for chunk in before)


def test_text_is_stamped_where_it_comes_and_in_order(model: Backend) -> None:
    began = time.perf_counter()
    stamps = [chunk.at for chunk in model.stream(ASK, GREEDY) if chunk.text or chunk.finish_reason]
    assert None not in stamps
    in_order = [began, *filter(None, stamps), time.perf_counter()]
    assert in_order == sorted(in_order)


def test_the_text_is_all_of_the_pieces(case: Case, model: Backend) -> None:
    pieces = [chunk.text for chunk in model.stream(ASK, GREEDY) if chunk.text]
    assert len(pieces) > 1
    assert "".join(pieces) == said(model)
    if case.repeats:
        assert "".join(pieces) == ASK[0].content


def test_usage_is_reported_and_adds_up(model: Backend) -> None:
    short, long = usage(model), usage(model, LONG)
    assert 0 < short.input_tokens < long.input_tokens
    assert 0 < short.output_tokens <= 24 and short.total_tokens == short.input_tokens + short.output_tokens
    assert (short + long).total_tokens == short.total_tokens + long.total_tokens
    assert model.capabilities.reports_usage is not short.estimated
    assert usage(model).reused_tokens < short.input_tokens


def test_a_measured_prompt_is_as_long_as_the_one_that_is_read(case: Case, model: Backend) -> None:
    size = model.measure(LONG)
    assert (size is not None) is model.capabilities.local
    assert size is None or (size.tokens, size.estimated) == (usage(model, LONG).input_tokens, False)


# Waiting and leaving


def test_a_wait_is_full_of_heartbeats(case: Case, model: Backend) -> None:
    stream = model.stream(ASK, GREEDY)
    with case.silence(model):
        times = [time.perf_counter() for _ in zip(range(5), stream, strict=False)]
        assert min(later - earlier for earlier, later in pairwise(times)) <= 0.5
    assert collect(stream)[1].finish_reason in ENDS


def test_leaving_before_the_first_text_frees_the_work(case: Case, model: Backend) -> None:
    before = in_use()
    with case.silence(model):
        stream = model.stream(LONG, SamplingParams())
        assert not "".join(chunk.text for chunk in (next(stream), *([next(stream)] if case.breaks else [])))
        stream.close()
    assert case.freed()
    eventually(lambda: in_use() == before)
    assert said(model) == said(model)


def test_leaving_in_the_middle_frees_the_work(case: Case, model: Backend) -> None:
    before = in_use()
    stream = model.stream(LONG, SamplingParams())
    next(chunk for chunk in stream if chunk.text)
    with case.silence(model):
        stream.close()
    assert case.freed()
    eventually(lambda: in_use() == before)
    assert said(model) == said(model)


def test_leaving_while_it_loads_frees_the_work(case: Case, model: Backend, fresh: Backend) -> None:
    before = in_use()
    with case.silence(model):
        stream = fresh.stream(ASK, GREEDY)
        if fresh.capabilities.local and case.breaks:
            eventually(lambda: bool(next(stream) and in_use()[1] > before[1]))
        else:
            next(stream)
        stream.close()
    eventually(lambda: in_use() == before)


def test_it_comes_back_after_a_break_and_after_being_closed(case: Case, fresh: Backend) -> None:
    text = said(fresh)
    if case.breaks:
        _breaks(case, fresh)
        assert said(fresh) == text
    fresh.close()
    fresh.close()
    assert said(fresh) == text


def _breaks(case: Case, backend: Backend) -> None:
    with case.silence(backend):
        stream = backend.stream(ASK, GREEDY)
        next(stream)
        case.break_off(backend)
        with pytest.raises(MultimodelError) as caught:
            collect(stream)
    assert caught.value.hint and str(caught.value)


def test_two_streams_at_once_do_not_mix(model: Backend) -> None:
    asks = [ASK, [Message("system", "Be kind."), *LONG]]
    alone = [said(model, ask) for ask in asks]
    turns = list(zip_longest(*(model.stream(ask, GREEDY) for ask in asks), fillvalue=Chunk()))
    assert ["".join(chunk.text for chunk in chunks) for chunks in zip(*turns, strict=True)] == alone
    assert alone[0] != alone[1]


def test_threads_may_ask_at_once(model: Backend) -> None:
    alone, answers = said(model), list[str]()
    threads = [threading.Thread(target=lambda: answers.append(said(model))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [alone] * 4


# Parameters

SCHEMA = '{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}'
SET: dict[str, Any] = {
    "max_tokens": 2,
    "temperature": 0.0,
    "top_p": 0.5,
    "top_k": 3,
    "min_p": 0.25,
    "repetition_penalty": 1.5,
    "presence_penalty": 0.5,
    "frequency_penalty": -0.5,
    "seed": 0,
    "stop": ("zz", "yy"),
    "logit_bias": ((7, -1.5), (8, 2.0)),
    "grammar": 'root ::= "yes" | "no"',
    "json_schema": SCHEMA,
    "top_logprobs": 2,
    "tools": '[{"type": "function", "function": {"name": "now"}}]',
    "tool_choice": "required",
}
NEEDED = {"tool_choice": {"tools": SET["tools"]}}
"""What a parameter means nothing without."""


def test_every_parameter_is_tried() -> None:
    assert SET.keys() == {field.name for field in fields(SamplingParams)}


@pytest.mark.parametrize("field", SET)
def test_a_parameter_reaches_the_model_where_it_is_taken_and_only_there(case: Case, model: Backend, field: str) -> None:
    some = {field: SET[field], **NEEDED.get(field, {})}
    reached = case.reached(SamplingParams(**some))
    assert reached == {name: value for name, value in some.items() if takes(model, name)}


def test_what_is_not_set_is_not_sent(case: Case) -> None:
    assert case.reached(SamplingParams()) == {}


def test_one_token_is_one_token(model: Backend) -> None:
    text, last = collect(model.stream(ASK, SamplingParams(max_tokens=1, temperature=0.0)))
    assert (last.finish_reason, last.usage and last.usage.output_tokens) == ("length", 1)
    assert said(model).startswith(text)


def test_without_temperature_it_says_the_same_again(model: Backend) -> None:
    assert said(model) == said(model)


def test_with_a_seed_chance_repeats_itself(model: Backend) -> None:
    if not takes(model, "seed"):
        return
    hot = [SamplingParams(temperature=1.0, max_tokens=24, seed=seed) for seed in (1, 1, 2, 3)]
    first, again, *others = (said(model, ASK, params) for params in hot)
    assert first == again
    assert set(others) != {first}


@pytest.mark.parametrize("params", [{"top_k": 1}, {"top_p": 0.0}, {"min_p": 1.0}])
def test_local_models_obey_what_narrows_the_choice(case: Case, model: Backend, params: dict[str, float]) -> None:
    if case.repeats:
        return
    hot = SamplingParams(temperature=2.0, max_tokens=24, seed=1)
    assert said(model, ASK, hot.merge(SamplingParams(**params))) == said(model) != said(model, ASK, hot)


@pytest.mark.parametrize("params", [{"repetition_penalty": 2.0}, {"presence_penalty": 2.0}, {"frequency_penalty": 2.0}])
def test_local_models_obey_the_penalties(case: Case, model: Backend, params: dict[str, float]) -> None:
    if case.repeats:
        return
    off = {name: float(name == "repetition_penalty") for name in params}
    plain, varied = (said(model, ASK, GREEDY.merge(SamplingParams(**each))) for each in (off, params))
    assert plain == said(model) != varied


def test_local_models_obey_a_bias(case: Case, model: Backend) -> None:
    if case.repeats:
        return
    token = 40  # a letter of the tiny model
    one = said(model, ASK, GREEDY.merge(SamplingParams(logit_bias=((token, 100.0),))))
    assert len(set(one)) == 1 and one[0] not in said(
        model, ASK, GREEDY.merge(SamplingParams(logit_bias=((token, -100.0),)))
    )


def test_local_models_obey_a_grammar(case: Case, model: Backend) -> None:
    if case.repeats:
        return
    text, last = collect(
        model.stream(ASK, SamplingParams(grammar='root ::= ("é" | "😀"){3} [0-9]+ "."', max_tokens=60))
    )
    assert last.finish_reason == "length" or re.fullmatch("(é|😀){3}[0-9]+[.]", text)
    assert re.match("(é|😀){3}[0-9]", text)


def test_local_models_obey_a_json_schema(case: Case, model: Backend) -> None:
    if case.repeats:
        return
    text, last = collect(model.stream(ASK, SamplingParams(json_schema=SCHEMA, max_tokens=80)))
    assert last.finish_reason == "stop" and isinstance(json.loads(text)["a"], int)


@pytest.mark.parametrize(
    "params",
    [
        {"grammar": 'root ::= "a'},
        {"grammar": "root ::= root"},
        {"grammar": "root ::= root | item\nitem ::= [a-z]"},
        {"grammar": 'root ::= "a" root'},
        {"grammar": 'root ::= "a" (other'},
        {"grammar": ""},
        {"json_schema": "{"},
        {"json_schema": "[]"},
        {"json_schema": '{"$ref": "#"}'},
        {"json_schema": '{"type": "string", "pattern": "a+"}'},
        {"logit_bias": ((999_999, 1.0),)},
    ],
)
def test_what_cannot_be_obeyed_is_refused_and_others_go_on(case: Case, model: Backend, params: dict[str, Any]) -> None:
    if case.repeats:
        return
    other = model.stream(LONG, GREEDY)
    next(chunk for chunk in other if chunk.text)
    with pytest.raises(BadRequest) as caught:
        collect(model.stream(ASK, SamplingParams(**params)))
    assert str(caught.value) and caught.value.hint
    assert collect(other)[1].finish_reason in ENDS
    assert said(model)


def test_each_token_has_its_log_probability_where_it_was_asked_for(model: Backend) -> None:
    if not takes(model, "top_logprobs"):
        return
    chunks = list(model.stream(ASK, GREEDY.merge(SamplingParams(top_logprobs=3))))
    tokens = [token for chunk in chunks for token in chunk.logprobs]
    text, last = collect(chunks)
    assert last.usage and len(tokens) == last.usage.output_tokens
    assert b"".join(token.data for token in tokens).decode("utf-8", "replace").startswith(text)
    for token in tokens:
        assert token.logprob <= 0 and len(token.alternatives) == 3
        assert token.logprob == token.alternatives[0].logprob  # greedy: the likeliest
    assert not any(chunk.logprobs for chunk in model.stream(ASK, GREEDY))


def test_a_stop_string_is_never_shown(model: Backend) -> None:
    whole = list(model.stream(ASK, GREEDY))
    text, pieces = collect(whole)[0], [chunk.text for chunk in whole if chunk.text]
    stop = pieces[0][-1] + pieces[1][0]  # half of it has come when the other half is still awaited
    cut, last = collect(model.stream(ASK, GREEDY.merge(SamplingParams(stop=(stop, "never said")))))
    assert last.finish_reason in ENDS
    assert cut == (text.partition(stop)[0] if takes(model, "stop") else text)


# Text


def test_a_system_message_is_part_of_the_prompt(model: Backend) -> None:
    with_system = [Message("system", "Be very brief."), *ASK]
    assert usage(model, with_system).input_tokens > usage(model).input_tokens
    assert said(model, with_system)


@pytest.mark.parametrize(
    ("text", "heard"),
    [
        ("né 😀 👩‍👩‍👧 🇩🇪", "né 😀 👩‍👩‍👧 🇩🇪"),
        ("e\u0301 a\u0308\u0323", "e\u0301 a\u0308\u0323"),  # combining: nothing is normalised
        ("שלום مرحبا \u202bx\u202c", "שלום مرحبا \u202bx\u202c"),
        ("漢字 ｶﾅ\u3000\u00a0\u2028 end", "漢字 ｶﾅ\u3000\u00a0\u2028 end"),
        ("a\ud800b \udfff", "a\ufffdb \ufffd"),
        ("\ud83d\ude00", "😀"),  # two halves that belong together
        ("tab\tline\nend", "tab\tline\nend"),
    ],
)
def test_any_text_reaches_the_model(case: Case, model: Backend, text: str, heard: str) -> None:
    answer, last = collect(model.stream([Message("user", text)], GREEDY))
    assert last.finish_reason in ENDS and answer.encode()
    if case.repeats:
        assert answer == heard
    else:  # the tokenizer of the tiny model knows bytes
        empty, full = model.measure([Message("user", "")]), model.measure([Message("user", text)])
        assert empty and full and full.tokens - empty.tokens == len(heard.encode())


@pytest.mark.parametrize("content", ["", " ", "\n\n"])
def test_next_to_nothing_is_answered_or_refused(model: Backend, content: str) -> None:
    try:
        *_, last = model.stream([Message("user", content)], GREEDY)
    except MultimodelError as refusal:
        assert refusal.hint
    else:
        assert last.finish_reason in ENDS
