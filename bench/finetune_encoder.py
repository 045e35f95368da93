"""The built-in encoder beside TF-IDF on public data sets: `python -m bench.finetune_encoder`.

Whole runs as the app makes them, with the settings it recommends, on five sets; beside each the TF-IDF baseline with
logistic regression that stands beside every run. Every seed has its own split where a set brings none.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from multimodel.finetune import sources
from multimodel.finetune.api import finetune
from multimodel.finetune.report import recommended, report
from multimodel.finetune.types import TrainUpdate
from multimodel.hardware import cores
from multimodel.settings import Settings

from .finetune import SETS
from .finetune_quality import Source, config, cut, error_of, known
from .kills import alone_in
from .report import Report, Table, finish, load, parser

SEED = 7  # of the first round
SEEDS = f"Seeds from {SEED} on: the settings were chosen by runs with others."
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

    def run(turn: tuple[Source, int]) -> TrainUpdate:
        (source, seed), mine = turn, free.pop()
        try:
            return trained(source, mine, seed, epochs)
        finally:
            free.append(mine)

    with ThreadPoolExecutor(len(settings)) as workers:
        ends = list(workers.map(run, turns))
    columns = ("data", "epochs", "accuracy", "TF-IDF", "difference", "its standard error", "macro F1", "TF-IDF")
    caption = f"Test rows, per cent, mean of {len(seeds)} seeds"
    lines = [_line(s.name, [end for turn, end in zip(turns, ends, strict=True) if turn[0] is s]) for s in sets]
    return Table(columns, tuple(lines), caption)


def _line(name: str, ends: Sequence[TrainUpdate]) -> tuple[str, ...]:
    mine, theirs = [end.metrics for end in ends], [end.plan["baseline"] for end in ends]
    accuracy, f1 = (
        [f"{100 * fmean(one[figure] for one in found):.2f}" for found in (mine, theirs)] for figure in FIGURES
    )
    apart = [100 * (a["accuracy"] - b["accuracy"]) for a, b in zip(mine, theirs, strict=True)]
    return (name, str(ends[0].plan["epochs"]), *accuracy, f"{fmean(apart):+.2f}", error_of(apart), *f1)


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
        settings = [alone_in(place / f"models {number}") for number in range(cores())]  # none waits for another's runs
        tables = (encoder(sets, settings, seeds, epochs),)
    packages = ("torch", "transformers", "accelerate", "scikit-learn")
    title = "The built-in encoder beside TF-IDF"
    return finish(Report("finetune_encoder", title, tables, (SEEDS,), packages), asked, before, "1 each")


if __name__ == "__main__":
    raise SystemExit(main())
