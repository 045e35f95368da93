"""A batch asked again: the same where nothing changed, told where something did; files of anybody are refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from multimodel.batch import replay
from multimodel.batch.export import to_json, to_markdown, write
from multimodel.batch.page import to_html
from multimodel.batch.plan import Batch, Item, Setting
from multimodel.batch.replay import Before, Original, common, parsed, pinned, replayed, verdict
from multimodel.batch.report import Report, report
from multimodel.batch.run import Answered, run
from multimodel.engine import Engine
from multimodel.errors import BadRequest, BatchError, ForeignFile
from multimodel.provenance import Provenance
from multimodel.settings import Settings
from multimodel.types import ModelId, SamplingParams, Sent, Snapshot, Timing, Usage

from .support import GUIDE_GGUF, needs, tiny_gguf, tiny_llama
from .test_batch import command

ECHO = ModelId("echo", "any")
GREEDY = SamplingParams(temperature=0.0, max_tokens=40)


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine(Settings()) as made:
        yield made


def asked(batch: Batch, folder: Path, engine: Engine) -> Path:
    """The report of a batch."""
    list(run(batch, folder, engine))
    return write(folder)[0]


def again(source: Path, folder: Path, engine: Engine) -> Report:
    """The report of its replay."""
    before = replay.original(source, engine.settings)
    replay.keep(before, folder, source.read_text())
    list(run(pinned(before), folder, engine, prefix=Before(before).prefix))
    return report(folder)


@needs("llama_cpp")
@pytest.mark.skipif(not GUIDE_GGUF.exists(), reason="needs assets/guide")
def test_a_greedy_model_says_the_same(engine: Engine, tmp_path: Path) -> None:
    model = ModelId("gguf", "guide")
    warm = Setting("warm", SamplingParams(temperature=0.9, seed=7, max_tokens=30), "Be brief.")
    batch = Batch(prompts=("What is a token?", "Hello"), models=(model,), settings=(Setting("g", GREEDY), warm))
    found = again(asked(batch, tmp_path / "one", engine), tmp_path / "two", engine)
    assert [v.kind for v in found.verdicts] == ["identical"] * 4
    assert found.before and len(found.answered[0].source.file_hash) == 64
    assert found.before.answered[0].source == found.answered[0].source
    assert "identical" in to_markdown(found) and "<section><h2>Replay</h2>" in to_html(found)
    assert found.batch.settings == batch.settings


@needs("llama_cpp", "torch", "transformers", "gguf")
def test_another_file_under_the_same_name_is_told(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    tiny_gguf(tiny_llama(tmp_path / "a"), path)
    batch = Batch(prompts=("ab",), models=(ModelId("gguf", str(path)),), settings=(Setting("g", GREEDY),))
    source = asked(batch, tmp_path / "one", engine)
    tiny_gguf(tiny_llama(tmp_path / "b", seed=3), path)
    found = again(source, tmp_path / "two", engine)
    (told,) = found.verdicts
    assert told.kind == "changed" and told.why.startswith("the file hash was")
    assert told.token is not None and told.token >= 1 and "diverged at token" in told.words
    assert told.before != told.after and told.before[0] == told.after[0]
    assert json.loads(to_json(found))["replay"][0]["words"] == told.words


def test_the_place_is_counted_by_the_model(engine: Engine, tmp_path: Path) -> None:
    batch = Batch(prompts=("one two three four",), models=(ECHO,), settings=(Setting("g", GREEDY),))
    before = Original(batch, (answered("one two", params=GREEDY),))
    (tmp_path / "two").mkdir()
    list(run(batch, tmp_path / "two", engine, prefix=Before(before).prefix))
    one = report(tmp_path / "two").answered[0]
    told = verdict(before.answered[0], one)
    assert (told.kind, told.token, told.about) == ("diverged", 3, False)
    assert told.before == ("one two", "") and told.after == ("one two", " three four")


def answered(text: str = "the same text", **fields: Any) -> Answered:
    """An answer that was written down."""
    known = {"finish_reason": "stop", "params": GREEDY, "usage": Usage(3, 10)} | fields
    source = known.pop("source", Provenance())
    answer = Snapshot(ECHO, text, Timing(0.0, 0.1, 0.2), **known)
    return Answered(Item(0, 0, 0, 0), answer, source=source)


FREE = SamplingParams(temperature=0.8)
SEEDED = SamplingParams(temperature=0.8, seed=1)
BROKEN = BadRequest("no")


@pytest.mark.parametrize(
    ("before", "after", "kind", "words"),
    [
        (answered(), answered(), "identical", "identical"),
        (answered(), answered("the same words"), "diverged", "diverged at token about 7"),
        (answered(params=FREE), answered("other", params=FREE), "incomparable", "not comparable at token 1: sampled"),
        (answered(params=FREE), answered(params=FREE), "identical", "identical"),
        (answered(params=SEEDED), answered("other", params=SEEDED), "diverged", "diverged at token 1"),
        (answered(), answered("", error=BROKEN, finish_reason="error"), "error", "error: now: no"),
        (answered("", error=BROKEN, finish_reason="error"), answered(), "error", "error: answered now"),
        (
            answered(source=Provenance("abc")),
            answered("other", source=Provenance("def")),
            "changed",
            "provider changed, diverged at token 1: the revision was abc, now def",
        ),
        (
            answered(sent=Sent(fingerprint="fp_1")),
            answered("the other", sent=Sent(fingerprint="fp_2")),
            "changed",
            "provider changed, diverged at token about 5: the service's fingerprint was fp_1, now fp_2",
        ),
        (
            answered(source=Provenance("abc")),
            answered(source=Provenance("def")),
            "identical",
            "identical: though the revision was abc",
        ),
    ],
)  # fmt: skip
def test_verdicts(before: Answered, after: Answered, kind: str, words: str) -> None:
    told = verdict(before, after)
    assert told.kind == kind and told.words.startswith(words)


def test_models_of_the_hub_are_asked_at_the_revision_that_answered() -> None:
    batch = Batch(prompts=("a",), models=(ECHO, ModelId("gguf", "o/r")))
    one = replace(answered(source=Provenance("0123abcd")), item=Item(1, 0, 0, 0))
    again = pinned(Original(batch, (one,)))
    assert again.revisions == ("", "0123abcd")
    assert again.spec(Item(1, 0, 0, 0)).load.revision == "0123abcd"
    assert again.spec(Item(0, 0, 0, 0)).load.revision is None
    assert pinned(Original(batch, (answered(),))) == batch


def test_a_folder_replays_one_report(engine: Engine, tmp_path: Path) -> None:
    batch = Batch(prompts=("a",), models=(ECHO,))
    source = asked(batch, tmp_path / "one", engine)
    before = replay.original(source, engine.settings)
    replay.keep(before, tmp_path / "two", source.read_text())
    replay.keep(before, tmp_path / "two", source.read_text())
    with pytest.raises(BatchError, match="another report"):
        replay.keep(before, tmp_path / "two", source.read_text() + " ")
    assert replayed(tmp_path / "one", engine.settings) is None


# files of anybody

GOOD: dict[str, Any] = {
    "format": "multimodel-batch",
    "version": 1,
    "batch": {"prompts": ["a"], "models": ["echo:any"], "settings": [{"name": "d"}], "repeats": 1},
    "answers": [],
}


def changed(**fields: Any) -> str:
    return json.dumps(GOOD | fields)


def batch_with(**fields: Any) -> str:
    return changed(batch=GOOD["batch"] | fields)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "no report"),
        ('{"format": "multimodel-conversation"}', "no report"),
        (changed(version=2), "version '2'"),
        (changed(answers=3), "no list of answers"),
        (changed(answers=[{"item": [9, 0, 0, 0], "text": "", "end": {"finish_reason": "stop"}}]), "no prompt of it"),
        (changed(answers=[{"item": [-1, 0, 0, 0], "text": "", "end": {"finish_reason": "stop"}}]), "no prompt of it"),
        (changed(answers=[{"text": "x"}]), "answers.0.item"),
        (changed(batch=None), "batch"),
        (batch_with(prompts=[]), "no prompts"),
        (batch_with(prompts=[1]), "prompts.0"),
        (batch_with(repeats=10**9), "answers were asked for"),
        (batch_with(models=["nobody:x"]), "nobody"),
        (batch_with(models=["echo"]), "not a model id"),
        (batch_with(more=1), "more"),
        (batch_with(revisions=["a", "b"]), "revisions"),
        (batch_with(settings=[{"name": "d", "params": {"temperature": 99}}]), "temperature"),
        (batch_with(settings=[{"name": "d", "params": {"heat": 1}}]), "heat"),
        (batch_with(settings=[{"name": "d", "load": {"adapter": "/etc/passwd"}}]), "adapter"),
        (batch_with(settings=[{"name": "d", "load": {"anyway": True}}]), "anyway"),
        (batch_with(settings=[{"name": "x" * 100}]), "settings.0.name"),
    ],
)
def test_what_is_no_report_is_refused_with_the_reason(text: str, says: str) -> None:
    with pytest.raises(ForeignFile) as caught:
        parsed(text, Settings())
    assert says in str(caught.value) and caught.value.hint


def test_a_good_report_is_read() -> None:
    found = parsed(json.dumps(GOOD | {"lanes": "anything", "machine": None}), Settings())
    assert found.batch.prompts == ("a",) and found.answered == ()


def test_the_command_line_replays(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("hello\nworld\n")
    assert command(tmp_path / "p.txt", "--models", "echo:a", "--out", tmp_path / "one")[0] == 0
    for source in (tmp_path / "one" / "report.json", tmp_path / "one"):
        out = tmp_path / f"again-{source.name}"
        code, said = command("--replay", source, "--out", out)
        assert code == 0 and "2 identical" in said
        assert (out / "report.html").exists()
    code, said = command("--replay", tmp_path / "p.txt", "--out", tmp_path / "three")
    assert code == 2 and "not JSON" in said


def test_where_texts_part() -> None:
    assert common("a b", "a b c") == 3
