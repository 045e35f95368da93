"""The Fine-tune tab without a browser: what the page asks and gets, what it may not have, and values as HTML."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import filelock
import gradio as gr
import pytest

from multimodel.engine import Engine
from multimodel.errors import InvalidParameter, NotEnoughMemory, WorkerCrashed
from multimodel.finetune import data as rows
from multimodel.finetune.events import Writer
from multimodel.finetune.report import Base
from multimodel.finetune.runfolder import DATA, Order
from multimodel.finetune.tables import Table
from multimodel.finetune.types import HELP, RANGES, Best, Point, TrainConfig, TrainUpdate
from multimodel.settings import ModelSettings, PerformanceSettings, SecuritySettings, Settings
from tabs import finetune
from tabs.finetune import Drafts, FinetuneTab, Training
from tabs.finetune_data import Choices, classes_html, corrected, lengths_html
from tabs.finetune_run import Shown, bars_html, errors_html, head_html, phase_text, result_html
from tabs.finetune_runs import compare_html, differing, runs_html
from tabs.finetune_settings import LABELS, base_of, form_html, settings_of

from .finetune.support import tiny_encoder
from .support import eventually

EVIL = "<img src=x onerror=alert(1)>"
WHEN = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.fixture
def uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where Gradio puts what is uploaded."""
    folder = tmp_path / "uploads"
    folder.mkdir()
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(folder))
    return folder


def settings(tmp_path: Path, host: str = "127.0.0.1") -> Settings:
    return Settings(
        models=ModelSettings(fine_tuned_dir=tmp_path / "models", cache_dir=tmp_path / "cache", offline=True),
        performance=PerformanceSettings(threads=1),
        security=SecuritySettings(host=host),
    )


@pytest.fixture
def training(tmp_path: Path, uploads: Path) -> Iterator[Training]:
    with Engine(settings(tmp_path)) as engine:
        yield Training(engine)


def upload(folder: Path, lines: list[str], name: str = "reviews.csv") -> dict[str, Any]:
    place = folder / "abc" / name
    place.parent.mkdir(exist_ok=True)
    place.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {"path": str(place)}


def spoilt(evil: str = "") -> list[str]:
    """Rows with copies, an empty text, a text with two labels and a class of its own in capitals."""
    good = [f"this was good number {i} of all,pos" for i in range(30)]
    bad = [f"this was bad number {i} of all,neg" for i in range(30)]
    other = ["this was bad number 3 of all,neg", ",pos", "this was good number 4 of all,neg", f"fine{evil},Pos"]
    return ["review,label", *good, *bad, *other]


def numbered(training: Training) -> str:
    """Rows with a column that is another word in each."""
    lines = [f"this is text {i},{'ab'[i % 2]},no{i}" for i in range(40)]
    return str(training.bring({"text": "\n".join(["text,label,id", *lines])})["draft"])


def text(html: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


def findings(html: str) -> set[str]:
    return set(re.findall(r'data-finding="(\w+)"', html))


# data


def test_an_upload_is_read_its_columns_guessed_and_its_file_not_kept(training: Training, uploads: Path) -> None:
    asked = upload(uploads, spoilt())
    answer = training.bring(asked)
    assert answer["source"] == "reviews.csv" and answer["name"] == "reviews"
    assert "64 rows, 2 columns" in text(answer["columns"])
    assert '<option value="review" selected>' in answer["columns"]
    assert not Path(asked["path"]).exists()


def test_a_file_of_its_own_for_the_final_figures(training: Training, uploads: Path) -> None:
    first = training.bring(upload(uploads, spoilt()))
    more = ["review,label", *(f"another good number {i},pos" for i in range(9)), "another bad one,neg"]
    both = training.bring(upload(uploads, more, "test.csv") | {"beside": first["draft"]})
    assert both["source"] == "reviews.csv and test.csv" and 'data-do="test"' not in both["columns"]
    assert "10 for the final figures" in text(training.look({"draft": both["draft"]})["report"])
    other = training.bring(upload(uploads, ["a,b,c", "1,2,3"], "other.csv") | {"beside": first["draft"]})
    assert "other columns" in other["error"]


def test_nothing_but_uploads_is_read_from_the_disk(training: Training, tmp_path: Path, uploads: Path) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("text,label\nhush,a\nhush hush,b\n")
    (uploads / "link.csv").symlink_to(secret)
    for path in (str(secret), f"{uploads}/../secret.csv", str(uploads / "link.csv"), str(uploads), "/etc/passwd", ""):
        answer = training.bring({"path": path})
        assert "not there any more" in answer["error"] and "hush" not in str(answer)
    assert secret.exists()


def test_a_hub_id_that_is_a_folder_here_is_refused(
    training: Training, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "data.csv").write_text("text,label\nhush,a\n")
    for name in ("a/b", "../" + tmp_path.name, "/etc/passwd", "data.csv", EVIL):
        error = training.bring({"hub": name})["error"]
        assert "names no data set" in error and EVIL not in error
    assert "switched off" in training.bring({"hub": "some/set"})["error"]


def test_samples_and_pasted_rows(training: Training) -> None:
    for name in ("sentiment", "intent", "spam"):
        answer = training.bring({"sample": name})
        assert training.look({"draft": answer["draft"]})["ready"]
    pasted = training.bring({"text": "text,label\ngood,a\nbad,b\nfine,a\npoor,b"})
    assert pasted["name"] == "pasted-rows"
    assert "only 4 rows" in training.look({"draft": pasted["draft"]})["report"]
    assert "no labels" in training.bring({"text": "one\ntwo\nthree"})["error"]


def test_findings_are_shown_repaired_undone_and_ignored(training: Training, uploads: Path) -> None:
    draft = training.bring(upload(uploads, spoilt()))["draft"]
    before = training.look({"draft": draft})
    named = {"empty_texts", "conflicting_labels", "label_twins", "duplicates"}
    assert named <= findings(before["report"]) and before["ready"]
    after = training.look(
        {"draft": draft, "fixes": ["duplicates", "label_twins", "nonsense"], "ignored": ["empty_texts"]}
    )
    assert not findings(after["report"]) & {"duplicates", "label_twins", "empty_texts"}
    assert 'data-unfix="duplicates"' in after["report"] and 'data-heed="empty_texts"' in after["report"]
    assert "Copies are left out 1 row less" in text(after["report"])
    assert "2 classes" in text(after["report"])
    assert training.look({"draft": draft})["report"] == before["report"]


def test_a_column_chosen_by_hand_and_what_cannot_be_trained_on(training: Training, uploads: Path) -> None:
    draft = training.bring(upload(uploads, spoilt()))["draft"]
    same = training.look({"draft": draft, "text": "label", "label": "label"})
    assert "both text and label" in same["error"]
    gone = training.look({"draft": draft, "label": "no such column"})
    assert "no such column" in gone["error"]
    turned = training.look({"draft": numbered(training), "label": "id"})
    assert not turned["ready"] and "classes in" in text(turned["report"])
    assert "does not hold this data" in training.look({"draft": "guessed"})["error"]


def test_what_is_in_the_data_is_never_markup(training: Training, uploads: Path) -> None:
    lines = [line.replace("Pos", EVIL) for line in spoilt(EVIL)]
    lines[0] = f"review,label,{EVIL}"
    answer = training.bring(upload(uploads, [lines[0], *(f"{line},{EVIL}" for line in lines[1:])], "x<b>.csv"))
    shown = training.look({"draft": answer["draft"]})
    doubts = training.doubts({"draft": answer["draft"]})
    for html in (answer["columns"], shown["report"], shown["columns"], doubts["html"]):
        assert "<img" not in html and "x<b>" not in html


def test_doubtful_labels_are_ranked_and_corrected(training: Training, uploads: Path) -> None:
    lines = spoilt()
    lines[1] = lines[1].replace(",pos", ",neg")  # wrong, and nothing else looks like it
    draft = training.bring(upload(uploads, lines))["draft"]
    html = training.doubts({"draft": draft})["html"]
    assert 'data-relabel="0" data-to="pos"' in html
    fixed = training.look({"draft": draft, "labels": {"0": "pos"}})
    assert "pos 31" in text(fixed["report"])
    left = training.look({"draft": draft, "labels": {"0": ""}})
    assert "63 rows" in text(left["report"])


def test_corrections_leave_rows_of_other_tasks_alone() -> None:
    table = Table(("text", "label"), (("a", "1.5"), ("b", "2.5")), (1, 2))
    numbers = rows.dataset(table, rows.guess(table, task="regression"))
    assert corrected(numbers, {0: "9"}) is numbers
    odd = Choices.of({"labels": {"0": "x", "-1": "y", "a": "z"}, "task": "nonsense", "fixes": "all"})
    assert (odd.labels, odd.task, odd.fixes) == ({0: "x"}, "auto", ())


def test_the_oldest_data_of_visitors_leaves() -> None:
    drafts, table = Drafts(), Table(("a",), (("x",),), (1,))
    keys = [drafts.add(str(i), table) for i in range(finetune.KEPT + 1)]
    assert len(set(keys)) == len(keys)
    assert drafts.get(keys[1]).source == "1"
    with pytest.raises(Exception, match="any more"):
        drafts.get(keys[0])


def test_lengths_beyond_the_models_limit_are_marked(training: Training) -> None:
    long = "\n".join(["text,label", *(f"{'word ' * n},{'ab'[n % 2]}" for n in (5, 6, 7, 8, 900, 901))])
    answer = training.look({"draft": training.bring({"text": long})["draft"]})
    assert "data-over" in answer["report"] and "33.3% have more" in answer["report"]
    assert answer["recommended"]["max_length"] == 512


# settings and memory


def test_every_setting_has_a_field_with_its_range_and_help(tmp_path: Path) -> None:
    html = form_html(settings(tmp_path))
    for name in LABELS:
        assert f'data-set="{name}"' in html and HELP[name] in html.replace("&#x27;", "'")
    low, high = RANGES["epochs"]
    assert f'data-set="epochs" value="3" min="{low:g}" max="{high:g}"' in html
    assert set(RANGES) <= set(LABELS)


def test_settings_as_a_page_sends_them() -> None:
    sent = {"epochs": "5", "learning_rate": "", "warmup": "0.2", "class_weights": True, "best_by": "f1", "evil": "x"}
    found = settings_of({"settings": sent})
    assert found == {"epochs": 5, "learning_rate": None, "warmup": 0.2, "class_weights": True, "best_by": "f1"}
    assert settings_of({"settings": {"epochs": ""}}) == settings_of({}) == settings_of({"settings": "x"}) == {}
    for wrong in ("many", "1e999", "nan"):
        with pytest.raises(InvalidParameter, match="Epochs"):
            settings_of({"settings": {"epochs": wrong}})


def test_a_path_is_a_base_model_only_where_nobody_else_can_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tiny_encoder(tmp_path / "own" / "encoder")
    monkeypatch.chdir(tmp_path)
    assert base_of({"base": str(place)}, settings(tmp_path)) == str(place)
    for path in (str(place), "own/encoder", "../" + tmp_path.name, "~/models", "encoder.bin"):
        with pytest.raises(InvalidParameter, match="cannot be the base"):
            base_of({"base": path}, settings(tmp_path, "0.0.0.0"))
    for name in ("encoder", "distilbert-base-cased", "google/electra-small-discriminator"):
        assert base_of({"base": name}, settings(tmp_path, "0.0.0.0")) == name


def test_memory_of_training_and_the_largest_batch(training: Training, tmp_path: Path) -> None:
    base = str(tiny_encoder(tmp_path / "encoder"))
    answer = training.memory({"base": base, "settings": {"batch_size": "8"}, "length": 64})
    assert "Fits" in text(answer["html"]) and 'data-batch="256"' in answer["html"]
    assert "Optimizer state" in answer["html"]
    huge = training.memory({"base": base, "settings": {"batch_size": "1024", "max_length": "8192"}})
    assert "Does not fit" in text(huge["html"])
    rare = {"base": base, "settings": {"batch_size": "8"}, "length": 64, "rows": 320}
    assert 'data-batch="16"' in training.memory(rare)["html"]  # an epoch of one step would teach it nothing
    more = training.memory({"base": base, "settings": {"batch_size": "512"}, "length": 64})
    assert "Fits" in text(more["html"]) and "data-batch" not in more["html"]  # it fits, so nothing else is proposed
    assert "Epochs is 2.5. Write a whole number." in text(
        training.memory({"base": base, "settings": {"epochs": "2.5"}})["error"]
    )
    assert "Epochs is 900" in training.memory({"base": base, "settings": {"epochs": "900"}})["error"]
    adapted = training.memory({"base": base, "settings": {"adaptation": "2"}})["error"]
    assert f"{base} has no head that guesses words" in text(adapted)
    assert "switched off" in training.memory({"base": "no/such", "settings": {}})["error"]


def test_the_rows_that_train_and_judge_are_those_of_the_settings(training: Training) -> None:
    lines = [f"this is text {i},{'ab'[i % 2]}" for i in range(400)]
    draft = training.bring({"text": "\n".join(["text,label", *lines])})["draft"]
    usual = training.look({"draft": draft})
    assert usual["rows"] == 320 and "320 rows to train on" in text(usual["why"])
    assert "320 to train on 40 to watch by 40 for the final figures" in text(usual["report"])
    other = training.look({"draft": draft, "settings": {"validation_size": "0.2", "test_size": "0.4"}})
    assert other["rows"] == 160 and "160 to train on 80 to watch by 160" in text(other["report"])
    assert "Test share is 3" in training.look({"draft": draft, "settings": {"test_size": "3"}})["error"]


def test_words_are_no_numbers(training: Training) -> None:
    draft = training.bring({"text": "text,label\n" + "\n".join(f"text {i},{'ab'[i % 2]}" for i in range(40))})["draft"]
    seen = training.look({"draft": draft, "task": "regression"})
    assert not seen["ready"] and "No label is a number." in text(seen["report"])


def test_a_column_that_names_no_split(training: Training) -> None:
    draft = numbered(training)
    html = training.look({"draft": draft, "split": "id"})["columns"]
    assert "No cell of &#x27;id&#x27; says train, validation or test" in text(html)


def test_labels_corrected_by_hand_are_told_and_taken_back(training: Training) -> None:
    draft = training.bring({"text": "text,label\n" + "\n".join(f"text {i},{'ab'[i % 2]}" for i in range(40))})["draft"]
    seen = text(training.look({"draft": draft, "labels": {"0": "b", "1": ""}})["report"])
    assert "Corrected by hand 1 label changed, 1 row left out Undo all" in seen
    assert "Corrected by hand" not in training.look({"draft": draft})["report"]
    some = rows.Dataset(("x", "y"), ("a", "b"), ("", ""), (1, 2), "single_label")
    assert "By hand: 1 label changed." in corrected(some, {1: "a"}).notes


def test_every_class_can_be_seen() -> None:
    html = classes_html({f"c{i}": 10 for i in range(20)})
    assert "14 more classes" in text(html) and all(f">c{i}<" in html for i in range(20))


# runs


@pytest.fixture
def busy(training: Training) -> Iterator[None]:
    """The processor trains something else: runs wait in line."""
    runs = training.engine.jobs.store.runs
    runs.mkdir(parents=True)
    with filelock.FileLock(runs / ".cpu.lock"):
        yield


def test_a_run_is_begun_with_what_the_page_showed(training: Training, uploads: Path, busy: None) -> None:
    draft = training.bring(upload(uploads, spoilt()))["draft"]
    asked = {"draft": draft, "fixes": ["duplicates", "label_twins"], "name": "mine", "settings": {"epochs": "2"}}
    assert training.begin(asked) == {"run": "mine"}
    folder = training.engine.jobs.store.runs / "mine"
    order = Order.load(folder)
    assert order.config.epochs == 2 and order.config.fixes == ("label_twins", "duplicates")
    assert (order.config.text_column, order.config.label_column) == ("review", "label")
    kept = rows.load(folder / DATA)
    assert kept.classes == ("neg", "pos") and {"train", "validation", "test"} == set(kept.splits)
    seen = training.watch({"run": "mine"})
    assert seen["active"] == 1 and seen["states"] == {"mine": "active"}
    assert "Waiting" in text(seen["shown"]["head"]) and "About to begin" in text(seen["shown"]["bars"])
    again = training.watch({"run": "mine", "seen": seen["shown"]["stamp"]})
    assert again["shown"] == {"stamp": seen["shown"]["stamp"]}
    assert "already" in training.begin(asked)["error"]
    assert training.bring({"sample": "spam"})["name"] == "spam"
    training.act({"run": "mine", "act": "stop"})
    eventually(lambda: training.watch({})["active"] == 0)
    assert 'data-act="resume"' in training.watch({"run": "mine"})["shown"]["head"]
    assert training.act({"run": "mine", "act": "discard"}) == {}
    assert training.watch({"run": "mine"})["gone"] and not folder.exists()


def test_what_cannot_begin_is_said_and_leaves_nothing(training: Training, uploads: Path) -> None:
    draft = training.bring(upload(uploads, spoilt()))["draft"]
    for change, said in (
        ({"name": "../up"}, "cannot be the name"),
        ({"name": ""}, "cannot be the name"),
        ({"name": "x", "settings": {"epochs": "0"}}, "Epochs is 0"),
        ({"name": "x", "settings": {"best_by": EVIL}}, "Best by is"),
        ({"name": "x", "settings": {"freeze_layers": "50"}}, "has 2 layers, not 50"),
        ({"name": "x", "draft": numbered(training), "label": "id"}, "classes in"),
        ({"name": "x", "draft": "?"}, "does not hold"),
    ):
        error = training.begin({"draft": draft, **change})["error"]
        assert said in error and EVIL not in error
    assert training.watch({})["list"] == '<li class="mf-none">No runs so far.</li>'
    for act in ("stop", "resume", "anew", "discard"):
        assert "no run" in training.act({"run": "nobody", "act": act})["error"]


def past(training: Training, name: str, **changes: Any) -> Writer:
    """A run of an earlier day, told by its folder."""
    folder = training.engine.jobs.store.runs / name
    folder.mkdir(parents=True)
    config = TrainConfig(data="reviews.csv", name=name, **changes)
    Order(config, "", str(training.engine.jobs.store.folder), "0", WHEN.isoformat()).save(folder)
    writer = Writer(folder)
    writer.write("plan", values={"total_steps": 40, "epochs": 2, "precision": "float32", "max_length": 40})
    for step in (10, 20):
        writer.write("points", step=step, values={"loss": 1 / step})
    best = {"step": 20, "metric": "f1", "value": 0.8}
    writer.write("evaluation", step=20, metrics={"validation_loss": 0.4, "accuracy": 0.81, "f1": 0.8}, best=best)
    return writer


def test_a_run_that_lacked_memory_offers_settings_that_may_do(training: Training) -> None:
    writer = past(training, "big")
    error = NotEnoughMemory("Training ran out of memory.", hint="Lower the batch size.")
    writer.end("failed", error=error, retry={"batch_size": 16, "gradient_accumulation": 2})
    shown = training.watch({"run": "big"})["shown"]
    assert "Training ran out of memory. Lower the batch size." in text(shown["head"])
    assert "Resume with batches of 16 and gradient accumulation 2" in text(shown["head"])
    assert "data-changes" in shown["head"] and shown["curves"]["loss"] == [[10, 0.1], [20, 0.05]]
    used = training.settings_used({"run": "big"})
    assert used["settings"]["batch_size"] == 32 and used["name"] == "big-2" and "draft" not in used


def test_a_run_begins_another_with_its_rows(training: Training, busy: None) -> None:
    for task, labels in (("single_label", ("a", "b")), ("multi_label", ("a;b", "b;c")), ("regression", ("0.5", "7"))):
        lines = [f"this is text {i},{labels[i % 2]}" for i in range(40)]
        draft = training.bring({"text": "\n".join(["text,label", *lines])})["draft"]
        training.begin({"draft": draft, "name": task, "task": task, "separator": ";", "labels": {"3": "", "5": "a"}})
        kept = rows.load(training.engine.jobs.store.runs / task / DATA)
        used = training.settings_used({"run": task})
        training.begin({"draft": used["draft"], "name": f"{task}-2", **used["choices"]})
        again = rows.load(training.engine.jobs.store.runs / f"{task}-2" / DATA)
        assert (again.texts, again.labels, again.splits) == (kept.texts, kept.labels, kept.splits)


def test_a_start_anew_never_replaces_a_saved_model(training: Training) -> None:
    writer = past(training, "kept")
    writer.write("progress", step=20, epoch=1.0, steps_per_second=1.0, samples_per_second=8.0, seconds_left=1.0)
    writer.end("stopped", "Stopped.")
    assert 'data-act="anew" data-ask=' in training.watch({"run": "kept"})["shown"]["head"]
    (training.engine.jobs.store.folder / "kept").mkdir()
    (training.engine.jobs.store.folder / "kept" / "manifest.json").write_text("{}")
    assert 'data-act="anew"' not in training.watch({"run": "kept"})["shown"]["head"]
    assert "would replace" in training.act({"run": "kept", "act": "anew"})["error"]


def test_what_was_killed_goes_on_as_it_was(training: Training) -> None:
    writer = past(training, "dead")
    writer.end("failed", error=WorkerCrashed("It ended."), retry={"batch_size": 4})
    head = training.watch({"run": "dead"})["shown"]["head"]
    assert re.findall(r'<button[^>]*data-act="resume"[^>]*>([^<]+)', head) == ["Resume", "Resume with batches of 4"]
    assert '<button type="button" class="mx-primary" data-act="resume">Resume' in head


def test_evaluations_since_the_highest() -> None:
    points = tuple(Point(i, value) for i, value in enumerate((0.5, 0.8, 0.79, 0.7)))
    assert finetune.stale(TrainUpdate("a", best=Best(2, "f1", 0.79, 0.8), curves={"f1": points})) == 2
    assert finetune.stale(TrainUpdate("a", best=Best(0, "loss", 0.5), curves={"validation_loss": points})) == 3
    assert finetune.stale(TrainUpdate("a")) == 0


def test_figures_that_are_no_numbers_do_not_end_the_list(training: Training) -> None:
    writer = past(training, "odd")
    best = {"step": 30, "metric": "f1", "value": float("nan")}
    writer.write("evaluation", step=30, metrics={"f1": float("nan")}, best=best)
    assert "odd" in text(training.watch({"run": "odd"})["list"])
    writer.end("done", model="models/odd", metrics={"f1": float("nan"), "accuracy": 0.5})
    shown = training.watch({"run": "odd"})
    assert "Accuracy 50.0 %" in text(shown["list"]) and "Done" in text(shown["shown"]["head"])


def test_numbers_are_off_by_so_much() -> None:
    errors = [{"text": "x", "label": 1.5, "predicted": "7.6", "score": 6.1, "row": 3}]
    assert text(errors_html(errors, numbers=True)).startswith("Farthest off 1, the farthest first")
    assert text(errors_html(errors)).startswith("Misclassified 1, the surest first")
    figures = {"rows": 9, "rmse": 0.5, "r2": 0.9, "baseline": {"rmse": 0.6}}
    said = text(result_html(Shown(TrainUpdate("m", "done"), TrainConfig(data="", name="m"), metrics=figures)))
    assert "RMSE 0.5 better than TF-IDF: 0.6" in said and "R² 0.9" in said


def test_runs_side_by_side(training: Training) -> None:
    past(training, "one").end("stopped", "Stopped at step 20 of 40.")
    past(training, "two", epochs=7, class_weights=True).end("stopped", "Stopped.")
    answer = training.compare({"runs": ["one", "two", "one"]})
    said = text(answer["html"])
    assert "Epochs 3 7" in said and "Class weights off on" in said and "Batch size" not in said
    assert "Macro F1 80.0 % 80.0 %" in said
    assert set(answer["curves"]) == {"one", "two"}
    assert "two runs" in training.compare({"runs": ["one"]})["error"]
    assert "no run" in training.compare({"runs": ["one", "gone"]})["error"]


def test_the_model_in_use_is_made_ready_while_somebody_watches(
    training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    predictors = training.engine.predictors
    monkeypatch.setattr(predictors, "prepare", lambda: asked.append("prepare"))
    monkeypatch.setattr(predictors, "get", lambda name: asked.append(f"get {name}"))
    for seconds, phase in ((600.0, "training"), (30.0, "training"), (1.0, "training"), (None, "done")):
        model = "models/mine" if phase == "done" else None
        update = TrainUpdate("mine", phase, step=5, seconds_left=seconds, model=model)  # type: ignore[arg-type]
        training._make_ready(Shown(update, TrainConfig(data="", name="mine")))
    eventually(lambda: asked == ["prepare", "get mine"])


# values as HTML


def running(**changes: Any) -> Shown:
    values: dict[str, Any] = {
        "phase": "training",
        "step": 30,
        "total_steps": 120,
        "epoch": 1.5,
        "epochs": 6,
        "steps_per_second": 2.25,
        "samples_per_second": 72.0,
        "seconds_left": 40.0,
        "curves": {"loss": (Point(30, 0.5),)},
        "best": Best(20, "f1", 0.91),
    }
    return Shown(TrainUpdate("mine", **(values | changes)), TrainConfig(data="a.csv", name="mine"), WHEN)


def test_three_bars_words_speed_and_time_left() -> None:
    html = bars_html(running())
    values = re.findall(r'data-bar="(\w+)"[^>]*aria-valuenow="(\d+)"', html)
    assert values == [("run", "25"), ("epoch", "50"), ("evaluation", "0")]
    said = text(html)
    assert "30 of 120 steps" in said and "2 of 6" in said
    for part in ("Training, epoch 2", "2.2 steps/s", "72.0 samples/s", "40 s left", "loss 0.5", "Macro F1 91.0 %"):
        assert part in said
    assert "40%" in text(bars_html(running(phase="evaluating", evaluated=0.4)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"phase": "queued", "position": 2}, "Waiting for the device: 2 runs before this one"),
        ({"phase": "preparing", "detail": "reading 9 texts", "prepared": 0.5}, "Preparing: reading 9 texts, 50%"),
        ({"phase": "evaluating"}, "Judging it on the validation rows"),
        ({"phase": "evaluating", "step": 120}, "Judging the best model"),
        ({"phase": "saving"}, "Saving the model"),
    ],
)
def test_what_goes_on_is_said_in_words(changes: dict[str, Any], words: str) -> None:
    assert phase_text(running(**changes)) == words


def test_the_record_of_a_model() -> None:
    per_class = [
        {"label": EVIL, "precision": 0.5, "recall": 1.0, "f1": 0.67, "support": 4},
        {"label": "b", "precision": 1.0, "recall": 0.5, "f1": 0.67, "support": 8},
    ]
    metrics = {
        "split": "test",
        "rows": 12,
        "accuracy": 0.75,
        "f1": 0.7,
        "baseline": {"accuracy": 0.6, "f1": 0.8},
        "per_class": per_class,
        "confusion": [[4, 0], [4, 4]],
        "calibration": {"ece": 0.031, "ece_before": 0.1},
    }
    html = result_html(Shown(TrainUpdate("m", "done"), TrainConfig(data="", name="m"), metrics=metrics))
    said = text(html)
    assert "Accuracy 75.0 % better than TF-IDF: 60.0 %" in said and "Macro F1 70.0 % worse than TF-IDF: 80.0 %" in said
    assert "3.1 % 10.0 % before calibration" in said and "Judged on 12 test rows." in said
    leaked = Shown(TrainUpdate("m", "done"), TrainConfig(data="", name="m"), metrics={**metrics, "trained_on": 2})
    assert "Judged on 12 test rows; it was trained on the texts of 2 of them." in text(result_html(leaked))
    assert html.count('title="b taken for') == 2 and "4, 50%" in html and "<img" not in html


def test_many_classes_show_the_pairs_most_confused() -> None:
    names = [f"c{i}" for i in range(13)]
    per_class = [{"label": name, "precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 1} for name in names]
    confusion = [[9 * (i == j) for j in range(13)] for i in range(13)]
    confusion[2][5] = 7
    metrics = {"rows": 13, "accuracy": 0.9, "per_class": per_class, "confusion": confusion}
    html = result_html(Shown(TrainUpdate("m", "done"), TrainConfig(data="", name="m"), metrics=metrics))
    assert "mf-heat" not in html and "c2 c5 7" in text(html)


def test_a_stop_that_was_asked_for_is_not_asked_twice() -> None:
    run = running()
    asked = Shown(run.update, run.config, stopping=True)
    assert "disabled" in head_html(asked) and "disabled" not in head_html(run)
    assert phase_text(asked).startswith("Stopping")


def test_names_of_runs_are_never_markup() -> None:
    run = Shown(TrainUpdate(EVIL, "failed"), TrainConfig(data=EVIL, name=EVIL, base=EVIL), WHEN)
    for html in (runs_html([run], WHEN), head_html(run), compare_html([run, run])):
        assert "<img" not in html


def test_settings_that_do_not_differ_are_left_out() -> None:
    one = TrainConfig(data="a.csv", name="one", learning_rate=1e-4)
    assert differing([one, one.merge({"name": "two"})]) == []
    assert differing([one, one.merge({"learning_rate": None})]) == [("Learning rate", ["0.0001", "auto"], -1)]


def test_a_histogram_of_one_length() -> None:
    table = Table(("text", "label"), tuple((f"word {i}", "ab"[i % 2]) for i in range(4)), (1, 2, 3, 4))
    found = finetune.examined(table, Choices(), "x", Base())
    assert lengths_html(found.tokens, found.report).count("<i ") == 9


# the widget


def test_no_function_hides_an_attribute_of_the_widget(training: Training) -> None:
    plain = gr.HTML("")
    source = inspect.getsource(FinetuneTab.build)
    names = set(re.findall(r"ask\.(\w+)", source))
    assert len(names) == 9 and not [name for name in names if hasattr(plain, name)]
