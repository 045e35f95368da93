"""What several tests share: markers, optional data, models made on the spot, and fakes.

The tiny model is a Llama of random weights with a byte-level tokenizer and a chat template, as a safetensors folder
and as a GGUF file of the same weights. It talks nonsense, quickly, and the same nonsense in both forms.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from threading import Event
from typing import Any

import pytest

from multimodel.pool import Pool
from multimodel.settings import Settings
from multimodel.types import (
    Capabilities,
    Chunk,
    FinishReason,
    Message,
    ModelId,
    ModelSpec,
    PromptSize,
    SamplingParams,
    Usage,
)

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
"""Real models and data sets beside the repository, which is complete without them."""

CHROMIUM = which("chromium") or which("chromium-browser") or which("google-chrome")
GUIDE_FOLDER = ROOT / "assets" / "guide" / "hf"
GUIDE_GGUF = ROOT / "assets" / "guide" / "guide-q8_0.gguf"

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")


def needs(*packages: str) -> pytest.MarkDecorator:
    """Skip where one of the packages is not installed."""
    missing = [package for package in packages if find_spec(package) is None]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")


def needs_data(*parts: str) -> pytest.MarkDecorator:
    """Skip where this file or folder is not beside the repository: `needs_data("models", "stories260k")`."""
    path = DATA.joinpath(*parts)
    return pytest.mark.skipif(not path.exists(), reason=f"needs {path.relative_to(ROOT.parent)} beside the repository")


SPECIALS = ("<s>", "</s>", "<|user|>", "<|bot|>", "<|system|>")
BOS, EOS = 0, 1
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for m in messages %}"
    "<|{{ 'bot' if m.role == 'assistant' else m.role }}|>{{ m.content }}</s>"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|bot|>{% endif %}"
)


def tiny_llama(folder: Path, *, context: int = 512, template: str | None = CHAT_TEMPLATE, seed: int = 0) -> Path:
    """A random Llama of two layers as a Transformers folder; returns the folder."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    _write_tokenizer(folder, context, template)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(_vocabulary()),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        rms_norm_eps=1e-5,
        initializer_range=0.2,  # wide, so that the logits lie far apart and rounding changes no greedy choice
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=EOS,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def tiny_gguf(source: Path, path: Path) -> Path:
    """The model of a `tiny_llama` folder as a GGUF file in F32; returns the path."""
    import gguf
    from safetensors.torch import load_file

    config = json.loads((source / "config.json").read_text())
    writer = gguf.GGUFWriter(path, "llama")
    _write_header(writer, config)
    _write_vocabulary(writer, json.loads((source / "tokenizer_config.json").read_text()).get("chat_template"))
    for name, tensor in load_file(source / "model.safetensors").items():
        writer.add_tensor(_gguf_name(name), _interleaved(name, tensor.float().numpy(), config))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _vocabulary() -> dict[str, int]:
    """The special tokens, then all bytes, then two pairs: llama.cpp wants at least one merge."""
    from tokenizers.pre_tokenizers import ByteLevel

    return {token: i for i, token in enumerate([*SPECIALS, *sorted(ByteLevel.alphabet()), "th", "he"])}


MERGES = [("t", "h"), ("h", "e")]


def _write_tokenizer(folder: Path, context: int, template: str | None) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokenizer = Tokenizer(models.BPE(vocab=_vocabulary(), merges=MERGES))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIALS])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    facts = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": SPECIALS[BOS],
        "eos_token": SPECIALS[EOS],
        "pad_token": SPECIALS[EOS],
        "clean_up_tokenization_spaces": False,
        "model_max_length": context,
    }
    facts |= {"chat_template": template} if template else {}
    (folder / "tokenizer_config.json").write_text(json.dumps(facts))


def _write_header(writer: Any, config: Mapping[str, Any]) -> None:
    heads = config["num_attention_heads"]
    writer.add_name("tiny")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(10_000.0)
    writer.add_rope_dimension_count(config["hidden_size"] // heads)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(0)


def _write_vocabulary(writer: Any, template: str | None) -> None:
    tokens = list(_vocabulary())
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in SPECIALS else 1 for token in tokens])  # 3: control, 1: normal
    writer.add_token_merges([" ".join(pair) for pair in MERGES])
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(EOS)
    writer.add_pad_token_id(EOS)
    writer.add_add_bos_token(False)  # the chat template says it
    if template:
        writer.add_chat_template(template)


_GGUF_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def _gguf_name(name: str) -> str:
    """What llama.cpp calls a tensor of Transformers.

    >>> _gguf_name("model.layers.1.mlp.up_proj.weight")
    'blk.1.ffn_up.weight'
    """
    if name == "model.embed_tokens.weight":
        return "token_embd.weight"
    if name == "model.norm.weight":
        return "output_norm.weight"
    _, _, layer, *middle, _ = name.split(".")
    return f"blk.{layer}.{_GGUF_NAMES['.'.join(middle)]}.weight"


def _interleaved(name: str, weights: Any, config: Mapping[str, Any]) -> Any:
    """Queries and keys with their rotary pairs side by side, as llama.cpp's Llama wants them; the rest as it is."""
    heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}.get(name.split(".")[-2])
    if heads is None:
        return weights
    rows, columns = weights.shape
    return weights.reshape(config[heads], 2, -1, columns).swapaxes(1, 2).reshape(rows, columns)


Reply = Callable[[Sequence[Message]], Iterable[Chunk]]
"""What a fake model says to a conversation."""

ALL_PARAMS = frozenset(field.name for field in fields(SamplingParams))


class FakeBackend:
    """A model that says what a test wants, and remembers what it was asked and how its streams ended."""

    capabilities = Capabilities(params=ALL_PARAMS, local=False)

    def __init__(self, model: ModelId, reply: Reply) -> None:
        self.model = model
        self.asked: list[tuple[Message, ...]] = []
        self.params: list[SamplingParams] = []
        self.ended = 0  # streams that are over, however they ended
        self.closed = 0
        self._reply = reply

    def stream(self, messages: Sequence[Message], params: SamplingParams) -> Generator[Chunk]:
        """The reply, whatever the parameters are."""
        self.asked.append(tuple(messages))
        self.params.append(params)
        try:
            yield from self._reply(messages)
        finally:
            self.ended += 1

    def measure(self, messages: Sequence[Message]) -> PromptSize:
        """A token a message."""
        return PromptSize(len(messages), context_length=100)

    def close(self) -> None:
        """Counted."""
        self.closed += 1


class Fakes:
    """Connects fake models: `Engine(settings, connect=fakes.connect)`."""

    def __init__(self, reply: Reply, **replies: Reply) -> None:
        """`replies`: what the models of these names say; all others say `reply`."""
        self.made: list[FakeBackend] = []
        self.specs: list[ModelSpec] = []
        self._reply, self._replies = reply, replies

    def connect(self, spec: ModelSpec, settings: Settings, pool: Pool) -> FakeBackend:
        """A new fake."""
        self.specs.append(spec)
        self.made.append(FakeBackend(spec.id, self._replies.get(spec.id.name, self._reply)))
        return self.made[-1]

    def __getitem__(self, name: str) -> FakeBackend:
        """The newest fake of that name."""
        return next(fake for fake in reversed(self.made) if fake.model.name == name)


def says(*pieces: str, reason: FinishReason = "stop") -> Reply:
    """A reply of these pieces, one token each."""

    def reply(messages: Sequence[Message]) -> Iterable[Chunk]:
        yield from (Chunk(piece) for piece in pieces)
        yield Chunk(finish_reason=reason, usage=Usage(len(messages), len(pieces)))

    return reply


def fails(error: Exception, *pieces: str) -> Reply:
    """A reply that ends in an error after these pieces."""

    def reply(messages: Sequence[Message]) -> Iterable[Chunk]:
        yield from (Chunk(piece) for piece in pieces)
        raise error

    return reply


def until(event: Event, *pieces: str) -> Reply:
    """A reply that says these pieces, then only beats until the event is set, then ends."""

    def reply(messages: Sequence[Message]) -> Iterable[Chunk]:
        yield from (Chunk(piece) for piece in pieces)
        while not event.wait(0.01):
            yield Chunk()
        yield Chunk(finish_reason="stop", usage=Usage(len(messages), len(pieces)))

    return reply


def eventually(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until it holds; fail when it does not come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.005)
