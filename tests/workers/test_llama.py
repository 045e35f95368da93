"""The llama.cpp runtime on a tiny model of random weights, whose greedy choices no rounding changes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from multimodel.errors import BadRequest, BrokenFile, ContextLengthExceeded, NotEnoughMemory
from multimodel.hardware import Memory
from multimodel.types import LoadOptions, Message, SamplingParams
from multimodel.workers import prompt as prompts
from multimodel.workers.constraint import Vocabulary
from multimodel.workers.protocol import Frame, Request, logprobs_from
from multimodel.workers.text import HALF

from ..support import needs, tiny_gguf, tiny_llama
from .alike import told_differently

pytestmark = needs("llama_cpp", "gguf", "torch")
pytest.importorskip("llama_cpp")

from multimodel.workers import llama  # noqa: E402 - after the check that its package is there

LONG = "It was a long way to the sea, and nobody knew what the old map meant. "


@pytest.fixture
def runtime(tiny_gguf_file: Path) -> Iterator[llama.LlamaRuntime]:
    made = llama.load(tiny_gguf_file, LoadOptions(flash_attention=False), 1, lambda *_: None)
    yield made
    made.close()


def ask(runtime: llama.LlamaRuntime, id: int, text: str, **params: object) -> list[Frame]:
    return runtime.admit(Request(id, (Message("user", text),), SamplingParams(**{"max_tokens": 24, **params})))


def run(runtime: llama.LlamaRuntime) -> list[Frame]:
    events: list[Frame] = []
    while runtime.active():
        events += runtime.step()
    return events


def text_of(events: list[Frame], id: int) -> str:
    return "".join(event["text"] for event in events if event["event"] == "text" and event["id"] == id)


def done(events: list[Frame], id: int) -> Frame:
    return next(event for event in events if event["event"] == "done" and event["id"] == id)


def answer(runtime: llama.LlamaRuntime, text: str, id: int = 99, **params: object) -> str:
    ask(runtime, id, text, **params)
    return text_of(run(runtime), id)


def test_greedy_text_is_that_of_the_library(runtime: llama.LlamaRuntime, tiny_gguf_file: Path) -> None:
    from llama_cpp import Llama

    library = Llama(str(tiny_gguf_file), n_ctx=512, n_threads=1, n_threads_batch=1, verbose=False)
    try:
        prompt = library.tokenize(b"<s><|user|>hello there</s><|bot|>", add_bos=False, special=True)
        expected = library.create_completion(prompt, max_tokens=24, temperature=0)["choices"][0]["text"]
    finally:
        library.close()
    assert answer(runtime, "hello there").replace(HALF, "") == expected  # the library leaves out what is no character


def test_eight_at_once_say_what_each_says_alone(runtime: llama.LlamaRuntime) -> None:
    prompts = [f"{LONG * i} What is {i}?" for i in range(8)]
    alone = [answer(runtime, prompt, id=i) for i, prompt in enumerate(prompts, start=100)]
    for i, prompt in enumerate(prompts):
        ask(runtime, i, prompt)
    assert runtime.active() == 8
    events = run(runtime)
    assert [text_of(events, i) for i in range(8)] == alone


def test_the_next_turn_is_read_from_where_the_last_one_ended(runtime: llama.LlamaRuntime) -> None:
    first = answer(runtime, LONG, id=1)
    turns = (Message("user", LONG), Message("assistant", first), Message("user", "And then?"))
    runtime.admit(Request(2, turns, SamplingParams(max_tokens=24)))
    events = run(runtime)
    usage = done(events, 2)["usage"]
    assert len(LONG) < usage["reused_tokens"] < usage["input_tokens"]

    runtime.admit(Request(3, (Message("user", "Something else entirely."),), SamplingParams(max_tokens=4)))
    run(runtime)
    for slot in runtime._slots:
        runtime._cut(slot, 0)
    runtime.admit(Request(4, turns, SamplingParams(max_tokens=24)))
    fresh = run(runtime)
    assert done(fresh, 4)["usage"]["reused_tokens"] == 0
    assert text_of(fresh, 4) == text_of(events, 2)


def test_the_same_prompt_again_evaluates_its_last_token_only(runtime: llama.LlamaRuntime) -> None:
    first = answer(runtime, LONG, id=1)
    ask(runtime, 2, LONG)
    events = run(runtime)
    usage = done(events, 2)["usage"]
    assert usage["reused_tokens"] == usage["input_tokens"] - 1
    assert text_of(events, 2) == first


def test_a_short_prompt_again_is_reused_too_and_cuts_no_conversation_that_begins_with_it(
    runtime: llama.LlamaRuntime,
) -> None:
    def asked(id: int, *turns: Message) -> Frame:
        runtime.admit(Request(id, turns, SamplingParams(max_tokens=40)))
        usage: Frame = done(run(runtime), id)["usage"]
        return usage

    hi = Message("user", "hi")
    asked(1, hi)
    again = asked(2, hi)
    assert again["reused_tokens"] == again["input_tokens"] - 1 < 16
    talk = (hi, Message("assistant", LONG * 2), Message("user", "And then?"))
    asked(3, *talk)
    for id in (4, 5):  # whichever slot it is read in
        asked(id, hi)
    after = asked(6, *talk)
    assert after["reused_tokens"] == after["input_tokens"] - 1


def test_a_prefix_is_shared_with_an_answer_under_way(runtime: llama.LlamaRuntime) -> None:
    expected = answer(runtime, LONG + "B", id=1)
    for slot in runtime._slots:
        runtime._cut(slot, 0)
    ask(runtime, 2, LONG + "A", max_tokens=60)
    for _ in range(3):
        runtime.step()
    ask(runtime, 3, LONG + "B")
    events = run(runtime)
    assert done(events, 3)["usage"]["reused_tokens"] >= len(LONG)
    assert text_of(events, 3) == expected


def forgotten(runtime: llama.LlamaRuntime) -> None:
    for slot in runtime._slots:
        runtime._cut(slot, 0)


@pytest.mark.parametrize("question", [LONG, "hi"])
def test_the_same_question_asked_eight_times_at_once_is_read_once(runtime: llama.LlamaRuntime, question: str) -> None:
    expected = answer(runtime, question)
    forgotten(runtime)
    for id in range(8):
        ask(runtime, id, question)
    events = run(runtime)
    assert [text_of(events, id) for id in range(8)] == [expected] * 8
    evaluated = [
        done(events, id)["usage"]["input_tokens"] - done(events, id)["usage"]["reused_tokens"] for id in range(8)
    ]
    assert sorted(evaluated)[:7] == [0] * 7  # not even the last token: they begin with the same logits
    assert max(evaluated) > len(question)


def test_prompts_of_unequal_length_are_read_in_one_pass_and_keep_no_filler(
    runtime: llama.LlamaRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [chr(ord("a") + i) * (20 + i) for i in (3, 0, 7, 1, 5, 2, 6, 4)]
    alone = [answer(runtime, prompt, id=i) for i, prompt in enumerate(prompts, start=100)]
    forgotten(runtime)
    tokens: list[int] = []
    decode = runtime._context.decode

    def counted() -> None:
        tokens.append(runtime._context._batch.n_tokens)
        decode()

    monkeypatch.setattr(runtime._context, "decode", counted)
    for i, prompt in enumerate(prompts):
        ask(runtime, i, prompt)
    read = [len(slot.answer.pending) for slot in runtime._slots if slot.answer]
    events = runtime.step()
    assert tokens == [8 * max(read)] and max(read) > min(read)
    for slot in runtime._slots:
        assert runtime._context.length(slot.sequence) == len(slot.tokens)
    events += run(runtime)
    assert [text_of(events, i) for i in range(8)] == alone


def test_who_shares_a_question_still_draws_for_itself(runtime: llama.LlamaRuntime) -> None:
    seeds = [1, 2, 3]
    alone = [answer(runtime, LONG, id=i, temperature=1.0, seed=seed) for i, seed in enumerate(seeds, start=100)]
    forgotten(runtime)
    for id, seed in enumerate(seeds):
        ask(runtime, id, LONG, temperature=1.0, seed=seed)
    events = run(runtime)
    assert [text_of(events, id) for id in range(3)] == alone and len(set(alone)) == 3


def test_a_common_beginning_is_read_once_and_the_rest_by_each(runtime: llama.LlamaRuntime) -> None:
    prompts = [LONG * 3 + end for end in ("A", "Quite another end of it.", "B", "")]
    alone = [answer(runtime, prompt, id=i) for i, prompt in enumerate(prompts, start=100)]
    forgotten(runtime)
    for i, prompt in enumerate(prompts):
        ask(runtime, i, prompt)
    events = run(runtime)
    assert [text_of(events, i) for i in range(4)] == alone
    reused = [done(events, i)["usage"]["reused_tokens"] for i in range(4)]
    assert reused[0] == 0 and min(reused[1:]) > 0.9 * 3 * len(LONG)


def test_a_common_beginning_is_read_once_though_the_slots_hold_old_answers(runtime: llama.LlamaRuntime) -> None:
    for i in range(8):
        answer(runtime, f"{i} {LONG}", id=20 + i)
    prompts = [LONG + end for end in ("x", LONG + "1", LONG + "2")]
    for i, prompt in enumerate(prompts):
        ask(runtime, i, prompt)
    events = run(runtime)
    reused = [done(events, i)["usage"]["reused_tokens"] for i in range(3)]
    assert reused[1] > 0.9 * len(LONG) and reused[2] > 1.8 * len(LONG)


def test_short_beginnings_are_copied_after_long_ones_were(tiny_gguf_file: Path) -> None:
    def load() -> llama.LlamaRuntime:
        return llama.load(tiny_gguf_file, LoadOptions(flash_attention=False, sequences=8), 1, lambda *_: None)

    short = [f"Be kind. {what}" for what in ("What is a ship?", "Zebra or a horse?", "Is it far?")]
    fresh = load()
    alone = [answer(fresh, prompt, id=i) for i, prompt in enumerate(short)]
    fresh.close()
    used = load()
    for i in range(7):
        ask(used, 10 + i, f"{i}", max_tokens=1)
    ask(used, 17, "Be kind. " + LONG * 4, max_tokens=200)  # its slot is copied whole, the next ones a few tokens
    for _ in range(6):
        used.step()
    for i, prompt in enumerate(short):
        ask(used, i, prompt)
    events = run(used)
    used.close()
    assert [text_of(events, i) for i in range(3)] == alone


def test_many_that_begin_alike_say_what_each_says_in_a_fresh_model(runtime: llama.LlamaRuntime) -> None:
    def fresh(prompt: str) -> str:
        forgotten(runtime)
        return answer(runtime, prompt, max_tokens=6)

    assert told_differently(runtime, fresh, rounds=60, seed=3, longest=300) == []


@pytest.mark.parametrize("steps", [0, 1])
def test_who_waited_for_an_answer_that_was_stopped_goes_on_alone(runtime: llama.LlamaRuntime, steps: int) -> None:
    expected = answer(runtime, LONG * 5)
    forgotten(runtime)
    ask(runtime, 1, LONG * 5)
    ask(runtime, 2, LONG * 5)
    for _ in range(steps):
        runtime.step()
    runtime.drop(1)
    events = run(runtime)
    assert text_of(events, 2) == expected
    assert (done(events, 2)["usage"]["reused_tokens"] > 0) is bool(steps)


def test_the_cache_that_was_idle_for_longest_goes_first(runtime: llama.LlamaRuntime) -> None:
    texts = [f"{i} {LONG}" for i in range(8)]
    for i, text in enumerate(texts):
        answer(runtime, text, id=i)
    answer(runtime, texts[0], id=20)  # used again, so not the oldest any more
    answer(runtime, "x " + LONG, id=21)
    for id, text, kept in ((22, texts[0], True), (23, texts[1], False)):
        ask(runtime, id, text)
        assert (done(run(runtime), id)["usage"]["reused_tokens"] > len(LONG)) is kept


def test_a_long_prompt_does_not_hold_up_an_answer(runtime: llama.LlamaRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multimodel.workers.prefill.STALL", 0.0)
    ask(runtime, 1, "hi", max_tokens=16)
    runtime.step()
    ask(runtime, 2, LONG * 5)
    events = run(runtime)
    over = events.index(done(events, 1))
    assert all(event["event"] == "reading" for event in events[:over] if event["id"] == 2)
    fractions = [event["fraction"] for event in events if event["event"] == "reading"]
    assert len(fractions) > 3
    assert fractions == sorted(fractions)


def test_a_stop_string_ends_the_answer_and_no_part_of_it_is_shown(runtime: llama.LlamaRuntime) -> None:
    whole = answer(runtime, "hello there", max_tokens=60)
    stop = whole[10:13]
    ask(runtime, 1, "hello there", max_tokens=60, stop=(stop,))
    events = run(runtime)
    assert text_of(events, 1) == whole[: whole.index(stop)]
    assert done(events, 1)["finish_reason"] == "stop"


def test_it_ends_at_max_tokens_and_at_the_end_of_the_context(runtime: llama.LlamaRuntime) -> None:
    ask(runtime, 1, "hello", max_tokens=5)
    last = done(run(runtime), 1)
    assert (last["finish_reason"], last["usage"]["output_tokens"]) == ("length", 5)
    ask(runtime, 2, LONG * 6, max_tokens=None)
    usage = done(run(runtime), 2)["usage"]
    assert usage["input_tokens"] + usage["output_tokens"] == runtime.facts.context_length


def test_a_seed_repeats_an_answer(runtime: llama.LlamaRuntime) -> None:
    said = [answer(runtime, "hello", temperature=1.5, seed=seed) for seed in (1, 1, 2)]
    assert said[0] == said[1] != said[2]


@pytest.mark.parametrize("only_one", [{"top_k": 1}, {"min_p": 1.0}, {"top_p": 0.0}])
def test_sampling_from_one_token_is_greedy(runtime: llama.LlamaRuntime, only_one: dict[str, float]) -> None:
    assert answer(runtime, "hello", temperature=2.0, seed=3, **only_one) == answer(runtime, "hello")


def test_the_repetition_penalty_is_applied(runtime: llama.LlamaRuntime) -> None:
    assert answer(runtime, "hello", repetition_penalty=2.0) != answer(runtime, "hello")


def test_penalties_of_the_answer_do_not_count_the_prompt(runtime: llama.LlamaRuntime) -> None:
    first = answer(runtime, "hello", max_tokens=1)
    assert answer(runtime, f"hello {first}" * 3, max_tokens=1) == answer(
        runtime, f"hello {first}" * 3, max_tokens=1, presence_penalty=2.0, frequency_penalty=2.0
    )


def test_a_chosen_token_is_penalised_under_a_grammar_too(runtime: llama.LlamaRuntime) -> None:
    letters = answer(runtime, "hello", grammar="root ::= [a-f]{6}", presence_penalty=2.0, frequency_penalty=2.0)
    plain = answer(runtime, "hello", grammar="root ::= [a-f]{6}")
    assert len(letters) == len(plain) == 6 and len(set(letters)) > len(set(plain))


def test_with_a_grammar_chance_repeats_itself_with_its_seed(runtime: llama.LlamaRuntime) -> None:
    said = [answer(runtime, "hi", grammar="root ::= [a-z]{12}", temperature=1.5, seed=seed) for seed in (1, 1, 2)]
    assert said[0] == said[1] != said[2] and all(text.isalpha() and len(text) == 12 for text in said)


def test_without_a_token_for_what_the_grammar_wants_the_answer_ends_and_says_so(runtime: llama.LlamaRuntime) -> None:
    pieces = runtime._model.vocabulary.pieces
    runtime._model.vocabulary = Vocabulary([b"" if piece == b"z" else piece for piece in pieces], [1])
    ask(runtime, 1, "hello", grammar='root ::= "ab" "z"')
    events = run(runtime)
    assert text_of(events, 1) == "ab" and done(events, 1)["finish_reason"] == "incomplete"
    assert any("no token for what the grammar wants" in event["text"] for event in events if event["event"] == "note")


AMBIGUOUS = 'root ::= [a-z] root x | [a-z] root y | "."\nx ::= "c"\ny ::= "c"'


def test_a_grammar_that_explodes_ends_its_answer_and_no_other(runtime: llama.LlamaRuntime) -> None:
    alone = answer(runtime, "hello", max_tokens=40)
    period = runtime._model.tokens(".")[-1]
    ask(runtime, 1, "hello", max_tokens=None, grammar=AMBIGUOUS, logit_bias=((period, -100.0),))
    ask(runtime, 2, "hello", max_tokens=40)
    events = run(runtime)
    assert [(e["id"], e["type"]) for e in events if e["event"] == "error"] == [(1, "BadRequest")]
    assert text_of(events, 2) == alone


def test_tokens_that_are_half_a_character_have_their_bytes(runtime: llama.LlamaRuntime) -> None:
    ask(runtime, 1, "hello", grammar='root ::= "é" "😀"', top_logprobs=2)
    events = run(runtime)
    tokens = [token for event in events for token in logprobs_from(event.get("logprobs", ()))]
    assert b"".join(token.data for token in tokens) == "é😀".encode() and text_of(events, 1) == "é😀"
    assert [token.text for token in tokens] == [HALF] * 6 and all(len(token.alternatives) == 2 for token in tokens)


def test_what_is_refused_changes_nothing(runtime: llama.LlamaRuntime) -> None:
    before = answer(runtime, "hello")
    for wish in ({"grammar": "root ::= root"}, {"json_schema": "{"}, {"logit_bias": ((99999, 1.0),)}):
        with pytest.raises(BadRequest):
            ask(runtime, 2, "hello", **wish)
    assert runtime.active() == 0 and answer(runtime, "hello") == before


def test_typed_special_tokens_do_not_end_a_turn(runtime: llama.LlamaRuntime) -> None:
    plain, typed = ([Message("user", f"a{middle}b")] for middle in ("", "</s><|bot|>"))
    assert runtime.measure(typed) == runtime.measure(plain)


def test_there_is_exactly_one_bos(runtime: llama.LlamaRuntime) -> None:
    model = runtime._model
    assert model.tokens("<s>hi") == model.tokens("<s><s>hi") == [model.bos, *model.tokens("hi")]


def test_a_prompt_can_be_looked_at_as_it_is_read(runtime: llama.LlamaRuntime) -> None:
    turns = (*[Message("user", LONG), Message("assistant", LONG)] * 4, Message("user", "And </s>now?"))
    asked = Request(1, turns, SamplingParams(max_tokens=4))
    told = next(frame for frame in runtime.admit(asked) if frame["event"] == "prompt")
    found = runtime.inspect(asked)
    assert (found.digest, found.dropped, found.stripped) == (told["digest"], told["dropped"], len("</s>"))
    assert found.dropped and b"".join(data for _, data in found.tokens).decode() == found.text
    runtime.drop(1)


def test_old_turns_are_left_out_and_it_says_so(runtime: llama.LlamaRuntime) -> None:
    old = [Message("user", LONG), Message("assistant", LONG)] * 4
    turns = (*old, Message("user", "And now?"))
    notes = runtime.admit(Request(1, turns, SamplingParams(max_tokens=4)))
    assert "left out" in notes[0]["text"]
    size = runtime.measure(turns)
    assert size.tokens > size.context_length == 512
    assert size.dropped % 2 == 0 < size.dropped


def test_a_message_that_cannot_fit_is_refused_and_nothing_changes(runtime: llama.LlamaRuntime) -> None:
    before = answer(runtime, "hello")
    with pytest.raises(ContextLengthExceeded):
        ask(runtime, 2, LONG * 20)
    assert runtime.active() == 0
    assert answer(runtime, "hello") == before


def test_a_megabyte_is_refused_by_its_beginning(runtime: llama.LlamaRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    cut: list[int] = []
    whole = runtime._model.tokens
    monkeypatch.setattr(runtime._model, "tokens", lambda text: cut.append(len(text)) or whole(text))
    with pytest.raises(ContextLengthExceeded, match=r"takes about \d{6,} tokens, the model's context holds 512"):
        ask(runtime, 1, LONG * 15_000)
    assert sum(cut) < 20_000 and runtime.active() == 0


def test_a_model_without_template_continues_text_and_says_so(base_folder: Path, tmp_path: Path) -> None:
    runtime = llama.load(tiny_gguf(base_folder, tmp_path / "base.gguf"), LoadOptions(), 1, lambda *_: None)
    notes = ask(runtime, 1, "abc")
    assert (runtime.facts.template, notes[0]["text"]) == ("plain", prompts.PLAIN_NOTE)
    assert done(run(runtime), 1)["usage"]["input_tokens"] == 3
    runtime.close()


def test_a_template_that_never_ends_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompts, "TEMPLATE_SECONDS", 0.2)
    loop = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    path = tiny_gguf(tiny_llama(tmp_path / "hf", template=loop), tmp_path / "loop.gguf")
    runtime = llama.load(path, LoadOptions(), 1, lambda *_: None)
    with pytest.raises(BrokenFile, match="template"):
        ask(runtime, 1, "hi")
    runtime.close()


NO_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{{ m.content }}{% endfor %}{% if messages | length > 1 %}{{ raise_exception('One turn only') }}{% endif %}"
)


def test_a_template_that_refuses_the_system_role_gets_it_inside_the_first_turn(tiny_gguf_file: Path) -> None:
    runtime = llama.load(tiny_gguf_file, LoadOptions(chat_template=NO_SYSTEM), 1, lambda *_: None)
    both = runtime.measure([Message("system", "ab"), Message("user", "cd")]).tokens
    assert both == runtime.measure([Message("user", "ab\n\ncd")]).tokens
    with pytest.raises(BadRequest, match=r"refuses this conversation: One turn only$"):
        runtime.measure([Message("system", "ab"), Message("user", "cd"), Message("user", "ef")])
    runtime.close()


def test_a_template_that_is_broken_is_said_to_be(tiny_gguf_file: Path) -> None:
    for text, says in (("{% for %}", "TemplateSyntaxError in line 1"), ("{{ nonesuch.name }}", "UndefinedError")):
        runtime = llama.load(tiny_gguf_file, LoadOptions(chat_template=text), 1, lambda *_: None)
        with pytest.raises(BrokenFile, match=f"is broken: {says}"):
            ask(runtime, 1, "hi")
        runtime.close()


def test_the_context_is_as_long_as_asked(tiny_gguf_file: Path) -> None:
    for asked, given in ((100, 100), (4096, 512)):
        runtime = llama.load(tiny_gguf_file, LoadOptions(context_length=asked), 1, lambda *_: None)
        assert runtime.facts.context_length == given
        runtime.close()


def test_loading_tells_how_far_it_is(tiny_gguf_file: Path) -> None:
    told: list[float | None] = []
    llama.load(tiny_gguf_file, LoadOptions(), 1, lambda stage, fraction, detail: told.append(fraction)).close()
    assert told[-1] == 1.0
    assert told == sorted(told, key=lambda fraction: fraction or 0)


def test_what_is_larger_than_memory_is_refused_with_figures(
    tiny_gguf_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = tiny_gguf_file.stat().st_size
    for free, what in ((1000, r"0\.3 MB of memory, 0\.0 MB are free\."), (size + 1000, "The context needs")):
        monkeypatch.setattr(llama, "memory", lambda free=free: Memory(1 << 40, free))
        with pytest.raises(NotEnoughMemory, match=what):
            llama.load(tiny_gguf_file, LoadOptions(), 1, lambda *_: None)


def test_little_memory_means_fewer_answers_at_once(tiny_gguf_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slot = 512 * 2 * 2 * 2 * 32  # tokens x (key, value) x bytes x layers x width of one head
    free = tiny_gguf_file.stat().st_size + 12 * slot
    monkeypatch.setattr(llama, "memory", lambda: Memory(1 << 40, free))
    runtime = llama.load(tiny_gguf_file, LoadOptions(), 1, lambda *_: None)
    assert runtime.facts.slots == 3
    runtime.close()


def test_weights_that_are_no_numbers_end_the_answer_and_it_says_so(tiny_folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(tiny_folder, tmp_path / "hf")
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"].fill_(float("nan"))
    save_file(weights, folder / "model.safetensors")
    runtime = llama.load(tiny_gguf(folder, tmp_path / "nan.gguf"), LoadOptions(), 1, lambda *_: None)
    for id, wish in enumerate(({}, {"temperature": 1.0, "top_k": 5}, {"grammar": "root ::= [a-f]+"})):
        ask(runtime, id, "hello", **wish)
        *_, last = run(runtime)
        assert (last["event"], last["type"]) == ("error", "BrokenFile") and "no numbers" in last["message"]
        assert runtime.active() == 0 and "another number format" in last["hint"]
    runtime.close()


@pytest.mark.parametrize("length", [0, 2**32 - 1])
def test_a_file_whose_context_is_nonsense_is_damaged(tiny_folder: Path, tmp_path: Path, length: int) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "hf")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": length}))
    with pytest.raises(BrokenFile, match=rf"is damaged: its context would hold {length} tokens\.$") as caught:
        llama.load(tiny_gguf(folder, tmp_path / "odd.gguf"), LoadOptions(), 1, lambda *_: None)
    assert "Download" in caught.value.hint


def test_a_broken_file_is_refused_in_the_words_of_llama_cpp(tiny_gguf_file: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    whole = tiny_gguf_file.read_bytes()
    broken.write_bytes(whole[:4] + (99).to_bytes(4, "little") + whole[8:])
    with pytest.raises(BrokenFile, match="version"):
        llama.load(broken, LoadOptions(), 1, lambda *_: None)
