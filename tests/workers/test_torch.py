"""The transformers runtime: the text is the library's own, whoever else is answered and whatever was kept before."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from multimodel.errors import (
    BadRequest,
    BrokenFile,
    ContextLengthExceeded,
    LoadError,
    MissingDependency,
    NotEnoughMemory,
)
from multimodel.folder import read_json
from multimodel.types import LoadOptions, Message, SamplingParams, TokenLogprob
from multimodel.workers.prompt import PLAIN_NOTE
from multimodel.workers.protocol import Frame, Request, logprobs_from

from ..support import DATA, GUIDE_FOLDER, GUIDE_GGUF, needs, needs_data, tiny_llama
from .alike import told_differently

pytestmark = needs("torch", "transformers")

PROMPT = "Tell me of the sea, of ships and of the people who sail them."


def runtime(folder: Path, *, kept_caches: int = 1 << 30, **options: Any) -> Any:
    import torch

    from multimodel.workers.torch import TorchRuntime
    from multimodel.workers.torch_load import load_folder

    torch.set_num_threads(1)
    return TorchRuntime(load_folder(folder, LoadOptions(**options), lambda *stage: None), kept_caches)


@pytest.fixture(scope="module")
def tiny(tiny_folder: Path) -> Any:
    return runtime(tiny_folder)


def request(id: int, text: str = PROMPT, *, history: Iterable[Message] = (), **params: Any) -> Request:
    return Request(id, (*history, Message("user", text)), SamplingParams(**params))


def finish(runtime: Any, frames: list[Frame] | None = None) -> list[Frame]:
    frames = [] if frames is None else frames
    while runtime.active():
        frames += runtime.step()
    return frames


def answer(runtime: Any, asked: Request) -> list[Frame]:
    frames = finish(runtime, runtime.admit(asked))
    runtime.drop(asked.id)
    return frames


def text_of(frames: Iterable[Frame], id: int | None = None) -> str:
    return "".join(f["text"] for f in frames if f["event"] == "text" and id in (None, f["id"]))


def done(frames: Iterable[Frame]) -> Frame:
    return next(f for f in frames if f["event"] == "done")


def library_text(folder: Path, messages: list[dict[str, str]], tokens: int) -> str:
    """What the library's own generate makes of it."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt").input_ids
    with torch.inference_mode():
        out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False)
    return str(tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True))


# The text


def test_greedy_text_is_the_librarys(tiny: Any, tiny_folder: Path) -> None:
    frames = answer(tiny, request(1, max_tokens=80))
    assert text_of(frames) == library_text(tiny_folder, [{"role": "user", "content": PROMPT}], 80)
    assert len(text_of(frames)) > 40


def same_text_as_llama(folder: Path, gguf: Path, prompts: Iterable[str], tokens: int, **params: Any) -> None:
    from multimodel.workers import llama

    ours = runtime(folder)
    theirs = llama.load(gguf, LoadOptions(context_length=ours.facts.context_length), 1, lambda *stage: None)
    try:
        for number, prompt in enumerate(prompts):
            asked = request(number, prompt, max_tokens=tokens, **params)
            mine, other = answer(ours, asked), answer(theirs, asked)
            assert text_of(mine) == text_of(other) != ""
            assert done(mine)["finish_reason"] == done(other)["finish_reason"]
            assert done(mine)["usage"]["input_tokens"] == done(other)["usage"]["input_tokens"]
            assert done(mine)["usage"]["output_tokens"] == done(other)["usage"]["output_tokens"]
    finally:
        theirs.close()


def clear_choices(folder: Path, prompt: str, tokens: int, margin: float = 0.02, **params: Any) -> int:
    """After how many tokens two are first as likely, within a margin: llama.cpp rounds its cache to 16 bits."""
    model = runtime(folder)
    model.admit(request(1, prompt, max_tokens=tokens, **params))
    asked = model._answers[1]
    unclear: list[int] = []

    def draw(logits: Any) -> int:
        best, second = logits.topk(2).values
        if best - second < margin:
            unclear.append(len(asked.tokens) - asked.prompt)
        return int(logits.argmax())

    asked.sampler._draw = draw
    usage = done(finish(model))["usage"]
    return min([*unclear, usage["output_tokens"]])


JSON = '{"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "boolean"}}, "required": ["b"]}'
WISHES: list[dict[str, Any]] = [
    {},
    {"presence_penalty": 1.5},
    {"frequency_penalty": 0.8},
    {"presence_penalty": -0.5, "frequency_penalty": 0.5},
    {"repetition_penalty": 1.3},  # of prompts longer than 64 tokens too, the window of llama.cpp's own programs
    {"logit_bias": ((40, 1.5), (41, -100.0))},
    {"logit_bias": ((50, 2.0),), "repetition_penalty": 1.2, "presence_penalty": 0.5, "frequency_penalty": 0.3},
    {"grammar": 'root ::= ([a-z]+ " "){2,} [^a-z]+'},
    {"grammar": 'root ::= "é" [ぁ-ゟ😀-😎]{2,4} "."', "presence_penalty": 1.0},
    {"json_schema": JSON},
]


@needs("llama_cpp", "gguf")
@pytest.mark.parametrize("wishes", WISHES, ids=" ".join)
def test_greedy_text_is_that_of_the_same_weights_in_llama_cpp(
    tiny_folder: Path, tiny_gguf_file: Path, wishes: dict[str, Any]
) -> None:
    prompts = [PROMPT * 2, "Hi", "Ünïcödé ☂?"]
    sure = {prompt: clear_choices(tiny_folder, prompt, 64, **wishes) for prompt in prompts}
    for prompt, tokens in sure.items():
        if tokens:
            same_text_as_llama(tiny_folder, tiny_gguf_file, [prompt], tokens, **wishes)
    assert sum(sure.values()) > 20


def tokens_of(frames: Iterable[Frame]) -> list[TokenLogprob]:
    return [token for frame in frames for token in logprobs_from(frame.get("logprobs", ()))]


@needs("llama_cpp", "gguf")
@pytest.mark.parametrize(
    "wishes", [{}, {"temperature": 0.7, "seed": 1, "presence_penalty": 1.0, "top_k": 1}], ids=" ".join
)
def test_log_probabilities_are_those_of_the_same_weights_in_llama_cpp(
    tiny_folder: Path, tiny_gguf_file: Path, wishes: dict[str, Any]
) -> None:
    from multimodel.workers import llama

    ours, theirs = runtime(tiny_folder), llama.load(tiny_gguf_file, LoadOptions(), 1, lambda *stage: None)
    count = clear_choices(tiny_folder, PROMPT, 20, **wishes)
    asked = request(1, max_tokens=count, top_logprobs=5, **wishes)
    mine, other = (tokens_of(answer(each, asked)) for each in (ours, theirs))
    theirs.close()
    assert len(mine) == len(other) == count > 5
    for one, two in zip(mine, other, strict=True):
        assert one.data == two.data and one.logprob == pytest.approx(two.logprob, abs=0.02)
        for first, second in zip(one.alternatives, two.alternatives, strict=True):
            assert first.logprob == pytest.approx(second.logprob, abs=0.02)


def test_log_probabilities_are_the_models_own_whatever_is_done_to_its_logits(tiny: Any) -> None:
    import torch

    plain = tokens_of(answer(tiny, request(1, max_tokens=12, top_logprobs=20)))
    seen: list[Any] = []
    tiny.admit(request(2, max_tokens=12, top_logprobs=0, temperature=1.0, top_k=1, logit_bias=((9, -100.0),)))
    sampler, pick = tiny._answers[2].sampler, tiny._answers[2].sampler.pick
    sampler.pick = lambda logits, history: (seen.append(logits.clone()), pick(logits, history))[1]
    frames = finish(tiny)
    tiny.drop(2)
    again = tokens_of(frames)
    assert [t.alternatives for t in again] == [()] * 12
    for token, logits in zip(again, seen, strict=True):
        best = torch.log_softmax(logits.double(), -1).max()
        assert token.logprob <= float(best) + 1e-6
    assert [(t.data, t.logprob) for t in again] == [(t.data, t.logprob) for t in plain]  # token 9 is never said
    for token in plain:
        values = [other.logprob for other in token.alternatives]
        assert values == sorted(values, reverse=True) and len(values) == 20 and token.logprob == values[0]


def test_tokens_that_are_half_a_character_have_their_bytes(tiny: Any) -> None:
    wish = {"grammar": 'root ::= "é" "😀"', "top_logprobs": 0, "max_tokens": 20}
    frames = answer(tiny, request(1, **wish))
    tokens = tokens_of(frames)
    assert b"".join(token.data for token in tokens) == "é😀".encode() and text_of(frames) == "é😀"
    assert [token.text for token in tokens] == ["\ufffd"] * 6


def test_special_tokens_among_the_alternatives_have_their_names(tiny: Any) -> None:
    bias = {"logit_bias": ((1, -100.0),), "top_logprobs": 20}
    names = {
        other.text
        for token in tokens_of(answer(tiny, request(1, max_tokens=60, **bias)))
        for other in token.alternatives
    }
    assert names & {"<s>", "</s>", "<|user|>", "<|bot|>", "<|system|>"}


def test_without_a_token_for_what_the_grammar_wants_the_answer_ends_and_says_so(tiny_folder: Path) -> None:
    model = runtime(tiny_folder)
    model._pieces[:] = [b"" if piece == b"z" else piece for piece in model._pieces]
    frames = answer(model, request(1, grammar='root ::= "ab" "z"'))
    assert text_of(frames) == "ab" and done(frames)["finish_reason"] == "incomplete"
    assert any("no token for what the grammar wants" in frame["text"] for frame in frames if frame["event"] == "note")


def test_a_grammar_is_refused_where_nobody_knows_the_bytes_of_tokens(tiny_folder: Path) -> None:
    model = runtime(tiny_folder)
    from tokenizers import decoders

    model._tokenizer.backend_tokenizer.decoder = decoders.WordPiece()
    with pytest.raises(BadRequest, match="tokenizer"):
        model.admit(request(1, grammar='root ::= "a"'))
    assert model.active() == 0


AMBIGUOUS = 'root ::= [a-z] root x | [a-z] root y | "."\nx ::= "c"\ny ::= "c"'


def test_a_grammar_that_explodes_ends_its_answer_and_no_other(tiny_folder: Path) -> None:
    model = runtime(tiny_folder)
    alone = text_of(answer(model, request(9, max_tokens=40)))
    model.admit(request(1, grammar=AMBIGUOUS, logit_bias=((14, -100.0), (15, -100.0))))
    model.admit(request(2, max_tokens=40))
    frames = finish(model)
    assert [(f["id"], f["type"]) for f in frames if f["event"] == "error"] == [(1, "BadRequest")]
    assert text_of(frames, 2) == alone


@needs("llama_cpp")
@needs_data("models", "stories260k-chat")
def test_a_real_model_says_the_same_in_both_engines() -> None:
    model = DATA / "models" / "stories260k-chat"
    prompts = ["Once upon a time", "Lily and Ben went to the park", "The big dog"]
    folder, gguf = model / "hf", model / "gguf" / "stories260k-chat-f16.gguf"
    for wishes in (
        {},
        {"presence_penalty": 1.5},
        {"grammar": 'root ::= " "? [A-Z] [a-z, ]{9,} "."'},
        {"json_schema": JSON},
    ):
        for prompt in prompts:
            sure = clear_choices(folder, prompt, 64, margin=0.005, **wishes)
            assert sure > 7
            same_text_as_llama(folder, gguf, [prompt], sure, **wishes)


@needs("llama_cpp")
@pytest.mark.skipif(not (GUIDE_FOLDER.exists() and GUIDE_GGUF.exists()), reason="needs the built-in model")
def test_the_built_in_model_says_the_same_in_both_engines() -> None:
    prompts = ["What is a token?", "how do i add a column", "Who painted the Mona Lisa?", "hi"]
    yes = {"grammar": 'root ::= ("Yes" | "No") ", " [a-z ]{5,40} "."'}
    for wishes in ({}, {"presence_penalty": 1.5}, {"presence_penalty": 0.5, "frequency_penalty": 0.7}, yes):
        same_text_as_llama(GUIDE_FOLDER, GUIDE_GGUF, prompts, 64, **wishes)


def test_several_answers_at_once_are_those_of_each_alone(tiny: Any) -> None:
    prompts = [PROMPT, "Hi", "What is the longest river?" * 12, "Why?"]
    alone = [text_of(answer(tiny, request(i, p, max_tokens=30))) for i, p in enumerate(prompts)]
    frames = [frame for i, p in enumerate(prompts) for frame in tiny.admit(request(i, p, max_tokens=30))]
    finish(tiny, frames)
    assert [text_of(frames, i) for i in range(4)] == alone
    assert len(set(alone)) == 4
    for i in range(4):
        tiny.drop(i)


def test_sampling_repeats_with_its_seed_and_differs_without(tiny: Any) -> None:
    def drawn(seed: int | None) -> str:
        return text_of(answer(tiny, request(1, temperature=1.5, seed=seed, max_tokens=40)))

    assert drawn(7) == drawn(7) != drawn(8)
    assert drawn(None) != drawn(None)


def test_parameters_that_leave_one_candidate_are_greedy(tiny: Any) -> None:
    greedy = text_of(answer(tiny, request(1, max_tokens=30)))
    for narrow in ({"top_k": 1}, {"top_p": 0.0}, {"min_p": 1.0}):
        assert text_of(answer(tiny, request(1, temperature=2.0, max_tokens=30, **narrow))) == greedy


# The end of an answer


def test_max_tokens_and_the_end_of_the_context_are_length(tiny: Any) -> None:
    last = done(answer(tiny, request(1, max_tokens=5)))
    assert (last["finish_reason"], last["usage"]["output_tokens"]) == ("length", 5)
    short = runtime(tiny_folder_of(tiny), context_length=100)
    last = done(answer(short, request(1)))
    assert last["finish_reason"] == "length"
    assert last["usage"]["input_tokens"] + last["usage"]["output_tokens"] == 100


def test_a_prompt_can_be_looked_at_as_it_is_read(tiny: Any) -> None:
    asked = request(1, "And </s>now?", max_tokens=4)
    told = next(frame for frame in tiny.admit(asked) if frame["event"] == "prompt")
    found = tiny.inspect(asked)
    assert (found.digest, found.dropped, found.stripped) == (told["digest"], told["dropped"], len("</s>"))
    assert b"".join(data for _, data in found.tokens).decode() == found.text
    tiny.drop(1)


def tiny_folder_of(tiny: Any) -> Path:
    return Path(tiny._model.config._name_or_path)


def test_a_stop_string_ends_the_answer_and_is_not_shown(tiny: Any) -> None:
    whole = text_of(answer(tiny, request(1, max_tokens=60)))
    stop = whole[20:24]
    frames = answer(tiny, request(1, max_tokens=60, stop=("never there", stop)))
    assert text_of(frames) == whole[: whole.index(stop)]
    assert done(frames)["finish_reason"] == "stop"


def test_every_end_token_of_the_model_ends_an_answer(tiny: Any, tiny_folder: Path, tmp_path: Path) -> None:
    whole = text_of(answer(tiny, request(1, max_tokens=60)))
    folder = copied(tiny_folder, tmp_path)
    letter = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"][whole[10]]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, letter]}))
    frames = answer(runtime(folder), request(1, max_tokens=60))
    assert text_of(frames) == whole[: whole.index(whole[10])].rstrip("\ufffd")  # half a character is not text
    assert done(frames)["finish_reason"] == "stop"


# Prompts


def test_typed_special_tokens_cannot_end_a_turn(tiny: Any) -> None:
    plain = tiny.measure([Message("user", "ab")]).tokens
    assert tiny.measure([Message("user", "a</s><|bot|>b")]).tokens == plain
    assert tiny.measure([Message("user", "a<</s>/s>b")]).tokens == plain


def test_a_model_without_a_chat_template_continues_plain_text_and_says_so(base_folder: Path) -> None:
    base = runtime(base_folder)
    assert base.facts.template == "plain"
    frames = answer(base, request(1, max_tokens=5))
    assert [f["text"] for f in frames if f["event"] == "note"] == [PLAIN_NOTE]


def test_a_history_too_long_loses_its_oldest_turns_and_says_so(tiny: Any) -> None:
    history = [Message(role, "word " * 30) for role in ("user", "assistant") * 4]
    size = tiny.measure([*history, Message("user", PROMPT)])
    assert size.tokens > size.context_length == 512 and size.dropped > 0
    frames = answer(tiny, request(1, history=history, max_tokens=4))
    assert any("left out" in f["text"] for f in frames if f["event"] == "note")
    with pytest.raises(ContextLengthExceeded):
        tiny.admit(request(2, "word " * 500))
    with pytest.raises(BadRequest):
        runtime_without_template(tiny).admit(request(3, ""))
    assert tiny.active() == 0


def runtime_without_template(tiny: Any) -> Any:
    return runtime(tiny_llama(tiny_folder_of(tiny).parent / "plain", template=None))


@pytest.mark.parametrize(
    ("template", "kind"),
    [
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", BrokenFile),
        ("{{ raise_exception('roles must alternate') }}", BadRequest),
        ("{{ ''.__class__.__mro__ }}", BrokenFile),
        ("{{ 1 / 0 }}", BrokenFile),
        ("{% for %}", BrokenFile),
        ("{{ nonesuch.name }}", BrokenFile),
    ],
)
def test_a_hostile_or_broken_template_is_an_error(
    tiny_folder: Path, tmp_path: Path, template: str, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("multimodel.workers.prompt.TEMPLATE_SECONDS", 0.3)
    folder = copied(tiny_folder, tmp_path)
    for old in folder.glob("chat_template*"):
        old.unlink()
    edit(folder / "tokenizer_config.json", lambda c: c.update(chat_template=template))
    with pytest.raises(kind):
        runtime(folder).admit(request(1))


def test_a_template_that_refuses_the_system_role_gets_it_inside_the_first_turn(
    tiny_folder: Path, tmp_path: Path
) -> None:
    folder = copied(tiny_folder, tmp_path)
    for old in folder.glob("chat_template*"):
        old.unlink()
    no_system = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no') }}{% endif %}{{ m.content }}"
    )
    edit(folder / "tokenizer_config.json", lambda c: c.update(chat_template=no_system + "{% endfor %}"))
    model = runtime(folder)
    both = model.measure([Message("system", "ab"), Message("user", "cd")]).tokens
    assert both == model.measure([Message("user", "ab\n\ncd")]).tokens


# Caches


def test_the_next_turn_evaluates_only_what_is_new(tiny_folder: Path) -> None:
    model = runtime(tiny_folder)
    first = answer(model, request(1, max_tokens=20))
    history = [Message("user", PROMPT), Message("assistant", text_of(first))]
    frames = answer(model, request(2, "And then?", history=history, max_tokens=20))
    usage = done(frames)["usage"]
    assert usage["reused_tokens"] >= done(first)["usage"]["input_tokens"]
    fresh = answer(runtime(tiny_folder), request(2, "And then?", history=history, max_tokens=20))
    assert text_of(frames) == text_of(fresh) and done(fresh)["usage"]["reused_tokens"] == 0


def test_regenerating_reuses_all_but_the_last_token_of_the_prompt(tiny_folder: Path) -> None:
    model = runtime(tiny_folder)
    first = answer(model, request(1, max_tokens=20))
    again = answer(model, request(1, max_tokens=20))
    assert text_of(first) == text_of(again)
    assert done(again)["usage"]["reused_tokens"] == done(first)["usage"]["input_tokens"] - 1


def asked_at_once(runtime: Any, prompts: Iterable[str], **params: Any) -> tuple[list[str], list[dict[str, int]]]:
    """(texts, usages) of prompts that arrive together."""
    frames: list[Frame] = []
    ids = [frames.extend(runtime.admit(request(id, text, **params))) or id for id, text in enumerate(prompts, 1)]
    frames = finish(runtime, frames)
    for id in ids:
        runtime.drop(id)
    found = {frame["id"]: frame["usage"] for frame in frames if frame["event"] == "done"}
    return [text_of(frames, id) for id in ids], [found[id] for id in ids]


def test_the_same_question_asked_eight_times_at_once_is_read_once(tiny_folder: Path) -> None:
    expected = text_of(answer(runtime(tiny_folder), request(1, max_tokens=24)))
    texts, usages = asked_at_once(runtime(tiny_folder), [PROMPT] * 8, max_tokens=24)
    assert texts == [expected] * 8
    evaluated = sorted(usage["input_tokens"] - usage["reused_tokens"] for usage in usages)
    assert evaluated[:7] == [0] * 7 and evaluated[7] == usages[0]["input_tokens"]


@pytest.mark.parametrize("left", [0, 1, 2])
def test_equal_prompts_begin_together_wherever_the_last_piece_ends(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    alone = answer(runtime(tiny_folder), request(9))
    monkeypatch.setattr("multimodel.workers.prefill.MOST", done(alone)["usage"]["input_tokens"] - left)
    model = runtime(tiny_folder)
    frames = [frame for id in range(3) for frame in model.admit(request(id))]
    finish(model, frames)
    assert [text_of(frames, id) for id in range(3)] == [text_of(alone)] * 3
    assert [a.evaluated for a in model._answers.values()] == [a.cache.get_seq_length() for a in model._answers.values()]


def test_a_common_beginning_is_read_once_and_the_rest_by_each(tiny_folder: Path) -> None:
    prompts = [PROMPT + end for end in ("", " And then?", " Why?")]
    alone = [text_of(answer(runtime(tiny_folder), request(1, text, max_tokens=24))) for text in prompts]
    texts, usages = asked_at_once(runtime(tiny_folder), prompts, max_tokens=24)
    assert texts == alone
    assert usages[0]["reused_tokens"] == 0 and min(usage["reused_tokens"] for usage in usages[1:]) > 0.9 * len(PROMPT)


@pytest.mark.parametrize("steps", [0, 1])
def test_who_waited_for_an_answer_that_was_stopped_goes_on_alone(tiny_folder: Path, steps: int) -> None:
    long = PROMPT * 7
    expected = text_of(answer(runtime(tiny_folder), request(1, long, max_tokens=8)))
    shared = runtime(tiny_folder)
    shared.admit(request(1, long, max_tokens=8))
    shared.admit(request(2, long, max_tokens=8))
    for _ in range(steps):
        assert shared._answers[1].reading and shared._answers[2].cache is None
        shared.step()
    shared.drop(1)
    frames = finish(shared)
    assert text_of(frames, 2) == expected
    assert (done(frames)["usage"]["reused_tokens"] > 0) is bool(steps)


def test_prompts_that_arrive_together_are_read_together(tiny_folder: Path) -> None:
    prompts = [f"{i}. {PROMPT[i:40]}" for i in range(4)]
    alone = [text_of(answer(runtime(tiny_folder), request(1, text, max_tokens=16))) for text in prompts]
    together = runtime(tiny_folder)
    for id, text in enumerate(prompts):
        together.admit(request(id, text, max_tokens=16))
    frames = together.step()
    assert not any(asked.reading for asked in together._answers.values())
    finish(together, frames)
    assert [text_of(frames, id) for id in range(4)] == alone


def test_without_a_budget_nothing_is_kept(tiny_folder: Path) -> None:
    model = runtime(tiny_folder, kept_caches=0)
    answer(model, request(1, max_tokens=5))
    assert done(answer(model, request(1, max_tokens=5)))["usage"]["reused_tokens"] == 0


def test_the_oldest_caches_leave_first() -> None:
    from multimodel.workers.torch_cache import MOST_KEPT, PrefixStore

    class Cache:
        layers: tuple[()] = ()

    store = PrefixStore(None, budget=0)  # empty caches cost nothing
    first, longer = Cache(), Cache()
    for token in range(MOST_KEPT - 1):
        store.keep([token], first if token == 0 else Cache())
    store.keep([5, 6], longer)  # instead of [5], which it continues
    assert store.take([5, 6, 7]).tokens == (5, 6)
    store.keep([98], Cache())
    store.keep([99], Cache())
    assert store.take([0, 1]).cache is first
    store.keep([0], first)
    for token in range(100, 100 + MOST_KEPT):
        store.keep([token], Cache())
    assert store.take([0, 1]).tokens == ()


def test_a_sliding_window_is_reused_only_where_nothing_must_be_cut(tmp_path: Path) -> None:
    folder = llama_like(tmp_path / "sliding", "Mistral", sliding_window=32)
    model = runtime(folder)
    long = PROMPT * 3
    first = answer(model, request(1, long, max_tokens=30))
    assert text_of(first) == library_text(folder, [{"role": "user", "content": long}], 30)
    again = answer(model, request(1, long, max_tokens=30))
    assert text_of(again) == text_of(first) and done(again)["usage"]["reused_tokens"] == 0


# Several answers in one pass


def way_of(folder: Path, **options: Any) -> str:
    """How several answers go through a model, once it is sure that each says what it says alone the library's way."""
    joint, single = runtime(folder, **options), runtime(folder, **options)
    single._joint = None
    if attention := getattr(joint._joint, "_own", ""):
        assert joint._model.config._attn_implementation != attention
        single._model.set_attn_implementation(attention)
    prompts = [PROMPT, "Hi", PROMPT[:30] + "!" * 50, "Hi there"]
    alone = [text_of(answer(single, request(i, text, max_tokens=40))) for i, text in enumerate(prompts)]
    frames: list[Frame] = []
    for i, text in enumerate(prompts):
        frames += joint.admit(request(i, text, max_tokens=40))
        frames += joint.step() if i % 2 else []  # each two are read at once, the second two beside those that decode
    finish(joint, frames)
    assert [text_of(frames, i) for i in range(len(prompts))] == alone
    return type(joint._joint).__name__


FIXED: dict[str, Any] = {"initializer_range": 0.2, "eos_token_id": 1, "bos_token_id": 0, "pad_token_id": None}


def llama_like(folder: Path, kind: str, **changes: Any) -> Path:
    """The tiny Llama's tokenizer and sizes with another architecture or configuration, and random weights."""
    import torch
    import transformers

    tiny_llama(folder)
    sizes = json.loads((folder / "config.json").read_text())
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    same = {name: sizes[name] for name in (*names, "num_key_value_heads", "max_position_embeddings")} | changes
    torch.manual_seed(0)
    config = getattr(transformers, {"Gemma3": "Gemma3Text"}.get(kind, kind) + "Config")(**same, **FIXED)
    model = getattr(transformers, f"{kind}ForCausalLM")(config)
    for (
        name,
        weight,
    ) in model.named_parameters():  # biases and norms begin as zeros and ones, which would hide a mistake
        if weight.dim() == 1:
            torch.nn.init.normal_(weight, mean=float("norm" in name), std=0.2)
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("Llama", {"num_key_value_heads": 2}),
        ("Llama", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": False}),
        ("Llama", {"head_dim": 16}),
        (
            "Llama",
            {
                "rope_parameters": {
                    "rope_type": "llama3",
                    "rope_theta": 5e5,
                    "factor": 8.0,
                    "low_freq_factor": 1.0,
                    "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 128,
                }
            },
        ),
        ("Mistral", {"sliding_window": None}),
        ("Qwen2", {"vocab_size": 272}),  # the library gives its tokenizer a token more
        ("Qwen3", {"vocab_size": 272, "num_key_value_heads": 2}),
    ],
)
def test_a_llama_has_a_short_way_that_says_the_same(tmp_path: Path, kind: str, changes: dict[str, Any]) -> None:
    assert way_of(llama_like(tmp_path / "model", kind, **changes)) == "LlamaStep"


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("Mistral", {"sliding_window": 32}),
        ("Llama", {"hidden_act": "gelu"}),
        ("Phi3", {}),
        ("Gemma2", {"head_dim": 16, "sliding_window": 16, "attn_logit_softcapping": 5.0}),  # only by its own attention
        ("Gemma3", {"head_dim": 16, "sliding_window": 16}),
        ("Qwen3Moe", {"vocab_size": 272, "moe_intermediate_size": 32, "num_experts": 4, "num_experts_per_tok": 2}),
    ],
)
def test_others_go_the_librarys_way_all_at_once(tmp_path: Path, kind: str, changes: dict[str, Any]) -> None:
    assert way_of(llama_like(tmp_path / "model", kind, **changes)) == "JointStep"


@pytest.mark.parametrize(
    ("kind", "changes"), [("Llama", {}), ("Gemma3", {"head_dim": 16, "sliding_window": 16}), ("Phi3", {})]
)
def test_many_that_begin_alike_say_what_each_says_in_a_fresh_model(
    tmp_path: Path, kind: str, changes: dict[str, Any]
) -> None:
    folder = llama_like(tmp_path / "model", kind, **changes)
    used, single = runtime(folder), runtime(folder)

    def fresh(prompt: str) -> str:
        single._store = type(single._store)(single._model.config, 0)
        return text_of(answer(single, request(1, prompt, max_tokens=6)))

    assert told_differently(used, fresh, rounds=25, seed=3, longest=300) == []


@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_so_do_weights_of_few_bits(tiny_folder: Path, dtype: str) -> None:
    assert type(runtime(tiny_folder, dtype=dtype)._joint).__name__ == "JointStep"


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("Llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}),
        ("StableLm", {}),  # has an attention of its own that cannot be replaced
        ("Nemotron", {}),  # does not tell its attention what it is told
    ],
)
def test_what_cannot_be_asked_for_several_at_once_is_asked_for_each(
    tmp_path: Path, kind: str, changes: dict[str, Any]
) -> None:
    assert way_of(llama_like(tmp_path / "model", kind, **changes)) == "NoneType"


def test_a_way_that_disagrees_is_not_taken(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from multimodel.workers import torch_joint, torch_llama
    from multimodel.workers.torch_step import step_of

    model = runtime(tiny_folder)._model
    assert type(step_of(model, 512)) is torch_llama.LlamaStep
    monkeypatch.setattr(torch_llama, "silu", lambda x: x)
    joint = step_of(model, 512)
    assert isinstance(joint, torch_joint.JointStep)
    joint.close()
    monkeypatch.setattr(torch_joint._Joint, "_mask", lambda *_: None)
    assert step_of(model, 512) is None
    assert model.config._attn_implementation == "sdpa"


# Steps


def test_a_long_prompt_is_read_in_pieces_while_others_go_on_and_can_be_dropped(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("multimodel.workers.prefill.STALL", 0.0)
    model = runtime(tiny_folder)
    model.admit(request(1, "word " * 70, max_tokens=5))
    alone = model.step()
    model.drop(1)
    model.admit(request(2, "Hi", max_tokens=50))
    model.step()
    model.admit(request(3, "sword " * 60, max_tokens=5))
    beside = model.step()
    fractions = [next(f["fraction"] for f in frames if f["event"] == "reading") for frames in (alone, beside)]
    assert fractions[0] > 0.6 and fractions[1] < 0.2  # smaller pieces while somebody waits for the next token
    assert len(model._answers[2].tokens) - model._answers[2].prompt == 2
    model.drop(3)
    model.drop(99)
    assert model.active() == 1 and done(finish(model))["id"] == 2


def test_slow_steps_make_the_pieces_smaller(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multimodel.workers.prefill.SLOW", 0.0)
    model = runtime(tiny_folder)
    model.admit(request(1, "word " * 80, max_tokens=1))
    answered = model._answers[1]
    ends = [answered.evaluated for _ in range(3) if model.step() is not None]
    sizes = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    assert sizes == [256, 8, 8]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_end_the_answer_and_it_says_so(
    tiny_folder: Path, tmp_path: Path, value: float
) -> None:
    from safetensors.torch import load_file, save_file

    folder = copied(tiny_folder, tmp_path)
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"].fill_(value)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    model = runtime(folder)
    for id, wish in enumerate(({}, {"temperature": 1.0, "top_k": 5}, {"grammar": "root ::= [a-f]+"})):
        *_, last = answer(model, request(id, max_tokens=8, **wish))
        assert (last["event"], last["type"]) == ("error", "BrokenFile") and "no numbers" in last["message"]


def test_a_fault_of_one_answer_leaves_the_others_alone(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = runtime(tiny_folder)
    model.admit(request(1, max_tokens=5))
    model.admit(request(2, max_tokens=5))

    def broken(*args: Any) -> int:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(model._answers[1].sampler, "pick", broken)
    frames = finish(model)
    assert [f["type"] for f in frames if f["event"] == "error"] == ["NotEnoughMemory"]
    assert done(frames)["id"] == 2


def test_characters_are_never_cut_in_half(tiny: Any) -> None:
    frames = answer(tiny, request(1, temperature=2.0, seed=1, max_tokens=200))
    pieces = [f["text"] for f in frames if f["event"] == "text"]
    assert len(pieces) > 20 and not any(piece.endswith("\ufffd") for piece in pieces[:-1])


# What is refused


def copied(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def without_a_layer(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in weights.items() if ".1.mlp" not in k}, folder / "model.safetensors", {"format": "pt"})


def as_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def cut_short(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def huge_header(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes((1 << 40).to_bytes(8, "little") + path.read_bytes()[8:])


def no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def empty_tokenizer(folder: Path) -> None:
    edit(folder / "tokenizer.json", lambda t: (t["model"].update(vocab={}, merges=[]), t.update(added_tokens=[])))
    edit(folder / "tokenizer_config.json", lambda t: [t.pop(f"{n}_token", None) for n in ("bos", "eos", "pad")])


def foreign_tokenizer(folder: Path) -> None:
    edit(folder / "tokenizer.json", lambda t: t["model"]["vocab"].update(zzz=9999))


def remote_code(folder: Path) -> None:
    edit(folder / "config.json", lambda c: c.update(auto_map={"AutoModelForCausalLM": "evil.Model"}))


def other_shapes(folder: Path) -> None:
    edit(folder / "config.json", lambda c: c.update(intermediate_size=128))


def missing_shard(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def no_json(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def unknown_architecture(folder: Path) -> None:
    edit(folder / "config.json", lambda c: c.update(model_type="nonesuch"))


def no_text_model(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "vit"}))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (without_a_layer, r"weights of model\.layers\.1\.mlp\S+ and 2 more are missing"),
        (as_pickle, "pickle"),
        (cut_short, "damaged or incomplete"),
        (huge_header, "damaged or incomplete"),
        (no_tokenizer, "no tokenizer"),
        (empty_tokenizer, "tokenizer"),
        (foreign_tokenizer, "do not belong together"),
        (remote_code, "program code"),
        (other_shapes, r"does not fit together: model\.layers\.0\.\S+ is \(.*\) in the file, \(.*\) by config\.json"),
        (missing_shard, "1 weight files are missing"),
        (no_json, "cannot be read"),
        (unknown_architecture, "nonesuch"),
        (no_text_model, "cannot be loaded"),
    ],
)
def test_a_damaged_or_unsafe_folder_is_refused(
    tiny_folder: Path, tmp_path: Path, damage: Callable[[Path], None], says: str
) -> None:
    folder = copied(tiny_folder, tmp_path)
    damage(folder)
    with pytest.raises(LoadError, match=says) as caught:
        runtime(folder)
    assert caught.value.hint and "elete" not in caught.value.hint  # a folder of one's own


def test_a_folder_without_its_configuration_says_so_in_plain_words(tmp_path: Path) -> None:
    with pytest.raises(BrokenFile, match=rf"^{tmp_path.name} has no config\.json\.$"):
        read_json(tmp_path / "config.json")


def test_too_little_memory_is_noticed_before_loading(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from multimodel import hardware
    from multimodel.workers import torch_load

    device = hardware.Device("cpu", "cpu", 1 << 20, 1 << 19, "float32", "float32: test")
    monkeypatch.setattr(torch_load, "detect", lambda: hardware.Hardware((device,)))
    with pytest.raises(NotEnoughMemory, match=r"takes [2-9] MB as float32 with 512 tokens .* 1 MB is free on cpu"):
        runtime(tiny_folder)
    with pytest.raises(MissingDependency, match="no device cuda"):
        runtime(tiny_folder, device="cuda")


def test_tied_weights_are_not_missing(tiny: Any) -> None:
    assert tiny.facts.template == "own" and tiny.facts.parameters > 10_000
    assert (tiny.facts.device, tiny.facts.context_length, tiny.facts.notes) == ("cpu", 512, ())


def test_a_chosen_number_format_is_used(tiny_folder: Path) -> None:
    model = runtime(tiny_folder, dtype="bfloat16")
    assert model.facts.dtype == "bfloat16" and "bfloat16" in str(next(model._model.parameters()).dtype)
    assert text_of(answer(model, request(1, max_tokens=10)))
