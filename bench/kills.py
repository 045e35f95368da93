"""Fine-tuning killed at random moments and resumed: does it end with the weights of the run that nobody killed?

`python -m bench.kills --rounds 100` kills and resumes so often. Training runs in forks of a process that has loaded
its libraries, so that a try takes a second; each is a process of its own and dies by SIGKILL.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from multimodel.finetune import child, sources
from multimodel.finetune import data as rows
from multimodel.finetune.control import Control
from multimodel.finetune.events import Reader
from multimodel.finetune.runfolder import DATA, Order
from multimodel.finetune.store import Store
from multimodel.finetune.types import TrainConfig
from multimodel.settings import ModelSettings, PerformanceSettings, Settings, TrackingSettings

from .bare import environment
from .report import ROOT, Report, Table, finish, load, parser

FORK = "--fork"
MOST_STEPS = 3
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,!?'-"


class Forks:
    """Starts processes that train, each a fork of one that has its libraries loaded."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def start(self, folder: Path) -> int:
        """Work on the run of a folder; returns the process id."""
        return int(self._said(str(folder)))

    def wait(self) -> int:
        """The exit code of the process started last, negative for a signal."""
        return int(self._said("wait"))

    def _said(self, line: str) -> str:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()


@contextmanager
def forks() -> Iterator[Forks]:
    """A process that forks; it ends with the block."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.kills", FORK],
        cwd=ROOT,
        env={**environment(), **threads, "MULTIMODEL_TRACKING": "false"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield Forks(process)
        finally:
            assert process.stdin
            process.stdin.close()


def serve() -> None:
    """Fork for every folder that is named, wait where that is said."""
    import_module("multimodel.finetune.train")  # what takes seconds
    out, pid = os.fdopen(os.dup(1), "w"), 0
    os.dup2(2, 1)
    for line in sys.stdin:
        if line.strip() == "wait":
            _, status = os.waitpid(pid, 0)
            out.write(f"{os.waitstatus_to_exitcode(status)}\n")
        else:
            folder = Path(line.strip())
            pid = os.fork()
            if pid == 0:
                with (folder / "stderr.txt").open("ab") as errors:
                    os.dup2(errors.fileno(), 2)
                os._exit(child.work(folder, Control(folder)))
            out.write(f"{pid}\n")
        out.flush()


def alone_in(models: Path) -> Settings:
    """The settings of runs on one thread, whose models go into a folder of their own and which nothing tracks."""
    return Settings(
        models=ModelSettings(fine_tuned_dir=models),
        performance=PerformanceSettings(threads=1),
        tracking=TrackingSettings(enabled=False),
    )


def ordered(config: TrainConfig, settings: Settings) -> Path:
    """The folder of a run that is ready to train, as `Jobs` makes it."""
    folder = Store(settings).runs / config.name
    folder.mkdir(parents=True)
    digest = rows.save(sources.prepared(config, settings), folder / DATA)
    Order(config, config.base, str(settings.models.fine_tuned_dir), digest, "2026-01-01T00:00:00+00:00").save(folder)
    return folder


def survive(pool: Forks, folder: Path, kills: int, seed: int, longest: float) -> int:
    """Kill the run of a folder in the middle of training, `kills` times at most, until it has ended; returns how often.

    Each kill comes a few steps, none to MOST_STEPS, and then up to `longest` seconds after training began or went on:
    so it meets a busy machine in the middle of training too.
    """
    generator, killed = random.Random(seed), 0
    while True:
        events = Reader(folder)
        events.read()
        pid = pool.start(folder)
        if killed < kills and _training(events, generator.randint(0, MOST_STEPS)):
            time.sleep(generator.uniform(0.0, longest))
            os.kill(pid, 9)
        code = pool.wait()
        killed += code == -9
        if code == 0:
            return killed
        assert code == -9, f"a try ended with {code}: see {folder}/stderr.txt"


def _training(events: Reader, steps: int) -> bool:
    """Wait until the run trains and has told of so many points of its curves; False where it has ended before."""
    begun = False
    while True:
        for event in events.read():
            if event["kind"] == "end":
                return False
            begun |= event["kind"] == "phase" and event["phase"] == "training"
            steps -= event["kind"] == "points"
        if begun and steps <= 0:
            return True
        time.sleep(0.005)


def measure(rounds: int, tiny: bool) -> Report:
    """Kill and resume a small run `rounds` times, in stories of ten kills, and compare with the run nobody killed."""
    each = 2 if tiny else 10
    with tempfile.TemporaryDirectory() as place, forks() as pool:
        folder = Path(place)
        settings = Settings(models=ModelSettings(fine_tuned_dir=folder / "models"))
        config = _config(folder)
        survive(pool, ordered(config.merge({"name": "whole"}), settings), 0, 0, 0.0)
        whole = _weights(folder, "whole")
        kills = same = stories = 0
        while kills < rounds:
            stories += 1
            name = f"killed {stories}"
            wanted = min(each, rounds - kills)
            kills += survive(pool, ordered(config.merge({"name": name}), settings), wanted, stories, 0.1)
            same += _weights(folder, name) == whole
    row = (str(stories), str(kills), str(kills), f"{same} of {stories}")
    columns = ("runs", "kills", "resumes", "weights equal bit for bit to the run nobody killed")
    when = f"none to {MOST_STEPS} steps and up to 0.1 s after training began or went on"
    note = f"SIGKILL {when}; a checkpoint after every step."
    return Report(
        "kills", "Fine-tuning killed and resumed", (Table(columns, (row,)),), (note,), ("torch", "transformers")
    )


def _config(folder: Path) -> TrainConfig:
    """Sixty steps of a DistilBERT of random weights on the sample set `sentiment`."""
    import torch  # noqa: PLC0415  # seconds, which the tests that use `survive` do not need
    from transformers import BertTokenizerFast, DistilBertConfig, DistilBertModel  # noqa: PLC0415

    base = folder / "base"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    tokenizer = BertTokenizerFast(vocab={word: i for i, word in enumerate(words)})
    torch.manual_seed(0)
    size = {"dim": 64, "n_layers": 2, "n_heads": 2, "hidden_dim": 128, "max_position_embeddings": 64}
    DistilBertModel(DistilBertConfig(vocab_size=len(tokenizer), **size)).save_pretrained(base)
    tokenizer.save_pretrained(base)
    return TrainConfig(
        data="sentiment", base=str(base), name="whole", epochs=3, precision="float32", checkpoint_steps=1, max_length=32
    )


def _weights(folder: Path, name: str) -> bytes:
    return (folder / "models" / name / "model.safetensors").read_bytes()


def main() -> int:
    """Measure and print."""
    options = parser(__doc__)
    options.set_defaults(rounds=100)
    asked = options.parse_args()
    before = load()
    return finish(measure(2 if asked.tiny else asked.rounds, asked.tiny), asked, before, "1")


if __name__ == "__main__":
    if FORK in sys.argv:
        serve()
    else:
        raise SystemExit(main())
