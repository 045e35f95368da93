"""The largest batch that fits is found by the memory plan, and what the plan calls tight is not taken."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from multimodel.finetune.fitting import largest_batch, training_of
from multimodel.finetune.types import TrainConfig
from multimodel.memory import MemoryPlan, Request, Term, Training, target_of
from multimodel.memory.estimator import Estimator
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

    fit = largest_batch(config(), 64, planned, target)
    assert fit.batch_size == 64 and 0 < fit.needed < fit.available == target.usable
    assert planned(Training(batch_size=128)).fit(target).level == "no"

    def large(how: Training) -> MemoryPlan:
        return planned(Training(batch_size=200 * how.batch_size))

    none = largest_batch(config(), 64, large, target)
    assert none.batch_size == 0 and none.needed > none.available


def test_a_real_plan_grows_with_the_batch(estimator: Estimator, place: Path) -> None:
    target = target_of(("large machine", 64 * GB))
    subject = estimator.read(place / "encoder")

    def planned(how: Training) -> MemoryPlan:
        return estimator.plan(subject, Request(target=target, training=how))

    fit = largest_batch(config(), 64, planned, target)
    assert fit.batch_size == 1024  # the most there is
    assert planned(training_of(config(batch_size=1), 64)).safe_total < fit.needed < fit.available


def test_every_setting_that_takes_memory_counts() -> None:
    asked = config(batch_size=4, max_length=128, lora_rank=16, gradient_checkpointing=True, precision="bfloat16")
    how = training_of(asked, 64)
    assert (how.batch_size, how.sequence_length, how.method, how.rank) == (4, 128, "lora", 16)
    assert how.checkpointing and how.autocast
