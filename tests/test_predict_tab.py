"""The Predict and Models views without a browser: what the page asks and gets, with models trained for the purpose."""

from __future__ import annotations

import asyncio
import csv
import random
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from pydantic import SecretStr

from multimodel.engine import Engine
from multimodel.finetune import data
from multimodel.finetune.api import finetune
from multimodel.finetune.batches import Batch, Batches, tally
from multimodel.finetune.corrections import Correction, Corrections
from multimodel.finetune.labels import LabelMap
from multimodel.finetune.store import MANIFEST, MISCLASSIFIED, Store
from multimodel.finetune.types import Prediction, TrainConfig
from multimodel.settings import ApiSettings, ModelSettings, Settings
from tabs.models import Models
from tabs.models_page import _figure, onnx_html
from tabs.predict import FILL, Predicting, PredictPanel
from tabs.predict_page import progress_html

from .finetune.support import sentences, settings_in, tiny_encoder, write_csv
from .hub import FakeHub
from .support import eventually, needs

pytestmark = needs("torch", "transformers")

EVIL = "<img src=x onerror=alert(1)>"
SEVERAL = LabelMap("multi_label", ("a", "b"), thresholds=(0.9, 0.2))
ONE = LabelMap("single_label", ("a", "b"))


def words(html: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())


@pytest.fixture
def no_leaks() -> None:
    """The processes that predict live as long as this module."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two classifiers: "moods", and "other", which knows the same classes."""
    folder = tmp_path_factory.mktemp("predict")
    tiny_encoder(folder / "encoder")
    rows = write_csv(folder / "data.csv", sentences(300))
    for name, epochs in (("moods", 8), ("other", 1)):
        config = TrainConfig(
            data=rows,
            base=str(folder / "encoder"),
            name=name,
            epochs=epochs,
            learning_rate=1e-2,
            precision="float32",
            early_stopping=0,
        )
        *_, last = finetune(config, settings=settings_in(folder))
        assert last.phase == "done"
    return folder


@pytest.fixture(scope="module")
def engine(place: Path) -> Iterator[Engine]:
    assets = place / "assets"
    tiny_encoder(assets / "encoder", masked=True)
    given = settings_in(place).models.model_copy(update={"assets_dir": assets})
    with Engine(settings_in(place).model_copy(update={"models": given})) as engine:
        yield engine


@pytest.fixture(scope="module")
def predicting(engine: Engine) -> Predicting:
    return Predicting(engine)


@pytest.fixture
def models(engine: Engine, predicting: Predicting) -> Models:
    return Models(engine, predicting.corrections)


@pytest.fixture
def uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where what is uploaded lies."""
    folder = tmp_path / "uploads"
    folder.mkdir()
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(folder))
    return folder


def done(ask: Callable[..., dict[str, Any]], answer: dict[str, Any], **asked: Any) -> dict[str, Any]:
    """The answer once it has come."""
    found = [answer]

    def ended() -> bool:
        if found[-1].get("running"):
            found.append(ask({**asked, "id": answer.get("id"), "task": answer.get("task")}))
        return not found[-1].get("running")

    eventually(ended, 60)
    return found[-1]


# which models


def test_the_models_to_choose_from(predicting: Predicting) -> None:
    found = predicting.listed({})
    assert found["tasks"] == {"moods": "single_label", "other": "single_label"}
    assert f'value="{FILL}encoder"' in found["options"]
    assert re.findall(r'value="([^"]*)"', found["other"]) == ["", "other", "moods"]


@pytest.mark.parametrize("name", ["", "nobody", "../moods", "someone/model", "/etc", EVIL, 3, None])
def test_no_other_model_is_loaded(predicting: Predicting, name: object) -> None:
    for answer in (predicting.one({"model": name, "text": "x"}), predicting.warm({"model": f"{FILL}{name}"})):
        assert "not here any more" in words(answer["error"]) and "<img" not in answer["error"]


def test_no_function_has_the_name_of_an_attribute(engine: Engine) -> None:
    async def build() -> gr.Blocks:  # outside a running event loop Gradio would make one, and close none
        with gr.Blocks(analytics_enabled=False) as page:
            PredictPanel(engine).build()
            gr.HTML("", elem_id="plain")
        return page

    page = asyncio.run(build())
    shown = [block for block in page.blocks.values() if isinstance(block, gr.HTML)]
    plain = shown.pop()
    assert [block.elem_id for block in shown] == ["mm-finetune-predict", "mm-finetune-models"]
    for block in shown:
        names = [function.__name__ for function in block.server_fns]
        assert len(names) > 8 and not [name for name in names if hasattr(plain, name)]


# one text


def test_one_text_gets_its_label_its_shares_and_the_time(predicting: Predicting) -> None:
    found = predicting.one({"model": "moods", "text": "a great and lovely film"})
    said = words(found["html"])
    assert re.match(r"moods pos \d+(\.\d+)? % pos", said) and "neg" in said
    assert found["speed"].startswith("Answered in ")
    assert predicting.one({"model": "moods", "text": "  "}) == {"html": ""}


def test_below_the_threshold_nothing_is_sure(predicting: Predicting) -> None:
    text = "the film was a great awful day"
    share = float(re.search(r"(\d+(\.\d+)?) %", words(predicting.one({"model": "moods", "text": text})["html"]))[1])  # type: ignore[index]
    above = predicting.one({"model": "moods", "text": text, "threshold": min(0.999999, share / 100 + 0.01)})
    below = predicting.one({"model": "moods", "text": text, "threshold": share / 100 - 0.01})
    assert ("Not sure" in above["html"], "Not sure" in below["html"]) == (True, False)


def test_two_models_side_by_side(predicting: Predicting) -> None:
    found = predicting.one({"model": "moods", "other": "other", "text": "great"})
    assert re.findall(r'data-model="(\w+)"', found["html"]) == ["moods", "other"]
    assert "Both say the same" in found["html"] or "They differ" in found["html"]


def test_the_words_that_decided(predicting: Predicting) -> None:
    asked = {"model": "moods", "text": f"great lovely film in a dull awful town {EVIL}"}
    found = predicting.explain({**asked, "label": "pos"})
    assert found["label"] == "pos" and "<img" not in found["html"]
    assert re.search(r'mp-for"[^>]*>(great|lovely)<', found["html"])
    assert re.search(r'mp-against"[^>]*>(dull|awful)<', found["html"])
    other = predicting.explain({**asked, "label": "neg"})
    assert re.search(r'mp-against"[^>]*>(great|lovely)<', other["html"])
    assert "no label" in words(predicting.explain({**asked, "label": "meh"})["error"])


def test_a_text_is_never_markup(predicting: Predicting) -> None:
    for answer in (
        predicting.one({"model": "moods", "text": EVIL}),
        predicting.many({"model": "moods", "text": EVIL}),
        predicting.fill({"model": f"{FILL}encoder", "text": f"{EVIL} [MASK]"}),
    ):
        assert "<img" not in answer["html"]


def test_a_text_that_is_no_text_or_endless(predicting: Predicting) -> None:
    for text in (3, None, ["x"], "x" * 200_000):
        assert "characters" in predicting.one({"model": "moods", "text": text})["error"]


def test_words_for_a_gap(predicting: Predicting) -> None:
    found = predicting.fill({"model": f"{FILL}encoder", "text": "the [MASK] was great"})
    assert found["html"].count("data-take") == 8
    assert "gaps" not in found["html"]
    found = predicting.fill({"model": f"{FILL}encoder", "text": "the [MASK] was [MASK]"})
    assert words(found["html"]).startswith("The likeliest words for the first of 2 gaps Choose one")
    assert all(taken.endswith("was [MASK]") for taken in re.findall(r'data-take="([^"]*)"', found["html"]))
    assert "Write [MASK]" in predicting.fill({"model": f"{FILL}encoder", "text": "no gap"})["error"]


# many texts


def many(predicting: Predicting, text: str, **asked: Any) -> dict[str, Any]:
    return done(predicting.batch, predicting.many({"model": "moods", "text": text, **asked}), **asked)


def test_many_texts_a_line_each(predicting: Predicting) -> None:
    found = many(predicting, "great lovely\n\n  awful dull \nsuperb")
    given = predicting.batch({"id": found["id"], "order": "given"})
    assert re.findall(r'mp-cell">([^<]*)', given["html"]) == ["great lovely", "awful dull", "superb"]
    assert "pos 2 67 %" in words(found["html"]) and "neg 1 33 %" in words(found["html"])


def test_rows_by_doubt_and_the_threshold_afterwards(predicting: Predicting) -> None:
    texts = [text for text, _ in sentences(60, seed=3)]
    found = done(predicting.batch, predicting.many({"model": "other", "text": "\n".join(texts)}))
    ranked = found["html"]  # where nobody chose
    assert 'value="doubt" selected' in ranked
    shares = [float(share) for share in re.findall(r"<em>([\d.]+) %", ranked)]
    assert shares == sorted(shares) and len(shares) == 60
    strict = words(predicting.batch({"id": found["id"], "threshold": 0.999})["html"])
    assert int(re.search(r"not sure (\d+)", strict)[1]) > 0  # type: ignore[index]


def test_two_models_on_many_texts(predicting: Predicting) -> None:
    texts = [text for text, _ in sentences(80, seed=4)]
    found = many(predicting, "\n".join(texts), other="other")
    differ = predicting.batch({"id": found["id"], "order": "differ"})["html"]
    assert differ.count("<tr data-row") == found["html"].count('class="mp-differs"')
    assert f"They differ on {differ.count('<tr data-row')} of 80" in differ


def test_many_texts_become_a_file_as_they_are_shown(predicting: Predicting, uploads: Path) -> None:
    texts = ["=great lovely", "the film was a great awful day", "awful dull"]
    id = many(predicting, "\n".join(texts))["id"]
    found = predicting.table({"id": id})
    (path,) = uploads.glob("multimodel/*/texts-moods.csv")
    assert found == {"file": "texts-moods.csv", "url": f"gradio_api/file={path}"}
    rows = read(path)
    assert list(rows[0]) == ["row", "text", "predicted", "score", "p(neg)", "p(pos)"]
    assert [float(row["score"]) for row in rows] == sorted(float(row["score"]) for row in rows)
    path.unlink()
    predicting.table({"id": id, "order": "given", "threshold": 0.5})
    rows = read(next(uploads.glob("multimodel/*/texts-moods.csv")))
    assert [row["row"] for row in rows] == ["1", "2", "3"] and {row["sure"] for row in rows} == {"yes"}
    assert rows[0]["text"] == "'=great lovely" and rows[0]["predicted"] == "pos"
    assert "not kept" in words(predicting.table({"id": "nothing"})["error"])


def test_what_two_models_say_stands_beside_each_other_in_the_file(predicting: Predicting, uploads: Path) -> None:
    id = many(predicting, "great\nawful", other="other")["id"]
    predicting.table({"id": id, "order": "given"})
    (row, _) = read(next(uploads.glob("multimodel/*/texts-moods.csv")))
    assert row["moods: predicted"] == "pos" and "other: score" in row and "other: p(pos)" in row


def test_too_many_or_none(predicting: Predicting) -> None:
    assert "no text" in words(predicting.many({"model": "moods", "text": " \n "})["error"])
    assert "A file" in words(predicting.many({"model": "moods", "text": "x\n" * 6000})["error"])
    assert "not kept" in words(predicting.batch({"id": "nothing"})["error"])


def test_a_batch_shows_how_far_it_is_and_can_be_stopped(engine: Engine) -> None:
    batches = Batches(engine.predictors.get)
    texts = [f"{text} {i}" for i, (text, _) in enumerate(sentences(30_000, seed=5))]
    id = batches.texts(["moods"], texts)
    eventually(lambda: batches.get(id).fraction > 0, 60)
    eventually(lambda: batches.get(id).seconds_left, 60)
    stopped = batches.stop(id)
    assert stopped.state == "stopped" and not stopped.rows and stopped.fraction < 1


def test_no_end_is_foretold_from_the_time_that_loading_took() -> None:
    loading = Batch("a", ("moods",), total=5000, seconds=40.0)
    first = replace(loading, fraction=0.01, first=(40.0, 0.01))
    assert loading.seconds_left is None and first.seconds_left is None
    later = replace(first, seconds=42.0, fraction=0.21)
    assert later.seconds_left == pytest.approx(7.9)
    assert "left" not in words(progress_html(first)) and "7.9 s left" in words(progress_html(later))
    assert replace(later, fraction=1.0).seconds_left is None


# files


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_a_whole_file(predicting: Predicting, uploads: Path) -> None:
    source = uploads / "in.csv"
    source.write_text("id,review,note\n1,=great lovely,x\n2,awful dull,y\n3,superb,z\n", encoding="utf-8")
    opened = predicting.opened({"path": str(source)})["html"]
    assert "3 rows" in opened and re.search(r'value="review" selected', opened)
    asked = {"model": "moods", "path": str(source), "threshold": 0.5}
    found = done(predicting.batch, predicting.whole(asked))
    (written,) = uploads.glob("multimodel/*/in-moods.csv")
    assert [row["predicted"] for row in read(written)] == ["pos", "neg", "pos"]
    assert read(written)[0]["review"] == "'=great lovely" and {row["sure"] for row in read(written)} == {"yes"}
    assert f"gradio_api/file={written}" in found["html"]
    other = done(predicting.batch, predicting.whole({**asked, "column": "note"}))
    assert "x" in re.findall(r'mp-cell">([^<]*)', other["html"])
    assert "no column" in words(predicting.whole({**asked, "column": "nothing"})["error"])


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "", None, "\0", "."])
def test_only_what_was_uploaded_is_read(predicting: Predicting, uploads: Path, path: object) -> None:
    assert "Choose it again" in predicting.opened({"path": path})["error"]
    (uploads / "link.csv").symlink_to("/etc/passwd")
    assert "Choose it again" in predicting.opened({"path": str(uploads / "link.csv")})["error"]


def test_a_file_that_is_none(predicting: Predicting, uploads: Path) -> None:
    (uploads / "x.exe").write_bytes(b"MZ\x90\0\x03\0\0\0" + random.Random(1).randbytes(3000))
    asked = {"model": "moods", "path": str(uploads / "x.exe")}
    for answer in (predicting.opened(asked), done(predicting.batch, predicting.whole(asked))):
        assert words(answer["error"]).startswith("x.exe holds no text.")
    (uploads / "x.parquet").write_bytes(b"nothing")
    assert "damaged" in words(predicting.opened({"path": str(uploads / "x.parquet")})["error"])


# corrections


def test_corrections_collect_and_become_training_data(predicting: Predicting, uploads: Path) -> None:
    corrections = predicting.corrections
    corrections.remove("moods")
    known = sentences(300)[0][0]
    assert predicting.correct({"model": "moods", "text": "=so so", "right": "neg"})["count"] == 1
    assert predicting.correct({"model": "moods", "text": known, "right": "neg"})["count"] == 2
    assert predicting.correct({"model": "moods", "text": known, "right": "pos"})["count"] == 2  # the newest counts
    batch = many(predicting, "great\nawful")
    kept = predicting.correct({"model": "moods", "id": batch["id"], "row": 2, "right": "pos"})
    assert kept["count"] == 3 and kept["text"] == "Kept: pos."
    assert "meh" not in words(predicting.choices({"id": batch["id"], "row": 2})["html"])
    assert "no such label" in words(predicting.correct({"model": "moods", "text": "x", "right": "meh"})["error"])
    assert words(predicting.corrected({"model": "moods"})["html"]).startswith("3 corrected for moods")
    alone = predicting.export({"model": "moods"})
    assert [row["text"] for row in read(Path(alone["path"]))] == ["=so so", known, "awful"]
    assert alone["url"].endswith("moods-corrections.csv")
    dropped = predicting.corrected({"model": "moods", "drop": "awful"})
    assert dropped["count"] == 2
    assert predicting.corrected({"model": "moods", "clear": True})["count"] == 0
    assert "Nothing corrected" in predicting.corrected({"model": "moods"})["html"]
    assert "Correct an answer" in predicting.export({"model": "moods"})["error"]


def test_corrections_with_the_rows_of_the_run(engine: Engine, tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    corrections = Corrections(settings)
    assert not corrections.has_rows("mine")
    run = settings.models.fine_tuned_dir / ".runs" / "mine"
    run.mkdir(parents=True)
    rows = data.Dataset(("a", "b", "c"), ("x", "y", "x"), ("train", "test", "validation"), (1, 2, 3))
    data.save(rows, run / "data.jsonl")
    corrections.add("mine", Correction("b", "x", "y", 0.5))
    corrections.add("mine", Correction("new", "y", "x", 0.5))
    found = read(corrections.csv("mine", tmp_path / "out.csv", whole=True))
    assert [(row["text"], row["label"], row["split"]) for row in found] == [
        ("a", "x", "train"),
        ("c", "x", "validation"),
        ("b", "x", "train"),
        ("new", "y", "train"),
    ]
    path = settings.models.fine_tuned_dir / ".corrections" / "mine.jsonl"
    path.write_text("{broken\n" + path.read_text())
    assert len(corrections.of("mine")) == 2
    corrections.rename("mine", "yours")
    assert (len(corrections.of("mine")), len(corrections.of("yours"))) == (0, 2)


def test_several_labels_and_numbers() -> None:
    both = SEVERAL.predictions([[5.0, 0.0]])[0]
    assert SEVERAL.at(both, 0.6).labels == ("a",) and SEVERAL.at(both, None).labels == ("a", "b")
    assert SEVERAL.at(both, 0.999).labels == ()
    assert SEVERAL.doubt(both, 0.5) == pytest.approx(1.0) and SEVERAL.doubt(both) < 1.0
    assert tally(SEVERAL, [both, both], None) == ({"a": 2, "b": 2}, 0)
    sure, unsure = (
        Prediction("a", 0.9, {"a": 0.9, "b": 0.1}, ("a",)),
        Prediction("b", 0.6, {"a": 0.4, "b": 0.6}, ("b",)),
    )
    assert tally(ONE, [sure, unsure], 0.8) == ({"a": 1}, 1)
    number = LabelMap("regression", ("value",), 100.0, 10.0)
    assert number.doubt(number.predictions([[1.0]])[0]) == 0.0 and tally(number, [], None) == ({}, 0)


# the saved models


def test_the_list_and_a_model_s_page(models: Models) -> None:
    listed = models.saved({})
    assert listed["count"] == 2 and "Accuracy" in words(listed["html"])
    page = models.detail({"name": "moods"})
    said = words(page["html"])
    for part in (
        "Predict with it",
        "Macro F1",
        "Class by class",
        "What is taken for what",
        "Expected calibration error",
    ):
        assert part in said
    assert 'class="mp-hit' in page["html"] and "from multimodel import Predictor" in said
    assert "Fine-tuned with MultiModel" in models.about({"name": "moods"})["html"]
    command = words(models.launch({"name": "moods", "processes": 3})["html"])
    assert "torchrun --standalone --nproc_per_node 3 -m multimodel.finetune.child" in command
    assert "accelerate launch --multi_gpu" in models.launch({"name": "moods", "way": "gpus"})["html"]
    split = words(models.launch({"name": "moods", "processes": 4, "way": "split"})["html"])
    assert "accelerate launch --use_fsdp --fsdp_version 2" in split and "--num_processes 4" in split
    assert "Each process holds a part of the weights" in split


@pytest.mark.parametrize("name", ["", "nobody", "../moods", EVIL, None])
def test_there_is_no_such_model(models: Models, name: object) -> None:
    for ask in (models.detail, models.about, models.discard, models.pack, models.push, models.launch, models.rename):
        assert "mm-error" in ask({"name": name})["error"] and "<img" not in ask({"name": name})["error"]


def copied(engine: Engine, name: str) -> Path:
    """A model of its own, to be changed."""
    store = Store(engine.settings)
    shutil.copytree(store.path("other"), store.path(name))
    return store.path(name)


def test_rename_takes_everything_along(engine: Engine, predicting: Predicting, models: Models) -> None:
    copied(engine, "first")
    predicting.correct({"model": "first", "text": "x", "right": "neg"})
    assert "already" in words(models.rename({"name": "first", "to": "moods"})["error"])
    assert "cannot be the name" in words(models.rename({"name": "first", "to": "../x"})["error"])
    assert models.rename({"name": "first", "to": "second"}) == {"name": "second"}
    assert predicting.one({"model": "second", "text": "great"})["html"]
    assert predicting.corrected({"model": "second"})["count"] == 1
    models.discard({"name": "second"})
    predicting.corrections.remove("second")


def test_delete_says_what_it_frees(engine: Engine, predicting: Predicting, models: Models) -> None:
    folder = copied(engine, "doomed")
    assert predicting.one({"model": "doomed", "text": "great"})["html"]
    frees = re.search(r'data-frees="([^"]+)"', models.detail({"name": "doomed"})["html"])
    assert frees and frees[1] in words(models.discard({"name": "doomed"})["html"])
    assert not folder.exists() and "doomed" not in predicting.listed({})["tasks"]
    assert "not here any more" in words(predicting.one({"model": "doomed", "text": "great"})["error"])


def test_a_zip_can_be_fetched(models: Models, uploads: Path) -> None:
    found = done(models.task, models.pack({"name": "moods"}))
    (path,) = uploads.glob("multimodel/*/moods.zip")
    assert found["url"] == f"gradio_api/file={path}" and found["file"] == "moods.zip"
    assert "not known" in words(models.task({"task": "x"})["error"])


def test_an_8_bit_model_says_how_far_it_agrees() -> None:
    found = {
        "rows": 62,
        "source": "test rows",
        "bytes": {"float32": 15_500_000, "int8": 4_000_000},
        "same_answer": 0.9839,
        "float32": {"accuracy": 0.9, "f1": 0.88},
        "int8": {"accuracy": 0.8968, "f1": 0.87},
    }
    said = words(onnx_html(f"/models/{EVIL}", found))
    assert "4.0 MB instead of 15.5 MB. It gives the same answer on 98.4 % of 62 test rows." in said
    assert "Accuracy 89.7 % instead of 90.0 %." in said and "<img" not in onnx_html(EVIL, {})


def test_a_figure_as_good_as_the_baseline_is_not_called_better() -> None:
    level = _figure("accuracy", 0.9731, 0.9729)
    assert "level with 97.3 %" in level and "mp-good" not in level
    assert 'mp-good">better than' in _figure("accuracy", 0.98, 0.97)
    assert 'mp-good">better than' in _figure("rmse", 0.3, 0.4)
    assert 'mp-bad">worse than' in _figure("mae", 0.4, 0.3)


# to the Hub


@pytest.fixture
def hub(writable_hub: FakeHub) -> FakeHub:
    return writable_hub


@pytest.fixture
def shelf(place: Path, hub: FakeHub, predicting: Predicting) -> Iterator[Models]:
    """The saved models of an app whose Hub is on loopback, with no token set."""
    given: dict[str, Any] = {"fine_tuned_dir": place / "models", "hub_url": hub.url, "offline": False}
    with Engine(Settings(models=ModelSettings(**given), api=ApiSettings(hf_token=None))) as engine:
        yield Models(engine, predicting.corrections)


def pushed(models: Models, **asked: Any) -> dict[str, Any]:
    return done(models.task, models.push({"name": "moods", **asked}))


library = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # huggingface_hub's own call of httpx2


@library
def test_push_makes_a_private_repository_without_texts_and_paths(hub: FakeHub, shelf: Models) -> None:
    assert "Access token" in shelf.pushing({"name": "moods"})["html"]
    found = pushed(shelf, repo="moods", secret="hf_good")
    assert f"{hub.url}/ada/moods" in found["html"]
    repo = hub.repos["ada/moods"]
    assert repo.facts["private"] is True
    assert {"model.safetensors", "config.json", "tokenizer.json", "label_map.json", "README.md"} <= set(repo.files)
    assert not {MANIFEST, MISCLASSIFIED, "training_metadata.json"} & set(repo.files)
    folder = Store(shelf.settings).path("moods")
    assert repo.files["model.safetensors"] == (folder / "model.safetensors").read_bytes()
    assert "Bearer hf_good" in hub.tokens


@library
def test_a_push_shows_how_far_it_is_and_can_be_stopped(hub: FakeHub, shelf: Models) -> None:
    hub.hold_uploads = threading.Event()
    asked = [shelf.push({"name": "moods", "repo": "moods", "secret": "hf_good"})]

    def under_way() -> bool:
        asked.append(shelf.task(asked[0]))
        return " of " in asked[-1].get("html", "")

    eventually(under_way, 30)
    assert asked[-1]["running"] and 'data-do="stop"' in asked[-1]["html"]
    assert shelf.task({**asked[0], "stop": True})["running"]  # the file on its way is held
    hub.hold_uploads.set()
    last = done(shelf.task, asked[0])
    assert "Stopped" in last["html"] and not hub.repos["ada/moods"].files
    assert "It is on the Hub" in pushed(shelf, repo="moods", secret="hf_good", update=True)["html"]


@library
def test_what_the_hub_refuses_is_told_apart(hub: FakeHub, shelf: Models) -> None:
    assert "needs an access token" in words(pushed(shelf, repo="moods")["error"])
    assert "does not accept the access token" in words(pushed(shelf, repo="moods", secret="hf_bad")["error"])
    assert "may not write to someone/moods" in words(pushed(shelf, repo="someone/moods", secret="hf_good")["error"])
    assert "cannot be the name" in words(pushed(shelf, repo="a/b/c", secret="hf_good")["error"])
    pushed(shelf, repo="taken", secret="hf_good", private=False)
    assert hub.repos["ada/taken"].facts["private"] is False
    assert "already a repository" in words(pushed(shelf, repo="taken", secret="hf_good")["error"])
    assert "It is on the Hub" in pushed(shelf, repo="taken", secret="hf_good", update=True)["html"]
    hub.write_fault = 503
    assert "could not take the files" in words(pushed(shelf, repo="later", secret="hf_good")["error"])


@library
def test_a_token_that_is_set_is_used_and_never_shown(hub: FakeHub, place: Path, predicting: Predicting) -> None:
    given: dict[str, Any] = {"fine_tuned_dir": place / "models", "hub_url": hub.url, "offline": False}
    api = ApiSettings(hf_token=SecretStr("hf_good"))
    with Engine(Settings(models=ModelSettings(**given), api=api)) as engine:
        models = Models(engine, predicting.corrections)
        form = models.pushing({"name": "moods"})["html"]
        assert "Access token" not in form and "hf_good" not in form
        assert "It is on the Hub" in pushed(models, repo="ada/set")["html"]


def test_nobody_is_asked_where_the_hub_is_switched_off(models: Models) -> None:
    assert "switched off" in words(pushed(models, repo="x", secret="hf_good")["error"])
