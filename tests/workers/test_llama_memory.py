"""Reusing what was read, in models whose memory cannot be cut back at will: sliding windows, and a running state."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from multimodel.types import LoadOptions, Message, SamplingParams
from multimodel.workers.protocol import Frame, Request

from ..support import CHAT_TEMPLATE, _vocabulary, _write_vocabulary, needs
from .alike import told_differently

pytestmark = needs("llama_cpp", "gguf")
pytest.importorskip("llama_cpp")

from multimodel.workers import llama  # noqa: E402 - after the check that its package is there

WIDTH, WINDOW = 64, 32
LONG = "It was a long way to the sea, and nobody knew what the old map meant. " * 20


class Weights:
    """Writes a GGUF file of random weights."""

    def __init__(self, path: Path, arch: str, layers: int) -> None:
        import gguf
        import numpy

        self._random = numpy.random.default_rng(0)
        self.file: Any = gguf.GGUFWriter(path, arch)
        self.file.add_context_length(2048)
        self.file.add_embedding_length(WIDTH)
        self.file.add_block_count(layers)
        self.file.add_layer_norm_rms_eps(1e-5)
        self.file.add_vocab_size(len(_vocabulary()))
        _write_vocabulary(self.file, CHAT_TEMPLATE)
        self.ones(output_norm=WIDTH)
        self.random(token_embd=(len(_vocabulary()), WIDTH), output=(len(_vocabulary()), WIDTH))

    def random(self, prefix: str = "", suffix: str = ".weight", **shapes: tuple[int, ...]) -> None:
        """Wide, so that the logits lie far apart and rounding changes no greedy choice."""
        for name, shape in shapes.items():
            values = self._random.standard_normal(shape) * 0.2
            self.file.add_tensor(prefix + name + suffix, values.astype("float32"))

    def ones(self, prefix: str = "", **widths: int) -> None:
        for name, width in widths.items():
            self.file.add_tensor(f"{prefix}{name}.weight", (self._random.random(width) * 0 + 1).astype("float32"))

    def close(self) -> None:
        self.file.write_header_to_file()
        self.file.write_kv_data_to_file()
        self.file.write_tensors_to_file()
        self.file.close()


def mamba(path: Path) -> Path:
    """A state-space model: what it has read is one state, which only goes forward."""
    layers, inner, state, rank, kernel = 2, 128, 8, 4, 4
    weights = Weights(path, "mamba", layers)
    weights.file.add_feed_forward_length(0)
    weights.file.add_head_count(0)
    weights.file.add_ssm_conv_kernel(kernel)
    weights.file.add_ssm_inner_size(inner)
    weights.file.add_ssm_state_size(state)
    weights.file.add_ssm_time_step_rank(rank)
    for layer in range(layers):
        at = f"blk.{layer}."
        weights.ones(at, attn_norm=WIDTH)
        weights.random(at, ssm_in=(2 * inner, WIDTH), ssm_conv1d=(inner, kernel), ssm_out=(WIDTH, inner))
        weights.random(at, ssm_x=(rank + 2 * state, inner), ssm_dt=(inner, rank))
        weights.random(at, suffix=".bias", ssm_conv1d=(inner,), ssm_dt=(inner,))
        weights.random(at, suffix="", ssm_d=(inner,))
        weights.file.add_tensor(f"{at}ssm_a", -weights._random.random((inner, state)).astype("float32"))
    weights.close()
    return path


def gemma(path: Path) -> Path:
    """Five layers of six see only a window, and forget what lies before it."""
    layers, head, inner = 6, 32, 96
    weights = Weights(path, "gemma3", layers)
    weights.file.add_feed_forward_length(inner)
    weights.file.add_head_count(2)
    weights.file.add_head_count_kv(1)
    weights.file.add_key_length(head)
    weights.file.add_value_length(head)
    weights.file.add_rope_freq_base(10_000.0)
    weights.file.add_sliding_window(WINDOW)
    for layer in range(layers):
        at = f"blk.{layer}."
        weights.ones(at, attn_norm=WIDTH, post_attention_norm=WIDTH, ffn_norm=WIDTH, post_ffw_norm=WIDTH)
        weights.ones(at, attn_q_norm=head, attn_k_norm=head)
        weights.random(at, attn_q=(2 * head, WIDTH), attn_output=(WIDTH, 2 * head))
        weights.random(at, attn_k=(head, WIDTH), attn_v=(head, WIDTH))
        weights.random(at, ffn_gate=(inner, WIDTH), ffn_up=(inner, WIDTH), ffn_down=(WIDTH, inner))
    weights.close()
    return path


@pytest.fixture(scope="module", params=[mamba, gemma])
def runtime(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[llama.LlamaRuntime]:
    path = request.param(tmp_path_factory.mktemp("odd") / "model.gguf")
    made = llama.load(path, LoadOptions(), 1, lambda *_: None)
    yield made
    made.close()


def answer(runtime: llama.LlamaRuntime, *texts: str, id: int = 1, tokens: int = 24) -> tuple[str, Frame]:
    """The text and the usage of the answer to a conversation of these turns."""
    roles = ("user", "assistant")
    turns = tuple(Message(roles[i % 2], text) for i, text in enumerate(texts))
    runtime.admit(Request(id, turns, SamplingParams(max_tokens=tokens)))
    return finish(runtime, id)


def finish(runtime: llama.LlamaRuntime, id: int) -> tuple[str, Frame]:
    events: list[Frame] = []
    while runtime.active():
        events += runtime.step()
    mine = [event for event in events if event["id"] == id]
    return "".join(event.get("text", "") for event in mine), mine[-1]["usage"]


def forget(runtime: llama.LlamaRuntime) -> None:
    for slot in runtime._slots:
        runtime._cut(slot, 0)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([LONG], [LONG]),
        ([LONG], [LONG, "A short answer.", "And then?"]),
        ([LONG + "A"], [LONG + "B"]),  # cut back a little
        ([LONG + "A"], [LONG[:300] + "B"]),  # cut back behind the window
    ],
)
def test_an_answer_after_another_is_the_answer_of_a_fresh_model(
    runtime: llama.LlamaRuntime, first: list[str], second: list[str]
) -> None:
    forget(runtime)
    answer(runtime, *first)
    after, _ = answer(runtime, *second)
    forget(runtime)
    fresh, usage = answer(runtime, *second)
    assert usage["reused_tokens"] == 0
    assert after == fresh != ""


def test_so_is_one_that_begins_like_an_answer_under_way(runtime: llama.LlamaRuntime) -> None:
    forget(runtime)
    expected, _ = answer(runtime, LONG + "B")
    forget(runtime)
    runtime.admit(Request(2, (Message("user", LONG + "A"),), SamplingParams(max_tokens=60)))
    for _ in range(14):
        runtime.step()
    text, _ = answer(runtime, LONG + "B", id=3)
    assert text == expected


def test_eight_at_once_of_unequal_length_say_what_each_says_alone(runtime: llama.LlamaRuntime) -> None:
    prompts = [chr(ord("a") + i) * (20 + i) for i in (3, 0, 7, 1, 5, 2, 6, 4)]
    alone = [answer(runtime, prompt)[0] for prompt in prompts]
    forget(runtime)
    for i, prompt in enumerate(prompts):
        runtime.admit(Request(i, (Message("user", prompt),), SamplingParams(max_tokens=24)))
    events: list[Frame] = []
    while runtime.active():
        events += runtime.step()
    said = ["".join(event.get("text", "") for event in events if event["id"] == i) for i in range(8)]
    assert said == alone


def test_many_that_begin_alike_say_what_each_says_in_a_fresh_model(runtime: llama.LlamaRuntime) -> None:
    def fresh(prompt: str) -> str:
        forget(runtime)
        return answer(runtime, prompt, tokens=6)[0]

    assert told_differently(runtime, fresh, rounds=60, seed=5) == []


def test_a_window_that_still_holds_is_used_again(runtime: llama.LlamaRuntime) -> None:
    forget(runtime)
    answer(runtime, LONG)
    _, usage = answer(runtime, LONG)
    assert usage["reused_tokens"] == (usage["input_tokens"] - 1 if runtime._model.window else 0)


def test_a_window_of_which_a_part_is_lost_is_not_used(runtime: llama.LlamaRuntime) -> None:
    forget(runtime)
    answer(runtime, LONG)
    oldest = max(runtime._context.first(slot.sequence) for slot in runtime._slots)
    tokens = oldest + WINDOW // 2 if runtime._model.window else 200
    begin = next(LONG[:n] for n in range(len(LONG)) if len(runtime._model.tokens("<s><|user|>" + LONG[:n])) == tokens)
    after, usage = answer(runtime, begin + "B")
    assert usage["reused_tokens"] == 0
    forget(runtime)
    assert after == answer(runtime, begin + "B")[0]
