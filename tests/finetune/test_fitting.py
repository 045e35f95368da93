"""The largest batch that fits is found by the memory plan, and what the plan calls tight is not taken."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from multimodel.errors import InvalidParameter
from multimodel.finetune.fitting import ADAPTATION, MASKED, choose_adaptation, largest_batch, training_of
from multimodel.finetune.tokens import SMALL
from multimodel.finetune.types import TrainConfig
from multimodel.memory import MemoryPlan, Request, Term, Training, target_of
from multimodel.memory.estimator import Estimator
from multimodel.memory.torch_plan import Stored, TorchModel
from multimodel.settings import Settings

GB = 1_000_000_000


@pytest.fixture
def estimator() -> Iterator[Estimator]:
    with closing(Estimator(Settings())) as made:
        yield made


def config(**settings: object) -> TrainConfig:
    return TrainConfig(data="d", name="n", **settings)  # type: ignore[arg-type]


def test_the_largest_fits_and_the_next_does_not() -> None:
    target = target_of(("some machine", 8 * GB))

    def planned(how: Training) -> MemoryPlan:
        terms = (Term("compute", how.batch_size * target.usable // 100, "formula", "a hundredth for each row"),)
        return MemoryPlan(model="m", request=Request(target=target, training=how), terms=terms)

    fit = largest_batch(Training(sequence_length=64), planned, target)
    assert fit.batch_size == 64 and 0 < fit.needed < fit.available == target.usable
    assert planned(Training(batch_size=128)).fit(target).level == "no"

    def large(how: Training) -> MemoryPlan:
        return planned(Training(batch_size=200 * how.batch_size))

    none = largest_batch(Training(sequence_length=64), large, target)
    assert none.batch_size == 0 and none.needed > none.available


def test_a_real_plan_grows_with_the_batch(estimator: Estimator, place: Path) -> None:
    target = target_of(("large machine", 64 * GB))
    subject = estimator.read(place / "encoder")

    def planned(how: Training) -> MemoryPlan:
        return estimator.plan(subject, Request(target=target, training=how))

    fit = largest_batch(Training(sequence_length=64), planned, target)
    assert fit.batch_size == 1024  # the most there is
    assert planned(training_of(config(batch_size=1), 64, subject)).safe_total < fit.needed < fit.available


def test_every_setting_that_takes_memory_counts() -> None:
    asked = config(batch_size=4, max_length=128, lora_rank=16, gradient_checkpointing=True, precision="bfloat16")
    how = training_of(asked, 64, model(4_000_000))
    assert (how.batch_size, how.sequence_length, how.method, how.rank) == (4, 128, "lora", 16)
    assert how.checkpointing and how.autocast and not how.masked
    guessing = training_of(config(), 64, model(4_000_000))
    assert guessing.masked == MASKED and not training_of(config(), 64, model(SMALL)).masked
    plain, more = (model(4_000_000).plan(Request(training=how)) for how in (replace(guessing, masked=0.0), guessing))
    logits = 4 * 4 * 1000 * MASKED * guessing.batch_size * 64
    assert more.total - plain.total == round(logits) + 4 * 1000 * 32  # and the gradient of the words once more


def model(parameters: int, head: str = "DistilBertForMaskedLM") -> TorchModel:
    shape = {"model_type": "distilbert", "dim": 32, "n_layers": 1, "n_heads": 2, "hidden_dim": 64, "vocab_size": 1000}
    return TorchModel("m", shape | {"architectures": [head]}, (Stored("F32", parameters, 4 * parameters),))


@pytest.mark.parametrize(
    ("parameters", "rows", "settings", "epochs"),
    [
        (4_000_000, 500, {}, ADAPTATION),
        (4_000_000, 40_000, {}, 2),
        (4_000_000, 1_000_000, {}, 1),
        (SMALL, 500, {}, 0),
        (4_000_000, 500, {"lora_rank": 4}, 0),
        (4_000_000, 500, {"freeze_layers": 1}, 0),
        (SMALL, 500, {"adaptation": 3}, 3),
        (4_000_000, 500, {"adaptation": 0}, 0),
    ],
)
def test_adaptive_pretraining_is_for_small_models_unless_asked_for(
    parameters: int, rows: int, settings: dict[str, int], epochs: int
) -> None:
    found, why = choose_adaptation(config(**settings), model(parameters).config, parameters, rows)
    assert found == epochs and why


def test_a_model_that_cannot_guess_words_does_without_and_says_why() -> None:
    headless = model(1, "DistilBertForSequenceClassification")
    assert choose_adaptation(config(), headless.config, 1) == (0, "the base model has no head that guesses words")
    with pytest.raises(InvalidParameter, match="mine has no head") as caught:
        training_of(config(adaptation=2, base="mine"), 64, headless)
    assert "0" in caught.value.hint
