"""What the fine-tuning tests share: rows, a small encoder, one trained model, and processes that start quickly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.kills import Forks, forks
from multimodel.finetune.api import finetune
from multimodel.finetune.types import TrainConfig, TrainUpdate
from multimodel.settings import Settings

from .support import sentences, settings_in, tiny_encoder, write_csv


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with rows (data.csv), a small encoder and a place for models; tests use names of their own."""
    folder = tmp_path_factory.mktemp("finetune")
    tiny_encoder(folder / "encoder")
    write_csv(folder / "data.csv", sentences(300))
    return folder


@pytest.fixture(scope="session")
def pool() -> Iterator[Forks]:
    """Starts processes that train without loading their libraries anew."""
    with forks() as started:
        yield started


@dataclass(frozen=True)
class Finished:
    """A run from a script, as it was told."""

    updates: list[TrainUpdate]
    settings: Settings
    config: TrainConfig


@pytest.fixture(scope="session")
def finished(place: Path) -> Finished:
    """One whole run through `multimodel.finetune`, which learns its rows."""
    settings = settings_in(place)
    config = TrainConfig(
        data=str(place / "data.csv"),
        base=str(place / "encoder"),
        name="moods",
        epochs=8,
        learning_rate=1e-2,
        precision="float32",
        early_stopping=0,
    )
    return Finished(list(finetune(config, settings=settings)), settings, config)
