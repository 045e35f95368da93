"""A seeded sample of what `python -m bench.mutants` does for long."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from bench import mutants
from multimodel.errors import BrokenFile, WorkerCrashed
from multimodel.types import ModelId, Snapshot, Timing

from ..support import needs

SEED = 20


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


@pytest.mark.slow
@needs("llama_cpp", "gguf")
def test_no_damaged_gguf_file_hurts_the_app(tiny_gguf_file: Path) -> None:
    before = children()
    outcomes = list(mutants.gguf_trials(tiny_gguf_file, SEED, 36))
    assert [outcome for outcome in outcomes if outcome.end == "defect"] == []
    assert {outcome.end for outcome in outcomes} >= {"answered", "refused"}
    assert children() <= before


@pytest.mark.slow
@needs("torch", "transformers")
def test_no_damaged_safetensors_file_hurts_the_app(tiny_folder: Path) -> None:
    before = children()
    outcomes = list(mutants.safetensors_trials(tiny_folder, SEED, 6))
    assert [outcome for outcome in outcomes if outcome.end == "defect"] == []
    assert any(outcome.end == "refused" for outcome in outcomes)
    assert children() <= before


def test_every_mutant_differs_and_the_seed_repeats_them() -> None:
    good = bytes(range(256)) * 8
    made = list(mutants.mutants(good, 1024, SEED, 60))
    assert made == list(mutants.mutants(good, 1024, SEED, 60))
    assert sum(data == good for _, data in made) <= 2  # a number may be put where it was
    assert {name for name, _ in made} == {change.__name__ for change in mutants.CHANGES}


@pytest.mark.parametrize(
    ("answer", "end"),
    [
        (Snapshot(ModelId("echo", "a"), "hi", Timing(0.0), finish_reason="stop"), "answered"),
        (Snapshot(ModelId("echo", "a"), "hi", Timing(0.0)), "defect"),
        (Snapshot(ModelId("echo", "a"), "", Timing(0.0), error=BrokenFile("It is cut.", hint="Again.")), "refused"),
        (Snapshot(ModelId("echo", "a"), "", Timing(0.0), error=WorkerCrashed("It died.", hint="Again.")), "crashed"),
        (Snapshot(ModelId("echo", "a"), "", Timing(0.0), error=BrokenFile("It is cut.")), "defect"),
    ],
)
def test_an_end_is_judged(answer: Snapshot, end: str) -> None:
    assert mutants.judge("cut", answer, 1.0).end == end
    assert mutants.judge("cut", answer, mutants.SLOW + 1).end == "defect"
