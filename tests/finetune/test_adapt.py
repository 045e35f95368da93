"""Adaptive pretraining: what is masked, what is learned, and that no kill or stop in the middle changes the outcome."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM

from bench.kills import Forks, ordered, survive
from multimodel.finetune import adapt, checkpoints
from multimodel.finetune.checkpoints import step_of
from multimodel.finetune.classifier import load_tokenizer
from multimodel.finetune.control import STOP
from multimodel.finetune.events import Reader
from multimodel.finetune.runfolder import ADAPTED, ADAPTING, forget
from multimodel.finetune.trainer import Rows
from multimodel.finetune.types import TrainConfig

from ..support import eventually, needs
from .support import sentences, settings_in, story, tiny_encoder, weights, write_csv


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows, and a small encoder that can guess words."""
    folder = tmp_path_factory.mktemp("adapt")
    tiny_encoder(folder / "encoder", masked=True)
    tiny_encoder(folder / "headless")
    write_csv(folder / "data.csv", sentences(200))
    return folder


def config(place: Path, name: str, **settings: object) -> TrainConfig:
    values = {"data": str(place / "data.csv"), "base": str(place / "encoder"), "name": name, "adaptation": 4}
    usual = {"epochs": 2, "learning_rate": 3e-3, "checkpoint_steps": 1, "precision": "float32"}
    return TrainConfig(**values | usual | settings)  # type: ignore[arg-type]


def prepared(place: Path, ids: list[list[int]]) -> Any:
    """As much of a run as its masked rows need."""
    run_config, rows = TrainConfig(data="d", name="n", batch_size=4), Rows(ids, [0] * len(ids))
    return SimpleNamespace(tokenizer=load_tokenizer(place / "encoder"), config=run_config, sets={"train": rows}, pad=0)


def test_words_are_masked_each_time_anew_and_always_alike(place: Path) -> None:
    words = load_tokenizer(place / "encoder")
    ids = words([text for text, _ in sentences(60)])["input_ids"]
    rows, again = (adapt.MaskedRows(prepared(place, ids), 3) for _ in range(2))
    assert len(rows) == 3 * len(ids)
    masked = others = same = total = 0
    for place_ in range(len(rows)):
        row = rows[place_]
        asked = row["truth"] != adapt.REST
        assert np.array_equal(row["ids"], again[place_]["ids"])
        shown, truth = row["ids"][asked], row["truth"][asked]
        assert asked.any() and not np.isin(shown[shown != words.mask_token_id], words.all_special_ids).any()
        assert np.array_equal(row["ids"][~asked], np.array(rows._ids[rows._order[place_]])[~asked])
        same, others = same + (shown == truth).sum(), others + ((shown != truth) & (shown != words.mask_token_id)).sum()
        assert not np.isin(row["truth"][asked], words.all_special_ids).any()
        masked, total = masked + asked.sum(), total + len(asked) - 2
    assert 0.12 < masked / total < 0.25  # short texts have one at least
    assert 0.05 < same / masked < 0.2 and 0.05 < others / masked < 0.2  # a tenth each
    seen = [rows[i]["ids"].tolist() for i in range(len(rows)) if sorted(rows[i]["ids"])]
    assert len({tuple(row) for row in seen}) > len(ids)


def test_a_mask_that_somebody_typed_is_not_asked_for(place: Path) -> None:
    words = load_tokenizer(place / "encoder")
    typed = words(["good [MASK] bad"])["input_ids"]
    assert words.mask_token_id in typed[0]
    rows = adapt.MaskedRows(prepared(place, typed), 20)
    for row in map(rows.__getitem__, range(20)):
        assert (row["truth"][row["ids"] == words.mask_token_id] != adapt.REST).all()
        assert words.mask_token_id not in row["truth"]


def test_a_text_without_words_asks_for_nothing(place: Path) -> None:
    words = load_tokenizer(place / "encoder")
    row = adapt.MaskedRows(prepared(place, [[words.cls_token_id, words.sep_token_id]]), 1)[0]
    assert (row["truth"] == adapt.REST).all()
    batch = adapt.collate(0)([row])
    model = AutoModelForMaskedLM.from_pretrained(place / "encoder")
    adapt.keep_guessed(model)
    labels = batch.pop("labels")
    assert adapt.loss(model(**batch), labels).item() == 0.0


def test_logits_of_guessed_tokens_are_those_of_the_whole_model(place: Path) -> None:
    words = load_tokenizer(place / "encoder")
    rows = adapt.MaskedRows(prepared(place, words([t for t, _ in sentences(8)])["input_ids"]), 1)
    batch = adapt.collate(0)([rows[i] for i in range(8)])
    labels = batch.pop("labels")
    model = AutoModelForMaskedLM.from_pretrained(place / "encoder").eval()
    with torch.inference_mode():
        whole = model(**{name: batch[name] for name in ("input_ids", "attention_mask")}, labels=labels)
        adapt.keep_guessed(model)
        few = model(**batch)
    assert torch.allclose(few.logits, whole.logits[labels != adapt.REST], atol=1e-6)
    assert float(adapt.loss(few, labels)) == pytest.approx(float(whole.loss), abs=1e-5)


def test_it_learns_the_words_and_says_so(place: Path, pool: Forks) -> None:
    folder = ordered(config(place, "learned"), settings_in(place))
    pool.start(folder)
    assert pool.wait() == 0
    update = story(folder)
    assert update.phase == "done"
    said = next(line for line in update.log if line.startswith("Adaptive pretraining, epochs: 4; "))
    first, last = (float(word.rstrip(".")) for word in said.split() if word[0].isdigit() and "." in word)
    assert last < first
    told = [e["fraction"] for e in Reader(folder).read() if e["kind"] == "phase" and e["detail"] == adapt.SAYS]
    assert told == sorted(told) and told[-1] == 1.0
    assert (update.plan["adaptation"], update.plan["adaptation_reason"]) == (4, "you chose it")
    record = json.loads((place / "models" / "learned" / "training_metadata.json").read_text())
    assert record["parameters"]["adaptation"] == 4 and record["seconds"]["adapting"] > 0
    assert not (folder / ADAPTED).exists() and not (folder / ADAPTING).exists()
    assert weights(place, "learned") != _without(place, pool)


@needs("peft")
def test_lora_keeps_what_was_learned(place: Path, pool: Forks) -> None:
    def words(name: str) -> torch.Tensor:  # LoRA does not train them
        pool.wait()
        return load_file(place / "models" / name / "model.safetensors")["distilbert.embeddings.word_embeddings.weight"]

    bare = ordered(config(place, "bare", lora_rank=4, adaptation=0), settings_in(place))
    pool.start(bare)
    without = words("bare")
    folder = ordered(config(place, "lora", lora_rank=4, epochs=60), settings_in(place))
    pool.start(folder)
    eventually(lambda: checkpoints.newest(folder, tidy=False) is not None, 120)
    (folder / STOP).touch()
    learned = words("lora")
    shutil.rmtree(place / "models" / "lora")  # as if it had been killed before the model was saved
    pool.start(folder)
    assert torch.equal(words("lora"), learned) and not torch.equal(learned, without)


def _without(place: Path, pool: Forks) -> bytes:
    folder = ordered(config(place, "without", adaptation=0), settings_in(place))
    pool.start(folder)
    assert pool.wait() == 0
    return weights(place, "without")


@pytest.mark.slow
def test_kills_in_the_middle_end_with_the_same_bits(place: Path, pool: Forks) -> None:
    settings = settings_in(place)
    settled = {"gradient_accumulation": 2, "batch_size": 8, "adaptation": 12}  # 120 steps
    survive(pool, ordered(config(place, "whole", **settled), settings), 0, seed=0, longest=0.0)
    killed = ordered(config(place, "killed", **settled), settings)
    for steps in (2, 30, 60):
        pid = pool.start(killed)
        eventually(lambda steps=steps: learned(killed) >= steps, 60)
        os.kill(pid, 9)
        assert pool.wait() == -9
        assert not (killed / ADAPTED).exists(), "it was killed after the words were learned"
    assert survive(pool, killed, 2, seed=5, longest=0.1) == 2  # and then while it trains
    assert weights(place, "killed") == weights(place, "whole")


def learned(folder: Path) -> int:
    """Steps of adaptive pretraining that a run has done."""
    return max(map(step_of, (folder / ADAPTING).glob("checkpoint-*")), default=0)


@pytest.mark.slow
def test_a_stop_in_the_middle_is_no_model_and_goes_on(place: Path, pool: Forks) -> None:
    settings = settings_in(place)
    survive(pool, ordered(config(place, "through"), settings), 0, seed=0, longest=0.0)
    folder = ordered(config(place, "stopped"), settings)
    (folder / STOP).touch()  # it stops after its first step
    pool.start(folder)
    assert pool.wait() == 0
    update = story(folder)
    assert (update.phase, update.model, update.step) == ("stopped", None, 0)
    assert "Resume" in update.detail
    forget(folder)
    pool.start(folder)
    assert pool.wait() == 0
    assert story(folder).phase == "done"
    assert weights(place, "stopped") == weights(place, "through")
