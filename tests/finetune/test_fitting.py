"""The largest batch that fits is found by the memory plan, and what the plan calls tight is not taken."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from multimodel.finetune.fitting import largest_batch, training_of
from multimodel.finetune.types import TrainConfig
from multimodel.memory import MemoryPlan, Request, Training, target_of
from multimodel.memory.estimator import Estimator
from multimodel.settings import Settings

GB = 1_000_000_000


@pytest.fixture
def estimator() -> Iterator[Estimator]:
    with closing(Estimator(Settings())) as made:
        yield made


def config(**settings: object) -> TrainConfig:
    return TrainConfig(data="d", name="n", **settings)  # type: ignore[arg-type]


def test_the_largest_fits_and_the_next_does_not(estimator: Estimator, place: Path) -> None:
    target = target_of(("large machine", 64 * GB))
    subject = estimator.read(place / "encoder")

    def planned(how: Training) -> MemoryPlan:
        return estimator.plan(subject, Request(target=target, training=how))

    fit = largest_batch(config(), 64, planned, target)
    assert fit.batch_size == 1024 and 0 < fit.needed < fit.available  # the most there is
    small = target_of(("small machine", 4 * GB))
    less = largest_batch(config(), 64, planned, small)
    assert 0 < less.batch_size < 1024 and less.needed <= small.usable
    how = training_of(config(), 64)
    assert planned(Training(batch_size=less.batch_size, sequence_length=64)).fit(small).level == "fits"
    assert planned(Training(batch_size=2 * less.batch_size, sequence_length=64)).fit(small).level != "fits"
    assert how.batch_size == 32 and how.sequence_length == 64
    none = largest_batch(config(), 64, planned, target_of(("tiny machine", 1_000_000)))
    assert none.batch_size == 0 and none.needed > none.available


def test_every_setting_that_takes_memory_counts() -> None:
    asked = config(batch_size=4, max_length=128, lora_rank=16, gradient_checkpointing=True, precision="bfloat16")
    how = training_of(asked, 64)
    assert (how.batch_size, how.sequence_length, how.method, how.rank) == (4, 128, "lora", 16)
    assert how.checkpointing and how.autocast
