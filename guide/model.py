"""The tokenizer and the network of `guide`."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM

BOS, END, USER, GUIDE, SYSTEM, PAD = SPECIAL = ("<s>", "<|end|>", "<|user|>", "<|guide|>", "<|system|>", "<pad>")
CONTEXT = 1024
VOCABULARY = 3072


def train_tokenizer(texts: Iterable[str], size: int = VOCABULARY) -> Tokenizer:
    """Train a byte-level BPE that llama.cpp reproduces exactly (its `gpt-2` pre-tokenizer)."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=2,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def config(vocabulary: int, hidden: int = 192, layers: int = 5, inner: int = 512) -> LlamaConfig:
    """Describe a Llama of about three million parameters with heads of 64."""
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 64,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        rms_norm_eps=1e-5,
        bos_token_id=SPECIAL.index(BOS),
        eos_token_id=SPECIAL.index(END),
        pad_token_id=SPECIAL.index(PAD),
    )


def build(vocabulary: int, hidden: int, layers: int, inner: int) -> LlamaForCausalLM:
    """Build an untrained network; on short sequences plain attention learns faster than the fused one."""
    model = LlamaForCausalLM(config(vocabulary, hidden, layers, inner))
    model.set_attn_implementation("eager")
    return model
