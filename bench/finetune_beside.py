"""What following a run costs it, and how soon its model answers: `python -m bench.finetune_beside`.

The same run of the built-in encoder, in turn: alone, as a process that nobody follows; and in the app, with two pages
that follow it. Samples a second between the first step and the last. Then the seconds from the end of a run to the
first answer of its model.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from statistics import median
from threading import Thread

from multimodel.compute import Cores
from multimodel.finetune.events import Reader, finite
from multimodel.finetune.jobs import Jobs
from multimodel.finetune.predict import Predictors
from multimodel.finetune.types import TrainConfig
from multimodel.settings import Settings

from .bare import environment
from .kills import alone_in, ordered
from .report import ROOT, Report, Table, finish, in_turn, load, paired, parser

PAGES = 2
ENCODER = ROOT / "assets" / "encoder"


def config(name: str, epochs: int) -> TrainConfig:
    """A run on a sample set, at the built-in encoder's own speed."""
    return TrainConfig(
        data="sentiment", base=str(ENCODER), name=name, epochs=epochs, early_stopping=0, precision="float32"
    )


def alone(settings: Settings, name: str, epochs: int) -> float:
    """Samples a second of a process that nobody follows."""
    folder = ordered(config(name, epochs), settings)
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    command = [sys.executable, "-m", "multimodel.finetune.child", str(folder)]
    more = threads | {"OMP_WAIT_POLICY": "passive", "MULTIMODEL_TRACKING": "false"}
    subprocess.run(command, cwd=ROOT, env=environment() | more, check=True, stderr=subprocess.DEVNULL)
    return speed(folder)


def followed(settings: Settings, name: str, epochs: int) -> float:
    """Samples a second in the app, with pages that follow and write each update as they would send it."""
    with closing(Jobs(settings, Cores(1))) as jobs:
        jobs.start(config(name, epochs))
        pages = [Thread(target=_follow, args=(jobs, name)) for _ in range(PAGES)]
        for page in pages:
            page.start()
        for page in pages:
            page.join()
        return speed(jobs.store.runs / name)


def _follow(jobs: Jobs, name: str) -> None:
    for update in jobs.follow(name):
        json.dumps(finite({"step": update.step, "curves": {k: [p.value for p in v] for k, v in update.curves.items()}}))


def speed(folder: Path) -> float:
    """Samples a second of the steps of a run, told by itself."""
    events = [event for event in Reader(folder).read() if event["kind"] == "progress"]
    return median(event["samples_per_second"] for event in events[len(events) // 4 :])


def first_answer(settings: Settings, name: str) -> float:
    """Seconds from the end of a run to the first answer of its model, the page having prepared for it."""
    models = Predictors(settings, Cores(1))
    with closing(Jobs(settings, Cores(1))) as jobs, closing(models):
        jobs.start(config(name, 1))
        for update in jobs.follow(name):
            if update.phase == "training":
                models.prepare()
        ended = time.perf_counter()
        models.get(name)(["a lovely film"])
        return time.perf_counter() - ended


def main() -> int:
    """Measure and print."""
    asked = parser(__doc__).parse_args()
    before = load()
    epochs = 1 if asked.tiny else 12
    with tempfile.TemporaryDirectory() as folder:
        settings = alone_in(Path(folder) / "models")
        ways = {
            "alone": lambda number: alone(settings, f"alone {number}", epochs),
            f"in the app, followed by {PAGES} pages": lambda number: followed(settings, f"followed {number}", epochs),
        }
        found = in_turn(ways, asked.rounds, warm_up=0)
        waits = [first_answer(settings, f"waited {number}") for number in range(asked.rounds)]
    theirs, mine = found.values()
    slower = 100 * (1 - paired(mine, theirs))
    rows = [(name, f"{median(speeds):.1f}") for name, speeds in found.items()]
    tables = (
        Table(
            ("training", "samples/s"),
            (*rows, ("slower by, per cent", f"{slower:.1f}")),
            "What following a run costs it",
        ),
        Table(("", "seconds"), (("from the end of training to the first answer", f"{median(waits):.2f}"),)),
    )
    report = Report("finetune_beside", "Fine-tuning beside its interface", tables, (), ("torch", "transformers"))
    return finish(report, asked, before, "1")


if __name__ == "__main__":
    raise SystemExit(main())
