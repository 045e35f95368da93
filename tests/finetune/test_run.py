"""A run from a script: what it tells, what it leaves, and that leaving it stops it."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import multimodel
from multimodel.errors import DataError, InvalidName
from multimodel.finetune.api import finetune
from multimodel.finetune.card import card
from multimodel.finetune.jobs import Jobs
from multimodel.finetune.predict import Predictor
from multimodel.finetune.store import METADATA, METRICS, Store
from multimodel.finetune.types import ENDED, TrainConfig

from .conftest import Finished
from .support import settings_in


def test_the_package_is_the_verb() -> None:
    assert callable(multimodel.finetune)
    assert multimodel.TrainConfig is TrainConfig


def test_a_run_tells_how_it_goes(finished: Finished) -> None:
    updates = finished.updates
    phases = {update.phase: None for update in updates}  # a follower may miss some, never their order
    assert list(phases)[-1] == "done" and {"preparing", "training"} <= set(phases)
    assert [phase for phase in ("queued", "preparing", "training", "done") if phase in phases] == [
        phase for phase in phases if phase in ("queued", "preparing", "training", "done")
    ]
    assert all(a.step <= b.step and a.fraction <= b.fraction for a, b in pairwise(updates))
    last = updates[-1]
    assert (last.step, last.total_steps, last.epochs, last.fraction) == (64, 64, 8, 1.0)
    assert last.error is None and last.model and last.best
    assert last.plan["rows"] == {"train": 240, "validation": 30, "test": 30}
    assert "you chose it" in last.plan["precision_reason"]
    ended = [update.phase for update in updates if update.phase in ENDED]  # again while its process goes
    assert ended and ended == [update.phase for update in updates[-len(ended) :]] and set(ended) == {"done"}


def test_each_point_of_a_curve_is_new_once(finished: Finished) -> None:
    seen: dict[str, list[float]] = {}
    for update in finished.updates:
        for name, points in update.new.items():
            seen.setdefault(name, []).extend(point.value for point in points)
    whole = {name: [p.value for p in points] for name, points in finished.updates[-1].curves.items()}
    assert seen == whole
    assert {"loss", "learning_rate", "validation_loss", "accuracy", "f1"} <= set(whole)
    assert whole["loss"][-1] < whole["loss"][0]


def test_what_it_learnt_is_good_and_recorded(finished: Finished) -> None:
    assert finished.updates[-1].metrics["accuracy"] >= 0.9
    folder = Store(finished.settings).path("moods")
    record = json.loads((folder / "training_metadata.json").read_text())
    assert record["parameters"]["epochs"] == 8 and record["data"]["rows"]["train"] == 240
    assert record["training"]["steps"] == 64 and record["versions"]["torch"]
    assert record["seconds"]["training"] > 0 and record["memory"]["peak"] > 10_000_000
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["split"] == "test" and metrics["rows"] == 30
    assert [row["label"] for row in metrics["per_class"]] == ["neg", "pos"]
    assert sum(map(sum, metrics["confusion"])) == 30
    assert metrics["baseline"]["accuracy"] > 0.5
    assert len(json.loads((folder / "history.json").read_text())["curves"]["loss"]) == len(
        finished.updates[-1].curves["loss"]
    )
    card = (folder / "README.md").read_text()
    assert "# moods" in card and "data.csv" in card and str(folder.parent) not in card
    assert Store(finished.settings).damaged("moods") == []
    rights = {path.name: path.stat().st_mode for path in folder.iterdir() if path.is_file()}
    assert set(rights.values()) == {rights["config.json"]}, "another user may read only a part of the model"


def test_any_library_can_load_the_folder(finished: Finished) -> None:
    from transformers import pipeline

    classify = pipeline("text-classification", model=str(Store(finished.settings).path("moods")), device="cpu")
    assert classify("the film was great and lovely")[0]["label"] == "pos"


def test_the_card_says_how_others_get_the_same_probabilities(finished: Finished, tmp_path: Path) -> None:
    model = shutil.copytree(Store(finished.settings).path("moods"), tmp_path / "tempered")
    labels = json.loads((model / "label_map.json").read_text()) | {"temperature": 8.0}
    (model / "label_map.json").write_text(json.dumps(labels))
    metrics, record = (json.loads((model / name).read_text()) for name in (METRICS, METADATA))
    assert "```python" not in card(record, metrics), "the temperature is 1: there is nothing to divide by"
    metrics["calibration"]["temperature"] = 8.0
    code = card(record, metrics).partition("```python\n")[2].partition("```")[0]
    found: dict[str, Any] = {}
    exec(code.replace("the path of this folder", str(model)), found)
    texts = ["the film was great", "an awful dull day"]
    answers = Predictor(str(model), settings=finished.settings)(texts)
    assert [said["label"] for said in found["classify"](texts)] == [own.label for own in answers]
    scores = [own.score for own in answers]
    assert [said["score"] for said in found["classify"](texts)] == pytest.approx(scores, abs=1e-4)
    assert max(scores) < 0.95, "the temperature makes no difference"


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"name": "moods"}, InvalidName),
        ({"name": "MOODS"}, InvalidName),
        ({"name": "../up"}, InvalidName),
        ({"name": "new", "label_column": "nothing"}, DataError),
    ],
)
def test_what_cannot_start_says_so_in_its_last_update(
    finished: Finished, changes: dict[str, str], error: type[Exception]
) -> None:
    *_, last = finetune(finished.config.merge(changes), settings=finished.settings)
    assert last.phase == "failed" and isinstance(last.error, error) and last.error.hint
    if changes["name"] == "new":
        Jobs(finished.settings).discard("new")


def test_leaving_stops_the_run_and_keeps_the_best(place: Path) -> None:
    base, data = str(place / "encoder"), str(place / "data.csv")
    config = TrainConfig(data=data, base=base, name="left", epochs=200, early_stopping=0)
    settings = settings_in(place)
    updates = finetune(config, settings=settings)
    for update in updates:
        if update.step > 10:
            break
    updates.close()
    jobs = Jobs(settings)
    left = jobs.get("left")
    assert left.phase == "stopped" and 10 < left.step < left.total_steps
    assert left.model and Path(left.model, "manifest.json").exists()
    assert "best model so far" in left.detail
