"""The built-in encoder beside TF-IDF on public data sets: `python -m bench.finetune_encoder`.

Whole runs as the app makes them, with the settings it recommends, on five sets; beside each the TF-IDF baseline with
logistic regression that stands beside every run. Every seed has its own split where a set brings none.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean

from multimodel.finetune import sources
from multimodel.finetune.api import finetune
from multimodel.finetune.report import recommended, report
from multimodel.finetune.types import TrainUpdate
from multimodel.hardware import cores
from multimodel.settings import ModelSettings, PerformanceSettings, Settings, TrackingSettings

from .finetune import SETS
from .finetune_quality import Source, config, cut, error_of, known
from .report import Report, Table, finish, load, parser

SEED = 42  # of the first round
FIGURES = ("accuracy", "f1")


def trained(source: Source, settings: Settings, seed: int, epochs: int | None) -> TrainUpdate:
    """The end of one run; `epochs`: not as recommended. Raises what the run did."""
    asked = config(source, f"{source.name} {seed}", seed=seed)
    data = sources.mapped(asked, settings)
    advice = recommended(data, report(data).lengths, small=True)
    chosen = {name: value for name, (value, _) in advice.items() if name != "max_length"}
    *_, end = finetune(asked.merge(chosen | ({"epochs": epochs} if epochs else {})), settings=settings)
    if end.error:
        raise end.error
    return end


def encoder(sets: Sequence[Source], settings: Sequence[Settings], seeds: Sequence[int], epochs: int | None) -> Table:
    """Figures of the test rows, the mean of the seeds; `settings`: of the workers, each with runs of its own."""
    turns = [(source, seed) for source in sets for seed in seeds]
    free = list(settings)

    def run(source: Source, seed: int) -> TrainUpdate:
        mine = free.pop()
        try:
            return trained(source, mine, seed, epochs)
        finally:
            free.append(mine)

    with ThreadPoolExecutor(len(settings)) as workers:
        ends = list(workers.map(lambda turn: run(*turn), turns))
    by_set = {source.name: ends[i * len(seeds) : (i + 1) * len(seeds)] for i, source in enumerate(sets)}
    columns = ("data", "epochs", "accuracy", "TF-IDF", "difference", "its standard error", "macro F1", "TF-IDF")
    caption = f"Test rows, per cent, mean of {len(seeds)} seeds"
    return Table(columns, tuple(_line(name, found) for name, found in by_set.items()), caption)


def _line(name: str, ends: Sequence[TrainUpdate]) -> tuple[str, ...]:
    mine, theirs = (_figures([found(end) for end in ends]) for found in (_metrics, _baseline))
    apart = [a - b for a, b in zip(mine["accuracy"], theirs["accuracy"], strict=True)]
    shown = [[f"{fmean(found[figure]):.2f}" for found in (mine, theirs)] for figure in FIGURES]
    epochs = str(ends[0].plan["epochs"])
    return (name, epochs, *shown[0], f"{fmean(apart):+.2f}", error_of(apart), *shown[1])


def _metrics(end: TrainUpdate) -> Mapping[str, float]:
    return end.metrics


def _baseline(end: TrainUpdate) -> Mapping[str, float]:
    return end.plan["baseline"]  # type: ignore[no-any-return]


def _figures(found: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    return {figure: [100 * one[figure] for one in found] for figure in FIGURES}


def worker(place: Path, number: int) -> Settings:
    """The settings of a worker, whose runs wait for nobody else's."""
    return Settings(
        models=ModelSettings(fine_tuned_dir=place / f"models {number}"),
        performance=PerformanceSettings(threads=1),
        tracking=TrackingSettings(enabled=False),
    )


def main() -> int:
    """Measure and print."""
    options = parser(__doc__)
    options.set_defaults(rounds=3)
    asked = options.parse_args()
    if not SETS.exists():
        print(f"{SETS} is not there.", file=sys.stderr)
        return 1
    before = load()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        sets, seeds, epochs = known(place), range(SEED, SEED + asked.rounds), None
        if asked.tiny:
            sets, seeds, epochs = [replace(source, path=cut(source, place)) for source in sets[:3]], range(1), 1
        settings = list(map(partial(worker, place), range(cores())))
        tables = (encoder(sets, settings, seeds, epochs),)
    packages = ("torch", "transformers", "accelerate", "scikit-learn")
    title = "The built-in encoder beside TF-IDF"
    return finish(Report("finetune_encoder", title, tables, (), packages), asked, before, "1 each")


if __name__ == "__main__":
    raise SystemExit(main())
