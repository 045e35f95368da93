"""A model in 8 bits: written beside the weights, compared with them, used on request, and never to their harm."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.kills import Forks, ordered
from multimodel.compute import Cores
from multimodel.errors import BrokenFile, MissingDependency, ModelNotFound
from multimodel.finetune import onnx
from multimodel.finetune.control import STOP
from multimodel.finetune.predict import Predictor, Predictors
from multimodel.finetune.store import Store
from multimodel.finetune.types import TrainConfig

from ..support import needs
from .conftest import Finished
from .support import sentences, settings_in, story, tiny_encoder

installed = needs("onnx", "onnxscript", "onnxruntime")


@pytest.fixture(scope="module")
def shared(finished: Finished) -> Iterator[Path]:
    """The trained model, exported."""
    folder = Store(finished.settings).path("moods")
    before, manifest = files(folder), (folder / "manifest.json").read_bytes()
    target = onnx.export(folder, finished.settings)
    assert target == folder / "onnx" and before.items() <= files(folder).items()
    yield folder
    shutil.rmtree(folder / "onnx")
    (folder / "manifest.json").write_bytes(manifest)


def files(folder: Path) -> dict[str, bytes]:
    """What every file of a model holds, but for its manifest."""
    return {
        path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != "manifest.json"
    }


@pytest.mark.slow
@installed
class TestExported:
    def test_it_is_sealed_like_the_rest(self, shared: Path, finished: Finished) -> None:
        store = Store(finished.settings)
        assert onnx.exported(shared) == shared / "onnx" / "model_int8.onnx"
        names = json.loads((shared / "manifest.json").read_text())["files"]
        assert {"onnx/model_int8.onnx", "onnx/agreement.json", "model.safetensors"} <= set(names)
        assert store.damaged("moods") == [] and store.get("moods").size > 0
        assert not list(store.folder.glob(".onnx-*"))

    def test_how_it_compares_is_measured(self, shared: Path) -> None:
        found = onnx.agreement(shared)
        assert (found["rows"], found["source"]) == (30, "test rows")
        assert found["same_answer"] >= 0.9 and 0 < found["largest_difference"] < 0.3
        assert found["int8"]["accuracy"] >= found["float32"]["accuracy"] - 0.1
        assert found["bytes"]["int8"] > 0

    def test_it_answers_nearly_as_the_weights_do(self, shared: Path, finished: Finished) -> None:
        texts = [text for text, _ in sentences(80, seed=11)] + ["", "great " * 300]
        with (
            Predictor("moods", settings=finished.settings) as full,
            Predictor("moods", precision="int8", settings=finished.settings) as short,
        ):
            pairs = list(zip(full(texts), short(texts), strict=True))
            assert sum(a.label == b.label for a, b in pairs) >= 0.95 * len(pairs)
            assert any(a.score != b.score for a, b in pairs), "the 8-bit model was not asked"
            assert short([]) == [] and short.explain("superb film")[0].word == "superb"
            (alone,) = short(["the film was great and lovely"])
            assert alone.label == "pos"

    def test_both_are_kept_warm_in_the_app(self, shared: Path, finished: Finished) -> None:
        models = Predictors(finished.settings, Cores(2))
        try:
            full, short = models.get("moods"), models.get("moods", "int8")
            assert full is not short and models.get("moods") is full
            a, b = full(["an awful dull day"]), short(["an awful dull day"])
            assert a[0].label == b[0].label == "neg" and a[0].score != b[0].score
        finally:
            models.close()

    def test_a_second_export_replaces_the_first(self, shared: Path, finished: Finished) -> None:
        stamp = (shared / "manifest.json").stat().st_mtime_ns
        onnx.export(shared, finished.settings)
        assert onnx.exported(shared) and Store(finished.settings).damaged("moods") == []
        assert (shared / "manifest.json").stat().st_mtime_ns == stamp, "the model would look newly trained"

    def test_half_of_one_does_not_count(self, shared: Path, finished: Finished, tmp_path: Path) -> None:
        copy = tmp_path / "copy"
        shutil.copytree(shared, copy)
        path = copy / "onnx" / "model_int8.onnx"
        path.write_bytes(path.read_bytes()[:-100])
        assert onnx.exported(copy) is None
        with pytest.raises(ModelNotFound) as caught:
            Predictor(copy, precision="int8", settings=finished.settings)
        assert "Export" in caught.value.hint

    def test_what_goes_wrong_leaves_the_model_as_it_was(self, shared: Path, finished: Finished, tmp_path: Path) -> None:
        store = Store(finished.settings)
        copy = store.folder / "cut"
        shutil.copytree(shared, copy)
        weights = copy / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-50])
        before = sorted(path.name for path in copy.rglob("*"))
        with pytest.raises(BrokenFile):
            onnx.export(copy, finished.settings)
        assert sorted(path.name for path in copy.rglob("*")) == before and onnx.exported(copy)
        assert not list(store.folder.glob(".onnx-*"))
        store.delete("cut")


def test_only_fine_tuned_models_are_exported(place: Path, finished: Finished) -> None:
    with pytest.raises((ModelNotFound, MissingDependency)) as caught:
        onnx.export(place / "encoder", finished.settings)
    assert caught.value.hint


def test_without_the_packages_it_says_how_to_get_them() -> None:
    with pytest.raises(MissingDependency) as caught:
        onnx.need("no_such_package")
    assert "pip install" in caught.value.hint


def test_the_answer_reads_the_last_layer_where_the_head_does(place: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, BertConfig, BertForSequenceClassification

    from multimodel.finetune.forward import Answers, DistilBertAnswers, answers

    model = AutoModelForSequenceClassification.from_pretrained(tiny_encoder(tmp_path, layers=3), num_labels=4).eval()
    ids = torch.randint(5, 40, (5, 17))
    mask = (torch.arange(17) < torch.tensor([17, 9, 2, 1, 16])[:, None]).long()
    quick = answers(model)
    assert type(quick) is DistilBertAnswers
    with torch.inference_mode():
        whole = model(input_ids=ids, attention_mask=mask).logits
        assert torch.allclose(quick(ids, mask), whole, atol=1e-6)
        assert not torch.allclose(quick(ids, torch.ones_like(mask)), whole, atol=1e-6)
    other = BertForSequenceClassification(
        BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=50)
    ).eval()
    assert type(answers(other)) is Answers
    with torch.inference_mode():
        assert torch.equal(answers(other)(ids, mask), other(input_ids=ids, attention_mask=mask).logits)


@pytest.mark.slow
def test_who_trains_again_is_told_that_the_export_is_gone(place: Path, pool: Forks) -> None:
    asked = TrainConfig(data=str(place / "data.csv"), base=str(place / "encoder"), name="again", precision="float32")
    run, store = ordered(asked, settings_in(place)), Store(settings_in(place))
    (run / STOP).touch()
    pool.start(run)
    assert pool.wait() == 0 and not any("8-bit" in line for line in story(run).log)
    built = place / "built"
    built.mkdir()
    (built / "model_int8.onnx").write_bytes(b"eight bits")
    store.add(store.path("again"), built, onnx.FOLDER)
    pool.start(run)
    assert pool.wait() == 0
    assert "The 8-bit export was of the model before; export it again." in story(run).log
    assert store.damaged("again") == [] and not (store.path("again") / onnx.FOLDER).exists()
