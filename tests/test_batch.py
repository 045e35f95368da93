"""Batches of prompts: asked once each whatever happens in between, and reported as they were."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from multimodel.batch.__main__ import main
from multimodel.batch.export import to_markdown, write
from multimodel.batch.page import to_html
from multimodel.batch.plan import OWN, Batch, Item, Setting, prompts_of, setting_of
from multimodel.batch.report import report
from multimodel.batch.run import ANSWERS, answers, run
from multimodel.conversation import LOADING
from multimodel.engine import Engine
from multimodel.errors import BatchError, DataError, InvalidModelId, InvalidParameter
from multimodel.settings import Settings
from multimodel.types import LoadOptions, ModelId, SamplingParams

from .support import GUIDE_GGUF, ROOT, eventually

ECHO, OTHER = ModelId("echo", "a"), ModelId("echo", "b")
SAME_NAME = (ModelId("gguf", "guide"), ModelId("transformers", "guide"))
BATCH = Batch(prompts=("one", "two", "three"), models=(ECHO, OTHER), repeats=2)


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine(Settings()) as made:
        yield made


def test_every_prompt_is_asked_of_every_model_once_and_one_model_at_a_time(engine: Engine, tmp_path: Path) -> None:
    updates = list(run(BATCH, tmp_path, engine))
    assert [update.done for update in updates] == sorted(update.done for update in updates)
    assert updates[0].done == 0 and updates[-1].finished and not updates[-1].errors
    found = list(answers(tmp_path, BATCH))
    assert [one.item for one in found] == list(BATCH.items())
    assert [one.answer.text for one in found] == ["one", "one", "two", "two", "three", "three"] * 2
    asked = [update.item.model for update in updates if update.item]
    assert sum(a != b for a, b in pairwise(asked)) == 1


def test_it_goes_on_where_it_was_closed(engine: Engine, tmp_path: Path) -> None:
    updates = run(BATCH, tmp_path, engine)
    while next(updates).done < 5:
        pass
    updates.close()
    before = (tmp_path / ANSWERS).read_text()
    assert before.count("\n") == 5
    again = list(run(BATCH, tmp_path, engine))
    assert (again[0].done, again[-1].done) == (5, 12)
    assert (tmp_path / ANSWERS).read_text().startswith(before)
    assert list(run(BATCH, tmp_path, engine))[-1].finished


def test_a_line_that_was_cut_is_asked_again(engine: Engine, tmp_path: Path) -> None:
    list(run(BATCH, tmp_path, engine))
    whole = (tmp_path / ANSWERS).read_bytes()
    (tmp_path / ANSWERS).write_bytes(whole[:-30])
    assert len(list(answers(tmp_path, BATCH))) == 11
    list(run(BATCH, tmp_path, engine))
    assert [one.item for one in answers(tmp_path, BATCH)] == list(BATCH.items())


def test_errors_are_answers_that_can_be_asked_for_again(engine: Engine, tmp_path: Path) -> None:
    batch = Batch(prompts=("one",), models=(ModelId("gguf", str(tmp_path / "none.gguf")), ECHO))
    *_, last = run(batch, tmp_path, engine)
    assert (last.done, last.errors) == (2, 1)
    wrong, right = answers(tmp_path, batch)
    assert wrong.answer.error and wrong.answer.error.hint and right.answer.text == "one"
    assert next(run(batch, tmp_path, engine)).errors == 1
    again = list(run(batch, tmp_path, engine, retry=True))
    assert (again[0].done, again[0].errors, again[-1].done) == (1, 0, 2)


def test_settings_reach_the_model(engine: Engine, tmp_path: Path) -> None:
    params = SamplingParams(max_tokens=3, stop=("x", "y"), logit_bias=((1, -5.0),))
    batch = Batch(prompts=("a",), models=(ECHO,), settings=(Setting("short", params, "Be brief."), Setting()))
    batch.save(tmp_path)
    assert Batch.load(tmp_path) == batch


def test_a_folder_belongs_to_one_batch(engine: Engine, tmp_path: Path) -> None:
    list(run(BATCH, tmp_path, engine))
    with pytest.raises(BatchError, match="another batch"):
        next(run(Batch(prompts=("x",), models=(ECHO,)), tmp_path, engine))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"prompts": ["a"], "models": ["echo"], "settings": [], "repeats": 1}']
)
def test_a_broken_folder_is_told(text: str, tmp_path: Path) -> None:
    (tmp_path / "batch.json").write_text(text)
    with pytest.raises((BatchError, InvalidModelId)) as caught:
        Batch.load(tmp_path)
    assert caught.value.hint


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{",
        "null",
        "[1]",
        '{"item": [9, 9, 9, 9]}',
        '{"item": [0, 0, 0, 0], "text": 1}',
        '{"item": [0, 0, 0]}',
        "\x00",
    ],
)
def test_lines_that_are_none_of_the_batch_are_left_out(line: str, engine: Engine, tmp_path: Path) -> None:
    (tmp_path / ANSWERS).write_text(line + "\n")
    assert list(answers(tmp_path, BATCH)) == []
    assert list(run(BATCH, tmp_path, engine))[-1].finished
    assert len(list(answers(tmp_path, BATCH))) == 12


@pytest.mark.parametrize(
    "wrong",
    [{"prompts": ()}, {"models": ()}, {"models": (ECHO, ECHO)}, {"settings": (Setting(), Setting())}, {"repeats": 0}],
)
def test_nothing_to_ask_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(BatchError) as caught:
        Batch(**{"prompts": ("a",), "models": (ECHO,)} | wrong)
    assert caught.value.hint


def test_two_engines_may_have_a_model_of_one_name() -> None:
    assert len(Batch(prompts=("a",), models=SAME_NAME)) == 2


# prompts and settings


def test_prompts_of_files(tmp_path: Path) -> None:
    texts = {
        "a.txt": "first\n\n second \n",
        "b.csv": "id,prompt\n1,first\n2,second\n",
        "c.jsonl": '{"question": "first"}\n{"question": "second"}\n',
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        assert prompts_of(tmp_path / name) == ("first", "second"), name
    (tmp_path / "empty.txt").write_text("\n \n")
    for name in ("empty.txt", "none.txt", "none.csv"):
        with pytest.raises(DataError) as caught:
            prompts_of(tmp_path / name)
        assert caught.value.hint


def test_a_setting_says_how_models_are_loaded(tmp_path: Path) -> None:
    (tmp_path / "own.jinja").write_text("{{ messages }}, {}\n")
    how = "dtype=int4,context_length=99,kv_type=q8_0,device=cpu,gpu_layers=0,flash_attention=off,rope_scaling=yarn"
    files = f"chat_template=@{tmp_path / 'own.jinja'},adapter=a.gguf,adapter_scale=0.5"
    text = f"x:seed=1,{how},rope_factor=4,{files}"
    load = LoadOptions(
        **{"dtype": "int4", "context_length": 99, "kv_type": "q8_0", "device": "cpu", "gpu_layers": 0},
        **{"flash_attention": False, "rope_scaling": "yarn", "rope_factor": 4.0, "adapter": "a.gguf"},
        **{"adapter_scale": 0.5, "chat_template": "{{ messages }}, {}\n"},
    )
    assert setting_of(text) == Setting("x", SamplingParams(seed=1), load=load)
    assert load.changed() == {*LOADING, *OWN}


def test_a_setting_of_the_terminal_reaches_the_model_and_its_folder_goes_on(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("hello\n")
    out, missing = tmp_path / "out", tmp_path / "none.gguf"
    whole = [tmp_path / "p.txt", "--models", "gguf:guide", "--out", out, "--set", f"x:adapter={missing}"]
    code, _ = command(*whole)
    assert code == 1 and str(missing) in str(report(out).answered[0].answer.error)
    assert command(*whole, "--retry")[0] == 1  # whoever gives the whole command has named the file
    for arguments in (("--out", out), ("--replay", out, "--out", tmp_path / "again")):
        code, said = command(*arguments)
        assert code == 2 and "names the adapter" in said, said
    code, said = command("--replay", out / "report.json", "--out", tmp_path / "again")
    assert code == 2 and "names the adapter" in said


@pytest.mark.parametrize("load", [LoadOptions(anyway=True), LoadOptions(sequences=2), LoadOptions(revision="v1")])
def test_a_setting_has_no_other_way_to_load(load: LoadOptions) -> None:
    with pytest.raises(InvalidParameter, match="no option"):
        Setting("x", load=load)


@pytest.mark.parametrize(
    "text",
    [
        *("warm", "x:temprature=1", "x:temperature=hot", "x:temperature=9", ":seed=1", "x:dtype=int5"),
        *("x:context_length=long", "x:context_length=0", "x:rope_scaling=yarn", "x:rope_factor=inf", "x:anyway=1"),
        *("x:adapter_scale=0.5", "x:adapter=", "x:chat_template=@/nowhere/at.all", "x:flash_attention=maybe"),
    ],
)
def test_a_wrong_setting_is_told(text: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        setting_of(text)
    assert caught.value.hint


# the report


@pytest.fixture
def told(engine: Engine, tmp_path: Path) -> Path:
    batch = Batch(
        prompts=("one | two\nthree", "<script>alert(1)</script>"),
        models=(ECHO, OTHER, ModelId("gguf", str(tmp_path / "none.gguf"))),
    )
    list(run(batch, tmp_path, engine))
    write(tmp_path)
    return tmp_path


def test_the_report_counts_and_compares(told: Path) -> None:
    found = report(told)
    assert [(lane.answers, lane.errors) for lane in found.lanes] == [(2, 0), (2, 0), (2, 2)]
    assert [(pair.places, pair.equal, pair.alike) for pair in found.agreements] == [((0, 1), 1.0, 1.0)]
    assert to_html(found).count("No prompt was answered by both") == 4 and "| 0% |" not in to_markdown(found)
    values = json.loads((told / "report.json").read_text())
    assert [row["text"] for row in values["answers"]][:2] == ["one | two\nthree", "<script>alert(1)</script>"]
    assert values["answers"][-1]["error"] and values["lanes"][0]["memory"] == 0


def test_texts_cannot_be_markup_nor_break_a_table(told: Path) -> None:
    found = report(told)
    page = to_html(found)
    assert "<script" not in page and "&lt;script&gt;" in page
    assert "default-src 'none'" in page and not re.search(r"(src|href)=", page)
    table = [line for line in to_markdown(found).splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in table[:5]}) == 1


def test_the_page_has_charts_failures_and_differences(engine: Engine, tmp_path: Path) -> None:
    short = Setting("<b>short</b>", SamplingParams(max_tokens=2))
    broken = ModelId("gguf", str(tmp_path / "none.gguf"))
    list(run(Batch(prompts=("a b c", "d"), models=(ECHO, broken), settings=(Setting(), short)), tmp_path, engine))
    page = to_html(report(tmp_path))
    charts = re.findall(r'<figure class="mb-chart"><figcaption><b>(.*?)</b>', page)
    assert charts[-1] == "How answers ended" and "Time to first token" in charts
    assert "milliseconds</text>" in page and "answers</text>" in page
    assert "<b>short" not in page and "&lt;b&gt;short" in page
    assert page.count('data-label="answered">0/2') == 2
    first, second = re.findall(r'<details class="mb-row (.*?)"', page)
    assert first.split() == ["mb-is-differ", "mb-is-cut", "mb-is-failed"] and second.split()[0] == "mb-is-same"
    assert re.findall(r"mb-t\d", page.partition("</style>")[2])[:4] == ["mb-t0", "mb-t1", "mb-t2", "mb-t3"]


def test_a_report_of_half_a_batch_says_so(engine: Engine, tmp_path: Path) -> None:
    updates = run(BATCH, tmp_path, engine)
    while next(updates).done < 3:
        pass
    updates.close()
    assert "3 of 12 answers" in to_markdown(report(tmp_path))


# the command line


def command(*arguments: str | Path) -> tuple[int, str]:
    out = Console(file=io.StringIO(), width=200)
    code = main([str(argument) for argument in arguments], out)
    return code, out.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.skipif(not GUIDE_GGUF.exists(), reason="needs assets/guide")
def test_the_built_in_model_beside_another(tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp")
    (tmp_path / "p.txt").write_text("What is a token?\nWhat is the KV cache?\n")
    code, said = command(
        tmp_path / "p.txt", "--models", "gguf:guide", "echo:a", "--out", tmp_path / "out", "--repeats", 2
    )
    assert code == 0, said
    lane = report(tmp_path / "out").lanes[0]
    assert lane.memory > 10_000_000 and lane.tokens_per_second and lane.ttft
    assert "gguf:guide" in said and "report.html" in said
    assert command("--out", tmp_path / "out")[0] == 0  # all is there


def test_every_error_is_told_once_with_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "p.txt").write_text("one\ntwo\n")
    asked = ("--models", "echo:a", "gguf:/nowhere/[a].gguf", "--out", tmp_path / "out")
    code, said = command(tmp_path / "p.txt", *asked)
    error = report(tmp_path / "out").answered[-1].answer.error
    assert code == 1 and error and error.hint and "2 errors" in said
    told = capsys.readouterr().err
    assert told.splitlines() == [f"2 answers failed: {error} {error.hint}"]
    text = (tmp_path / "out" / "report.md").read_text()
    assert text.count(f"Error: {error} {error.hint}") == 2 and "2 of 4 answers, 2 errors" in text
    assert "2 of 4 answers, 2 errors" in (tmp_path / "out" / "report.html").read_text()


def test_one_error_is_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "p.txt").write_text("one\n")
    _, said = command(tmp_path / "p.txt", "--models", "gguf:/nowhere/a.gguf", "--out", tmp_path / "out")
    assert "1 error" in said and "1 errors" not in said
    assert capsys.readouterr().err.startswith("1 answer failed: ")
    assert "0 of 1 answer, 1 error" in (tmp_path / "out" / "report.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["none.txt", "--models", "echo:a"], "none.txt"),
        (["p.txt"], "no models"),
        (["p.txt", "--models", "nobody:a"], "nobody"),
        ([], "no batch"),
        (["p.txt", "--models", "echo:a", "--set", "x:heat=1"], "heat"),
    ],
)
def test_what_cannot_be_is_told_in_a_line(
    arguments: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("p.txt").write_text("hello\n")
    code, said = command(*arguments, "--out", "out")
    assert code == 2 and says in said


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
def test_kill_9_in_the_middle_loses_no_answer(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("".join(f"prompt number {i}\n" for i in range(400)))
    out = tmp_path / "out"
    options = [str(tmp_path / "p.txt"), "--models", "echo:a", "--out", str(out)]
    process = subprocess.Popen(
        [sys.executable, "-m", "multimodel.batch", *options], cwd=ROOT, stdout=subprocess.DEVNULL, env=dict(os.environ)
    )
    eventually(lambda: (out / ANSWERS).exists() and (out / ANSWERS).read_bytes().count(b"\n") > 3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    batch = Batch.load(out)
    before = len(list(answers(out, batch)))
    assert 3 < before < 400
    assert command(*options)[0] == 0
    found = list(answers(out, batch))
    assert [one.item for one in found] == [Item(0, 0, i, 0) for i in range(400)]
    lines = (out / ANSWERS).read_text().splitlines()
    assert len(lines) in (400, 401)  # nothing was asked twice, but for one that was being written
