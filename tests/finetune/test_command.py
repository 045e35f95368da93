"""Fine-tuning from the command line: every setting is an option, a run is watched, stopped, resumed and listed."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from rich.console import Console

from multimodel.errors import NotEnoughMemory
from multimodel.finetune import __main__ as command
from multimodel.finetune import console as view
from multimodel.finetune.__main__ import main
from multimodel.finetune.data import Dataset
from multimodel.finetune.events import Reader
from multimodel.finetune.options import parser, settings_of
from multimodel.finetune.report import report
from multimodel.finetune.types import HELP, Best, Point, TrainConfig, TrainUpdate

from ..support import ROOT, eventually
from .support import sentences, write_csv


class Screen(Console):
    """A console that keeps what it shows."""

    def __init__(self, *, terminal: bool = False) -> None:
        self.kept = io.StringIO()
        super().__init__(file=self.kept, width=110, force_terminal=terminal, color_system=None)

    @property
    def text(self) -> str:
        return self.kept.getvalue()


@pytest.fixture
def home(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the command finds its rows and puts its models."""
    monkeypatch.chdir(place)
    monkeypatch.setenv("FINE_TUNED_DIR", str(place / "commands"))
    monkeypatch.setenv("MULTIMODEL_TRACKING", "false")
    monkeypatch.setenv("MULTIMODEL_THREADS", "1")
    yield place


def test_every_setting_is_an_option_with_its_help() -> None:
    said = " ".join(parser().format_help().split())
    options = said.replace(",", "").split()
    for field in fields(TrainConfig):
        assert field.name == "data" or f"--{field.name.replace('_', '-')}" in options
        assert " ".join(HELP[field.name].split()) in said
    assert "1 to 1024" in said and "bfloat16" in said


def test_options_become_settings_and_nothing_else_is_set() -> None:
    assert settings_of(parser().parse_args([])) == {}
    given = "d.csv --name n --epochs 5 --learning-rate 1e-3 --class-weights --no-gradient-checkpointing"
    found = settings_of(parser().parse_args([*given.split(), "--fixes", "leaks", "duplicates", "--device", "cpu"]))
    assert found == {
        "data": "d.csv",
        "name": "n",
        "epochs": 5,
        "learning_rate": 1e-3,
        "class_weights": True,
        "gradient_checkpointing": False,
        "fixes": ["leaks", "duplicates"],
        "device": "cpu",
    }
    assert TrainConfig(**found).fixes == ("leaks", "duplicates")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "no data"),
        (["nowhere.csv"], "no name"),
        (["nowhere.csv", "--name", "x"], "no data called"),
        (["data.csv", "--name", "../x", "--base", "encoder"], "cannot be the name"),
        (["data.csv", "--name", "x", "--epochs", "9999"], "from 1 to 200"),
        (["--resume", "never"], "no run"),
    ],
)
def test_what_cannot_be_is_said_with_what_to_do(home: Path, options: list[str], says: str) -> None:
    screen = Screen()
    options = [str(home / "encoder") if option == "encoder" else option for option in options]
    assert main(options, screen) == 2
    assert says in " ".join(screen.text.split())


def test_the_report_comes_before_training(home: Path) -> None:
    screen = Screen()
    assert main(["data.csv", "--base", str(home / "encoder"), "--report-only"], screen) == 0
    assert "300 rows" in screen.text and "Tokens a text" in screen.text and "│ pos" in screen.text
    assert not (home / "commands").exists()


def test_the_report_names_the_options_that_answer_it() -> None:
    texts = (*(f"the text number {i}" for i in range(99)), "word " * 900)
    data = Dataset(texts, tuple("aaab"[i % 4] for i in range(100)), ("",) * 100, tuple(range(1, 101)))
    screen = Screen()
    view.show_report(screen, report(data))
    said = " ".join(screen.text.split())
    assert "Languages (guessed): English" in said
    assert "as much. Setting: --class-weights" in said and "cut off. Setting: --max-length 512" in said
    for name, (_, reason) in report(data).recommended.items():
        assert f"│ --{name.replace('_', '-')}" in said and reason in said
    assert re.search(r"│ --epochs 10 +│ 100 rows to train on", screen.text)


@pytest.mark.parametrize(
    ("rows", "options", "batch", "says"),
    [
        (300, [], 16, "An epoch has 15 steps; a larger batch would leave it even fewer."),  # as recommended
        (2000, [], 64, "An epoch has 25 steps; a larger batch would leave it fewer than 20."),
        (2000, ["--gradient-accumulation", "2"], 32, "An epoch has 25 steps; a larger batch would"),
        (2000, ["--test-size", "0.5", "--validation-size", "0.3"], 32, "An epoch has 13 steps; a larger batch would"),
    ],
)
def test_the_largest_batch_leaves_an_epoch_enough_steps(
    home: Path, monkeypatch: pytest.MonkeyPatch, rows: int, options: list[str], batch: int, says: str
) -> None:
    asked: list[TrainConfig] = []
    monkeypatch.setattr(command, "submit", lambda config, *_, **__: asked.append(config) or Job)
    monkeypatch.setattr(command, "this_device", lambda: ("some machine", 64_000_000_000))
    data = write_csv(home / f"{rows}.csv", sentences(rows))
    screen = Screen()
    given = [data, "--name", "large", "--base", str(home / "encoder"), "--largest-batch", "--job", "t4-small"]
    assert main([*given, *options], screen) == 0
    assert [config.batch_size for config in asked] == [batch]
    assert says in " ".join(screen.text.split())


class Job:
    """A job of the Hub."""

    url = "https://hub/job"


def test_the_bars_are_nested() -> None:
    screen = Screen(terminal=True)
    loss = (Point(5, 0.5),)
    update = TrainUpdate("a", "evaluating", step=5, total_steps=10, epoch=1.5, epochs=3, curves={"loss": loss})
    with view.View(screen) as shown:
        shown.show(TrainUpdate("a", "preparing", "reading 300 texts", prepared=0.25, log=("first",)))
        shown.show(TrainUpdate("a", "evaluating", evaluated=0.75, step=5, total_steps=10, log=("first", "second")))
        shown.show(update)
    text = screen.text
    assert text.count("first") == text.count("second") == 1
    assert "step 5 of 10" in text and "2 of 3" in text and "50%" in text and "loss 0.5" in text


def test_the_end_tells_what_to_do_next() -> None:
    screen = Screen()
    error = NotEnoughMemory("Training ran out of memory.", hint="Lower the batch size.")
    view.end(screen, TrainUpdate("a", "failed", error=error, retry={"batch_size": 16, "gradient_accumulation": 2}))
    assert "Lower the batch size." in screen.text
    assert "--resume a --batch-size 16 --gradient-accumulation 2" in screen.text
    view.end(screen, TrainUpdate("b", "failed", error=error, retry={"gradient_checkpointing": True}))
    assert "--resume b --gradient-checkpointing\n" in screen.text  # the option takes no value
    view.show_runs(screen, [TrainUpdate("a", "stopped", step=5, total_steps=10, best=Best(5, "f1", 0.5))])
    assert "stopped" in screen.text and "5 of 10" in screen.text and "f1 0.5" in screen.text
    view.show_runs(screen, [])
    assert "no run yet" in screen.text


@pytest.mark.slow
def test_a_run_is_stopped_by_ctrl_c_and_resumed(home: Path) -> None:
    head, *rows = (home / "data.csv").read_text(encoding="utf-8").splitlines()
    many = [row.replace(" ", f" {number} ", 1) for number in range(10) for row in rows]  # it must not end by itself
    (home / "many.csv").write_text("\n".join([head, *many]), encoding="utf-8")
    options = ["many.csv", "--name", "stopped", "--base", str(home / "encoder"), "--epochs", "200"]
    options += ["--early-stopping", "0", "--precision", "float32", "--largest-batch"]
    command = [sys.executable, "-m", "multimodel.finetune", *options]
    process = subprocess.Popen(
        command,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests in the background ignore it
    )
    reader = Reader(home / "commands" / ".runs" / "stopped")
    try:
        eventually(lambda: any(e["kind"] == "progress" for e in reader.read()) or process.poll() is not None, 120)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 0, said
    words = " ".join(said.split())
    assert re.search(r"Batch size \d+: training takes about", words), words
    assert [event["phase"] for event in Reader(reader.folder).read() if event["kind"] == "end"] == ["stopped"], words
    assert "Saved in" in words and (home / "commands" / "stopped" / "manifest.json").exists()
    screen = Screen()
    assert main(["--resume", "stopped", "--epochs", "1"], screen) == 0  # another length: it begins anew
    assert "done" in screen.text and "accuracy" in screen.text and "TF-IDF" in screen.text
    assert main(["--runs"], screen) == 0
    assert "│ stopped" in screen.text
