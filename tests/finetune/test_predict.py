"""Using a model: in the order asked, the same in every batch, in a process of its own too, and from files."""

from __future__ import annotations

import csv
import gc
import json
import os
import random
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import psutil
import pytest

import multimodel
from multimodel.compute import Cores
from multimodel.errors import (
    BadRequest,
    BrokenFile,
    DataError,
    InvalidParameter,
    ModelNotFound,
    MultimodelError,
    WorkerCrashed,
)
from multimodel.finetune.labels import LabelMap
from multimodel.finetune.predict import Apart, Predictor, Predictors, texts_of
from multimodel.finetune.probability import ENOUGH, calibration, probabilities, temperature, thresholds
from multimodel.finetune.reading import read
from multimodel.finetune.store import Store

from ..support import eventually
from .conftest import Finished
from .support import sentences, settings_in, tiny_encoder


@pytest.fixture(scope="module")
def moods(finished: Finished) -> Iterator[Predictor]:
    with Predictor("moods", settings=finished.settings) as predictor:
        yield predictor


@pytest.fixture(scope="module")
def masked(place: Path) -> Path:
    return tiny_encoder(place / "masked", masked=True)


def close(a: float, b: float) -> bool:
    return a == pytest.approx(b, abs=1e-5)


def test_the_package_offers_it() -> None:
    assert multimodel.Predictor is Predictor


def test_the_classes_are_those_of_the_rows(moods: Predictor) -> None:
    great, awful = moods(["the film was great and lovely", "an awful dull day"])
    assert (great.label, awful.label) == ("pos", "neg")
    assert list(great.scores) == ["neg", "pos"] and great.score == great.scores["pos"]
    assert close(sum(great.scores.values()), 1.0)
    assert moods([]) == []


def test_order_is_kept_and_no_batch_changes_an_answer(moods: Predictor) -> None:
    texts = [text for text, _ in sentences(150, seed=9)] + ["", "great " * 300, "great"] * 3
    random.Random(1).shuffle(texts)
    together = moods(texts)
    for text, said in list(zip(texts, together, strict=True))[::17]:
        (alone,) = moods([text])
        assert alone.label == said.label and close(alone.score, said.score)


def test_progress_is_told_and_leaving_ends_the_work(moods: Predictor) -> None:
    texts = [text for text, _ in sentences(600, seed=4)]
    seen = list(moods.stream(texts))
    assert seen == sorted(seen) and seen[-1] == 1.0 and len(seen) > 1
    steps = moods.stream(texts)
    next(steps)
    steps.close()


def test_a_long_text_is_as_much_work_as_many_short_ones(moods: Predictor) -> None:
    texts = [f"great {'film ' * 25}{i}" for i in range(64)] + [f"dull {i}" for i in range(64)]
    first = next(done for done in moods.stream(texts) if done)
    assert 0.8 < first < 1.0  # half of the texts, nearly all of the words


def test_words_weigh_for_and_against(moods: Predictor) -> None:
    text = "superb film in a dull town"
    weights = {a.word: a.weight for a in moods.explain(text, "pos")}
    assert list(weights) == text.split()
    assert max(weights, key=lambda word: weights[word]) == "superb"
    assert min(weights, key=lambda word: weights[word]) == "dull"
    against = {a.word: a.weight for a in moods.explain(text, "neg")}
    assert all(close(weights[word], -against[word]) for word in weights)  # of two classes, each is the other's opposite
    assert len(moods.explain("great " * 1000)) <= 100
    assert moods.explain("") == []
    with pytest.raises(InvalidParameter, match="'meh'"):
        moods.explain(text, "meh")


def test_a_model_in_its_own_process_says_the_same(finished: Finished, moods: Predictor, masked: Path) -> None:
    texts = [text for text, _ in sentences(40, seed=5)]
    models = Predictors(finished.settings, Cores(1))
    try:
        models.prepare()
        apart = models.get("moods")
        for here, there in zip(moods(texts), apart(texts), strict=True):
            assert here.label == there.label and close(here.score, there.score)
        assert models.get("moods") is apart
        assert [a.word for a in apart.explain(texts[0])] == texts[0].split()
        assert len(models.get(masked).fill("the [MASK] was great")) == 5
        with pytest.raises(BrokenFile, match="no classifier"):
            models.get(masked)(["x"])
        with pytest.raises(BadRequest, match="gap"):
            models.get(masked).fill("no gap here")
        child = next(p for p in psutil.Process().children() if "predict_child" in " ".join(p.cmdline()))
        os.kill(child.pid, signal.SIGKILL)
        with pytest.raises(WorkerCrashed, match="SIGKILL"):
            apart(texts)
        assert models.get("moods")(texts[:1])[0].label == moods(texts[:1])[0].label  # started anew
    finally:
        models.close()


def test_who_is_being_answered_is_answered_to_the_end(finished: Finished, tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    copy = Store(settings).folder / "moods"
    shutil.copytree(Store(finished.settings).path("moods"), copy)
    models = Predictors(settings, Cores(1))
    try:
        old = models.get("moods")
        steps = old.stream([text for text, _ in sentences(200, seed=6)])
        next(steps)
        os.utime(copy / "manifest.json", (1, 1))  # trained anew
        new = models.get("moods")
        assert new is not old and new(["an awful day"])[0].label == "neg"
        with pytest.raises(StopIteration) as end:
            while True:
                next(steps)
        assert len(end.value.value) == 200
        children = {child.pid for child in psutil.Process().children()}
        del old, steps, end
        gc.collect()
        eventually(lambda: len({child.pid for child in psutil.Process().children()}) < len(children))
    finally:
        models.close()


def test_a_label_map_of_another_model_is_refused(finished: Finished, tmp_path: Path) -> None:
    copy = tmp_path / "mixed"
    shutil.copytree(Store(finished.settings).path("moods"), copy)
    values = json.loads((copy / "label_map.json").read_text())
    (copy / "label_map.json").write_text(json.dumps(values | {"classes": ["a", "b", "c"]}))
    with Predictor(copy) as predictor, pytest.raises(BrokenFile, match="3 classes") as caught:
        predictor(["x"])
    assert caught.value.hint


def test_words_for_a_gap(masked: Path, moods: Predictor) -> None:
    with Predictor(masked) as filler:
        found = filler.fill("the [MASK] was great", top=3)
        assert len(found) == 3 and found[0].score >= found[1].score >= found[2].score
        assert all(f.token.removeprefix("##") in f.text for f in found)
    with pytest.raises(BrokenFile, match="masked"):
        moods.fill("the [MASK]")


def test_a_base_model_without_a_trained_head_is_no_classifier(place: Path) -> None:
    with Predictor(place / "encoder") as predictor, pytest.raises(BrokenFile) as caught:
        predictor(["x"])
    assert "Fine-tune" in caught.value.hint


def test_a_whole_file(moods: Predictor, tmp_path: Path) -> None:
    source = tmp_path / "in.tsv"
    source.write_text("id\ttext\n1\t=great lovely\n2\tawful dull\n3\t\n", encoding="utf-16")
    steps = moods.file(source, tmp_path / "out.csv")
    while True:
        try:
            assert 0 < next(steps) <= 1
        except StopIteration as end:
            assert end.value == tmp_path / "out.csv"
            break
    with (tmp_path / "out.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["predicted"] for row in rows][:2] == ["pos", "neg"]
    assert rows[0]["text"] == "'=great lovely" and set(rows[0]) >= {"id", "score", "p(neg)", "p(pos)"}
    with pytest.raises(DataError, match="no column"):
        list(moods.file(source, tmp_path / "x.csv", column="nothing"))
    assert not (tmp_path / "x.csv").exists()


@pytest.mark.parametrize("name", ["program.exe", "picture.csv"])
def test_a_file_without_text_is_refused_and_none_of_it_is_shown(moods: Predictor, tmp_path: Path, name: str) -> None:
    source = tmp_path / name
    source.write_bytes(b"\x7fELF\x02\x01\x01" + random.Random(1).randbytes(5000))
    with pytest.raises(DataError) as caught:
        list(moods.file(source, tmp_path / "out.csv"))
    assert str(caught.value) == f"{name} holds no text." and "CSV" in caught.value.hint


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "cp1252"])
def test_texts_in_any_encoding_are_texts(tmp_path: Path, encoding: str) -> None:
    source = tmp_path / "in.txt"
    source.write_text("text\ngrößer\nein Café\nna ja\n", encoding=encoding)
    assert texts_of(read(source)) == ["größer", "ein Café", "na ja"]
    source.write_text("text\n👩\u200d💻 \u0645\u06cc\u200c\u062e\n😀\n", encoding="utf-8")  # joined by what nobody sees
    assert len(read(source).rows) == 2


def test_a_text_alone_is_a_list_of_one(moods: Predictor) -> None:
    assert moods("an awful dull day") == moods(["an awful dull day"])
    assert [said.label for said in moods(text for text in ("great lovely", "awful"))] == ["pos", "neg"]


@pytest.mark.parametrize(
    ("given", "says"), [([None, 1], "texts[0] is None"), (["x", 1], "texts[1] is 1"), (5, "int is"), (b"x", "bytes is")]
)
def test_what_is_no_text_is_named(moods: Predictor, given: Any, says: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        moods(given)
    assert says in str(caught.value) and "list of texts" in caught.value.hint


def test_the_saved_models_are_named_where_one_is_not_found(finished: Finished, tmp_path: Path) -> None:
    for name in ("nowhere", "", "  "):
        with pytest.raises(ModelNotFound) as caught:
            Predictor(name, settings=finished.settings)
        assert "moods" in caught.value.hint and "guide" not in caught.value.hint
    with pytest.raises(ModelNotFound) as caught:
        Predictor("nowhere", settings=settings_in(tmp_path))
    assert "python -m multimodel.finetune" in caught.value.hint


@pytest.mark.parametrize("name", ["nowhere", "../moods", "/etc/passwd", "someone/model"])
def test_a_model_that_is_nowhere(finished: Finished, name: str) -> None:
    with pytest.raises(MultimodelError) as caught:
        Predictor(name, settings=finished.settings)
    assert caught.value.hint


def test_several_labels_and_numbers_become_answers() -> None:
    several = LabelMap("multi_label", ("a", "b"), thresholds=(0.9, 0.2))
    both, none = several.predictions([[5.0, 0.0], [-5.0, -5.0]])
    assert both.labels == ("a", "b") and both.label == "a, b"
    assert none.labels == () and none.label == ""
    assert several.predictions([[5.0, 0.0]], threshold=0.6)[0].labels == ("a",)
    (number,) = LabelMap("regression", ("value",), 100.0, 10.0).predictions([[1.5]])
    assert (number.score, number.label, number.scores) == (115.0, "115", {})


def test_probabilities_calibration_and_thresholds() -> None:
    logits = [[4.0, 0.0]] * 60 + [[0.0, 4.0]] * 40
    truth = [0] * 50 + [1] * 10 + [1] * 30 + [0] * 10
    degree = temperature(logits, truth, "single_label")
    assert degree > 2  # too sure of itself: 98 % said, 80 % right
    sure = probabilities(logits, "single_label", degree)[:, 0].max()
    assert sure == pytest.approx(0.8, abs=0.01)
    assert temperature(logits[: ENOUGH - 1], truth[: ENOUGH - 1], "single_label") == 1.0
    assert calibration([0.9] * 10, [1] * 9 + [0])["ece"] == pytest.approx(0.0)
    assert calibration([0.9] * 10, [0] * 10)["ece"] == pytest.approx(0.9)
    shares = [[0.3]] * 30 + [[0.1]] * 40
    assert 0.1 < thresholds(shares, [[1]] * 30 + [[0]] * 40)[0] <= 0.3
    assert probabilities([[1e4, -1e4]], "multi_label").tolist() == [[1.0, 0.0]]


def test_a_model_that_is_being_loaded_holds_up_no_other(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    models = Predictors(finished.settings, Cores(1))
    go, entered = Event(), Event()
    try:
        warm = models.get("moods")
        load = Apart.load

        def slow(self: Apart, folder: Path, precision: Any = "float32") -> Apart:
            entered.set()
            go.wait(60)
            return load(self, folder, precision)

        monkeypatch.setattr(Apart, "load", slow)
        other = finished.settings.models.fine_tuned_dir.parent / "encoder"
        found: list[Predictor] = []
        threads = [Thread(target=lambda: found.append(models.get(other))) for _ in range(2)]
        for thread in threads:
            thread.start()
        assert entered.wait(60)
        assert models.get("moods") is warm and warm(["great"])
        go.set()
        for thread in threads:
            thread.join(60)
        assert len(found) == 2 and found[0] is found[1]
    finally:
        go.set()
        models.close()


def test_the_end_of_the_app_ends_what_is_being_loaded(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    models = Predictors(finished.settings, Cores(1))
    go, entered = Event(), Event()
    load = Apart.load

    def slow(self: Apart, folder: Path, precision: Any = "float32") -> Apart:
        entered.set()
        go.wait(60)
        return load(self, folder, precision)

    monkeypatch.setattr(Apart, "load", slow)
    errors: list[MultimodelError] = []

    def get() -> None:
        try:
            models.get("moods")
        except MultimodelError as error:
            errors.append(error)

    thread = Thread(target=get)
    thread.start()
    assert entered.wait(60)
    models.close()
    go.set()
    thread.join(60)
    assert len(errors) == 1 and isinstance(errors[0], WorkerCrashed)
    assert not [p for p in psutil.Process().children() if "predict_child" in " ".join(p.cmdline())]
