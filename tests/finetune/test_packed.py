"""Packed linear layers: the same answers of every kind of encoder, for texts of any number and length."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification

from multimodel.finetune import classifier
from multimodel.finetune.packed import PLAIN, PackedLinear, pack

SMALL = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 96,
    "vocab_size": 50,
    "pad_token_id": 0,
    "max_position_embeddings": 40,
}


def small(kind: str) -> object:
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, num_labels=3, **SMALL)
    for name in ("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"):
        setattr(config, name, 1)
    return AutoModelForSequenceClassification.from_config(config, dtype=torch.float32).eval()


@pytest.mark.parametrize("kind", sorted(PLAIN))
def test_every_kind_answers_as_before(kind: str) -> None:
    model = small(kind)
    rows = [list(range(2, 2 + length)) for length in (30, 7, 7, 1, 12)]
    before = classifier.logits(model, rows, 0)
    pack(model)
    layers = [part for part in model.modules() if isinstance(part, PackedLinear)]  # type: ignore[attr-defined]
    assert len(layers) >= 6  # of one layer alone: query, key, value, output, and two of the feed-forward part
    assert abs(classifier.logits(model, rows, 0) - before).max() < 1e-5
    assert before.std(axis=0).max() > 1e-4  # the texts differ


def test_what_cannot_be_packed_stays_as_it_is() -> None:
    model = small("deberta-v2")
    assert pack(model) is model
    assert not any(isinstance(part, PackedLinear) for part in model.modules())  # type: ignore[attr-defined]
    narrow = small("bert")
    pack(narrow)
    assert type(narrow.classifier) is nn.Linear  # type: ignore[attr-defined]
