"""Small encoders and labelled rows made on the spot."""

from __future__ import annotations

import json
import random
from pathlib import Path

from multimodel.finetune.events import Reader, fold
from multimodel.finetune.types import TrainUpdate
from multimodel.settings import ModelSettings, PerformanceSettings, Settings

GOOD = ["great", "fine", "lovely", "superb", "charming", "bright", "happy", "warm"]
BAD = ["awful", "dull", "poor", "broken", "sad", "cold", "grim", "boring"]
NEUTRAL = [
    "the",
    "film",
    "was",
    "a",
    "day",
    "in",
    "town",
    "with",
    "my",
    "dog",
    "and",
    "some",
    "rain",
    "over",
    "that",
    "house",
]
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def tiny_encoder(folder: Path, *, layers: int = 2, width: int = 32, masked: bool = False, seed: int = 0) -> Path:
    """A random DistilBERT with a word for every word of `sentences`; returns the folder."""
    import torch
    from transformers import DistilBertConfig, DistilBertForMaskedLM, DistilBertModel

    _write_tokenizer(folder)
    torch.manual_seed(seed)
    config = DistilBertConfig(
        vocab_size=len(_vocabulary()),
        dim=width,
        n_layers=layers,
        n_heads=2,
        hidden_dim=2 * width,
        max_position_embeddings=64,
        pad_token_id=0,
    )
    (DistilBertForMaskedLM if masked else DistilBertModel)(config).save_pretrained(folder)
    return folder


def _vocabulary() -> list[str]:
    letters = [*"abcdefghijklmnopqrstuvwxyz0123456789.,!"]
    return [*SPECIALS, *GOOD, *BAD, *dict.fromkeys(NEUTRAL), *letters, *(f"##{c}" for c in letters)]


def _write_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    words = {word: i for i, word in enumerate(dict.fromkeys(_vocabulary()))}
    tokenizer = Tokenizer(models.WordPiece(words, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [("[CLS]", words["[CLS]"]), ("[SEP]", words["[SEP]"])]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=ends
    )
    tokenizer.decoder = decoders.WordPiece()
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    facts = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 64}
    facts |= {f"{name}_token": token for name, token in names.items()}
    (folder / "tokenizer_config.json").write_text(json.dumps(facts))


def sentences(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """(text, label) pairs, half of them "pos": a few words of one mood among others, of many lengths."""
    rng = random.Random(seed)
    found = []
    for index in range(count):
        mood, label = ((GOOD, "pos"), (BAD, "neg"))[index % 2]
        words = rng.choices(NEUTRAL, k=rng.randint(2, 25)) + rng.choices(mood, k=rng.randint(1, 3))
        rng.shuffle(words)
        found.append((" ".join(words), label))
    return found


def write_csv(path: Path, rows: list[tuple[str, str]]) -> str:
    """A CSV file of (text, label) rows; returns its path."""
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows), encoding="utf-8")
    return str(path)


def settings_in(folder: Path, threads: int = 1) -> Settings:
    """Settings under which everything is written into `folder`."""
    models = ModelSettings(fine_tuned_dir=folder / "models", cache_dir=folder / "cache")
    return Settings(models=models, performance=PerformanceSettings(threads=threads))


def story(folder: Path) -> TrainUpdate:
    """A run as its folder tells it."""
    return fold(TrainUpdate(folder.name), Reader(folder).read())


def weights(place: Path, name: str) -> bytes:
    """The weights of a saved model."""
    return (place / "models" / name / "model.safetensors").read_bytes()
