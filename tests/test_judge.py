"""The judge of answers: each text is asked once, another model asks anew, and only saved models judge."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from multimodel.engine import Engine
from multimodel.errors import WorkerCrashed
from multimodel.finetune.labels import LabelMap
from multimodel.finetune.store import MANIFEST
from multimodel.finetune.types import Prediction
from multimodel.judge import KEPT, LONGEST, Judge
from tabs.judge import AT_ONCE, JudgePanel, Judging, badge_html

from .finetune.support import settings_in

ONE = LabelMap("single_label", ("good", "bad"))
EVIL = "<img src=x onerror=alert(1)>"


class Fake:
    """A model whose answer is how long a text is."""

    labels = ONE

    def __init__(self, crashes: int = 0, folder: Path = Path("nowhere")) -> None:
        self.folder = folder
        self.asked: list[str] = []
        self.crashes = crashes

    def __call__(self, texts: Sequence[str]) -> list[Prediction]:
        if self.crashes:
            self.crashes -= 1
            raise WorkerCrashed("gone")
        self.asked += texts
        return [Prediction(str(len(text)), 0.9, {}, (str(len(text)),)) for text in texts]


class Shelf:
    """Models by their names."""

    def __init__(self, **models: Fake) -> None:
        self.models = models

    def get(self, name: str) -> Any:
        return self.models[name]


def labels(judge: Judge, name: str, texts: Sequence[str]) -> list[str]:
    return [said.label for said in judge.verdicts(name, texts)[1]]


def test_each_text_is_asked_once() -> None:
    model = Fake()
    judge = Judge(Shelf(a=model))  # type: ignore[arg-type]
    assert labels(judge, "a", ["x", "yy", "x"]) == ["1", "2", "1"]
    assert labels(judge, "a", ["yy", "zzz"]) == ["2", "3"]
    assert model.asked == ["x", "yy", "zzz"]
    assert labels(judge, "a", []) == []


def test_a_model_that_was_trained_anew_is_asked_anew(tmp_path: Path) -> None:
    model = Fake(folder=tmp_path)
    judge = Judge(Shelf(a=model))  # type: ignore[arg-type]
    for stamp in (1.0, 1.0, 2.0):
        (tmp_path / MANIFEST).touch()
        os.utime(tmp_path / MANIFEST, (stamp, stamp))
        labels(judge, "a", ["x"])
    assert model.asked == ["x", "x"]


def test_a_process_that_ended_is_started_once_more() -> None:
    model = Fake(crashes=1)
    assert labels(Judge(Shelf(a=model)), "a", ["x"]) == ["1"]  # type: ignore[arg-type]
    with pytest.raises(WorkerCrashed):
        labels(Judge(Shelf(a=Fake(crashes=2))), "a", ["x"])  # type: ignore[arg-type]


def test_no_more_is_read_and_kept_than_is_of_use() -> None:
    judge = Judge(Shelf(a=Fake()))  # type: ignore[arg-type]
    assert labels(judge, "a", ["x" * (LONGEST + 5)]) == [str(LONGEST)]
    labels(judge, "a", [str(i) for i in range(KEPT + 10)])
    assert len(judge._kept) == KEPT


def test_a_badge_says_how_sure_and_has_every_probability() -> None:
    html = badge_html(EVIL, ONE, Prediction("good", 0.934, {"good": 0.934, "bad": 0.066}, ("good",)))
    assert "<b>good</b> 0.93" in html and "<img" not in html
    assert re.findall(r"<em>([\w.]+)</em>", html) == ["good", "0.93", "bad", "0.07"]
    number = badge_html("a", LabelMap("regression", ("value",)), Prediction("3.5", 3.5, {}))
    assert "<b>3.5</b>" in number and "0." not in number
    several = LabelMap("multi_label", ("a", "b"))
    assert "<b>no label</b>" in badge_html("a", several, Prediction("", 0.9, {"a": 0.1, "b": 0.1}))


@pytest.mark.parametrize("name", ["", "nobody", "../x", "someone/model", None])
def test_only_saved_models_judge(tmp_path: Path, name: object) -> None:
    with Engine(settings_in(tmp_path)) as engine:
        found = Judging(engine).judged({"model": name, "texts": ["x"]})
        assert found["gone"] and "is gone" in found["error"] and "Choose another one" in found["error"]
        assert "predictors" not in vars(engine) or not engine.predictors._warm


@pytest.mark.parametrize("texts", [None, "x", [1], ["x"] * (AT_ONCE + 1)])
def test_only_texts_are_judged(tmp_path: Path, texts: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multimodel.finetune.store.Store.names", lambda self: ["a"])
    with Engine(settings_in(tmp_path)) as engine:
        assert "at once" in Judging(engine).judged({"model": "a", "texts": texts})["error"]


def test_the_choice_holds_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Engine(settings_in(tmp_path)) as engine:
        panel = JudgePanel(engine)
        monkeypatch.setattr("multimodel.finetune.store.Store.names", lambda self: ["a", "b"])
        update, name = panel.restore("b")
        assert name == "b" and update["choices"] == [("none", ""), ("a", "a"), ("b", "b")]
        update, judges = panel.restore("old")
        assert judges == "" and update["value"] == "old" and update["choices"][-1] == ("old, gone", "old")
        assert panel.restore(None)[1] == panel.choices("")["value"] == ""
