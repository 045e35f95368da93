"""Every benchmark runs, in its shortest form, and its figures are made of what it says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import engine, isolation, report, startup, streams, ttft, unload
from bench.isolation import Seen, lags, page_rate, visible
from bench.peer import Ask, Entry, asked, word
from bench.report import Report, Table
from multimodel.engine import Engine
from multimodel.types import ModelId

from .support import needs, needs_browser

REPORT = Report(
    "some", "Some figures", (Table(("a", "b"), (("x", "1"),)),), ("A note.",), ("pytest", "no-such-package")
)


@pytest.fixture
def folder(tiny_folder: Path, tiny_gguf_file: Path, tmp_path: Path) -> Path:
    """The tiny model in the layout that the benchmarks take."""
    (tmp_path / "model" / "gguf").mkdir(parents=True)
    (tmp_path / "model" / "hf").symlink_to(tiny_folder)
    (tmp_path / "model" / "gguf" / tiny_gguf_file.name).symlink_to(tiny_gguf_file)
    return tmp_path / "model"


def figures(table: Table) -> Iterator[float]:
    """All numbers of a table, in order."""
    for row in table.rows:
        assert len(row) == len(table.columns)
        for cell in row[1:]:
            yield from (float(word) for word in cell.replace(",", "").strip("*%").split() if word not in ("of", "+"))


@pytest.mark.slow
@needs("torch", "transformers", "llama_cpp", "gguf")
def test_engine(folder: Path) -> None:
    (table,) = engine.measure({"tiny": folder}, rounds=1, max_tokens=8).tables
    assert [row[0] for row in table.rows] == ["tiny, GGUF F32", "tiny, transformers"]
    assert [row[2] for row in table.rows] == ["5 of 5", "5 of 5"]  # both sides read and wrote as many tokens
    assert all(row[1] == "8" for row in table.rows)
    assert all(figure >= 0 for figure in figures(table))


def test_weights_that_are_absent_are_left_out(tmp_path: Path) -> None:
    assert not list(engine.weights({"none": tmp_path}))


@pytest.mark.slow
@needs("llama_cpp", "gguf")
def test_streams(tiny_gguf_file: Path) -> None:
    rows = streams.gguf_rows(tiny_gguf_file, rounds=1, max_tokens=4)
    peers = [row[0].rpartition(" against ")[2] for row in rows]
    plain, alike, *loops = peers
    assert plain == "create_completion" and loops == ["bare loop"] * 3
    assert alike in ("create_completion (flash)", "create_completion (plain)")
    assert all(figure > 0 for figure in figures(Table(("", *"abcde"), tuple(rows))))


def test_answers_of_a_burst_are_counted_together() -> None:
    with Engine(streams.settings({})) as engine:
        found = streams.burst(engine, [ModelId("echo", "any")] * 3, 0, 100)
    assert found.tokens == sum(len(prompt.split()) for prompt in streams.prompts(3, 0))
    assert len(found.firsts) == 3 and max(found.firsts) <= found.seconds


@needs("llama_cpp", "openai", "gguf")
def test_ttft(folder: Path) -> None:
    (table,) = ttft.measure({"tiny": folder}, rounds=1).tables
    _, waiting, local = (list(figures(Table(table.columns, (row,)))) for row in table.rows)
    assert waiting[1] >= 200  # what the server was asked to wait
    assert waiting[0] >= waiting[1]  # shown after it was made
    assert local[0] > 0 and local[4] >= local[0]


@needs("openai")
def test_isolation(capsys: pytest.CaptureFixture[str]) -> None:
    assert isolation.main(["--tiny"]) == 0
    said = capsys.readouterr().out
    assert "| alone |" in said and "| beside 10, 20, 40 and 60 tok/s |" in said and "Load average" in said


@needs("llama_cpp", "gguf", "torch")
def test_unload(tiny_gguf_file: Path) -> None:
    with Engine() as engine:
        found = unload.rounds(engine, ModelId("gguf", str(tiny_gguf_file)), count=2)
    assert found.child > 10_000_000 and found.seconds > 0
    assert found.after.files == found.before.files and found.after.children == found.before.children


@pytest.mark.slow
def test_startup() -> None:
    times, imports = startup.measure(rounds=1).tables
    assert all(figure > 0 for figure in figures(times)) and len(times.rows) == 2
    assert imports.rows[0][0] == "gradio"


@pytest.mark.slow
@pytest.mark.browser
@needs_browser
@needs("playwright", "openai")
def test_page() -> None:
    from bench.page import measure

    scenes, long = measure((1,), (2,), seconds=1.0, tokens=100, rounds=1).tables
    assert [row[0] for row in scenes.rows] == ["1 x 2"] and len(long.rows) == 1
    assert next(iter(figures(scenes))) > 0  # updates were seen


@pytest.mark.slow
@pytest.mark.browser
@needs_browser
@needs("playwright")
def test_store() -> None:
    from bench.store import measure

    waits, costs = measure(count=3, turns=2, rounds=2, seconds=0.5).tables
    assert [row[:2] for row in waits.rows][-2:] == [("page", "open"), ("page", "search")]
    assert [row[0] for row in costs.rows] == ["1", "8", "100"]
    assert all(float(row[1]) > 0 for row in costs.rows)


@needs("playwright")
def test_the_cost_of_an_update_is_that_of_its_time() -> None:
    from bench.page import Scene, Stretch, cost_at

    stretches = [Stretch(tokens, 5, 0.005 * (2 if tokens >= 3500 else 1)) for tokens in range(0, 4001, 50)]
    scene = Scene(4, 100, 40.0, tuple(stretches), 0.0, (), 0.0, 0.0)
    assert cost_at(scene, 0.1) == pytest.approx(1.0)
    assert cost_at(scene, 0.95) == pytest.approx(2.0)


@needs("playwright")
def test_lag_is_from_the_server_to_the_update() -> None:
    from bench.page import late

    entry = Entry("40", 0.0, [1.0, 2.0])
    begun, last, end = late([[0.0, [-1]], [0.0, [1]], [500.0, [1]]], [entry])
    assert len(begun) == 2 and begun[0] - begun[1] == pytest.approx(1.0)
    assert last == begun[1] and end - last == pytest.approx(0.5)


def test_rates_and_lags_of_views() -> None:
    seen = [Seen(1.0, 0), Seen(2.0, 10), Seen(3.0, 30), Seen(4.0, 30)]
    assert page_rate(seen) == 20.0
    assert lags(seen[:2], Entry("80", 0.0, [1.25] * 10)) == (0.75,) * 10
    assert visible(word(7, 12)) == 8 and visible("nothing") == 0


def test_a_prompt_tells_the_server_what_to_say() -> None:
    body = {"model": "80", "messages": [{"content": "go seconds=2 chars=30 wait=0.5"}]}
    assert asked(body) == Ask(rate=80.0, tokens=160, chars=30, wait=0.5)
    assert len(word(1, 30)) == 30 and word(50, 6).startswith("\n\n```")


def test_contestants_take_turns() -> None:
    order: list[str] = []
    contestants = {name: (lambda number, name=name: order.append(name) or number) for name in "ab"}
    found = report.in_turn(contestants, rounds=2)
    assert order == ["b", "a", "a", "b", "b", "a"] and found == {"a": [1, 2], "b": [1, 2]}
    assert report.paired([1.0, 4.0, 3.0], [2.0, 2.0, 2.0]) == 1.5


def test_a_section_replaces_its_last_version(tmp_path: Path) -> None:
    path = tmp_path / "RESULTS.md"
    for name, text in (("one", "first\n"), ("two", "other\n"), ("one", "second \\1\n")):
        report.write(name, text, path)
    assert path.read_text() == (
        "# Benchmark results\n\n<!-- one -->\nsecond \\1\n<!-- /one -->\n\n<!-- two -->\nother\n<!-- /two -->\n"
    )


def test_a_report_says_where_it_was_measured() -> None:
    text = REPORT.markdown(report.conditions(REPORT, "0.5", "1"))
    assert "## Some figures" in text and "| x | 1 |" in text and "- A note." in text
    assert "Load average 0.5 before" in text and "no-such-package not installed" in text


@pytest.mark.slow
def test_people() -> None:
    from bench.people import measure

    (table,) = measure(people=2, words=5).tables
    found = {row[0]: row[1] for row in table.rows}
    assert found["people who saw every answer whole"] == "2 of 2"
    assert found["connections left then"] == "0"


def test_what_people_cost_is_counted_by_update() -> None:
    from bench.people import Day, Seen, rows

    day = Day([Seen(30, True), Seen(10, False)], 10.0, 0.04, 0.03, 0.03, 0.02, (1_000_000, 2_000_000), 3)
    found = {what: figure for what, figure, _ in rows(day, 0.025)}
    assert found["people who saw every answer whole"] == "1 of 2"
    assert found["server, ms an update"] == "**1.00**"
    assert found["updates a second and person"] == "2.0"
    assert found["idle, beyond Gradio's hello world, of a core"] == "**0.5%**"
    assert found["connections left then"] == "3"
