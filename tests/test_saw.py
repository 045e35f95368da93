"""What an answer was asked with is written down when it is made, and told as it was: by every kind of backend."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from multimodel.board import Board
from multimodel.boards import Boards
from multimodel.conversation import Options, Turn
from multimodel.divergence import diverge
from multimodel.engine import Engine
from multimodel.errors import ForeignFile
from multimodel.exchange import from_json, to_json
from multimodel.settings import Settings
from multimodel.types import (
    LoadOptions,
    Message,
    ModelId,
    SamplingParams,
    Sent,
    Snapshot,
    Timing,
    TokenLogprob,
    Usage,
    digest_of,
)
from tabs import saw_page
from tabs.format import all_figures
from tabs.meter import meters
from tabs.saw import Details
from tabs.view import turn_html

from .faults import FaultServer
from .support import GUIDE_GGUF, Fakes, eventually, needs, says

ECHO, GUIDE = ModelId("echo", "any"), ModelId("gguf", "guide")
EVIL = "<img src=x onerror=alert(1)>&"


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with Engine(Settings.load()) as made:
        yield made


def asked(board: Board, *prompts: str) -> int:
    """Ask, wait, and return the turn of the last answer of the first column."""
    for prompt in prompts:
        assert board.send(prompt)
        eventually(lambda: not board.active(), 120.0)
    return board.columns()[0].turns[-1].id


def chat(engine: Engine, *models: ModelId, **options: Any) -> tuple[Boards, Board]:
    """The boards of an engine, and one of them with these models."""
    boards = Boards(engine)
    board = boards.get(None)
    for column, model in zip(board.columns(), models, strict=False):
        board.choose(column.key, model)
    while len(board.columns()) > len(models):
        board.remove(board.columns()[-1].key)
    board.set_options(Options(**options))
    return boards, board


def look(details: Details, board: Board, turn: int, view: str = "prompt", **more: Any) -> dict[str, Any]:
    return details.saw({"address": board.id, "turn": turn, "view": view, **more})


def rest(details: Details, board: Board, turn: int, part: str = "prompt", **more: Any) -> str:
    """What takes longer, once it has come."""
    answer: dict[str, Any] = details.more({"address": board.id, "turn": turn, "part": part, **more})
    while answer.get("running"):
        answer = details.more({"task": answer["task"]})
    return str(answer["html"])


# what was sent


def test_the_messages_are_those_that_were_sent_whatever_came_after(engine: Engine) -> None:
    boards, board = chat(engine, ECHO, system="Be brief.")
    first = asked(board, "one")
    second = asked(board, "two")
    board.set_options(Options(system="Be long."))
    asked(board, "three")
    found = board.asked(second)
    assert found and found.exact is True
    assert [m.content for m in found.messages] == ["Be brief.", "one", "one", "two"]
    assert look(Details(engine, boards), board, second)["html"].count("Be brief.") == 1
    earlier = board.asked(first)
    assert earlier and [m.content for m in earlier.messages] == ["Be brief.", "one"]


def test_a_continued_answer_was_sent_its_beginning(engine: Engine) -> None:
    _, board = chat(engine, ECHO, params=SamplingParams(max_tokens=2))
    asked(board, "a b c d")
    key = board.columns()[0].key
    board.resume(key)
    eventually(lambda: not board.active())
    turn = board.columns()[0].turns[-1]
    found = board.asked(turn.id)
    assert found and found.exact is True and found.messages[-1] == Message("assistant", "a b ")
    assert turn.answer.text == "a b c d"


def test_a_service_that_cannot_continue_was_asked_to_go_on_in_words(tmp_path: Path) -> None:
    fakes = Fakes(says("one ", "two", reason="length"))
    with Engine(Settings.load(), connect=fakes.connect) as engine:
        _, board = chat(engine, ModelId("openai", "m"))
        asked(board, "count")
        board.resume(board.columns()[0].key)
        eventually(lambda: not board.active())
        found = board.asked(board.columns()[0].turns[-1].id)
        assert found and found.exact is True and found.messages == fakes["m"].asked[-1]
        assert [m.role for m in found.messages] == ["user", "assistant", "user"]


def test_it_comes_back_from_the_database_and_a_file(engine: Engine) -> None:
    _, board = chat(engine, ECHO, system="Be brief.")
    turn = asked(board, "one", "two")
    board.flush()
    kept = board.kept()
    again, _ = from_json(to_json(kept, {}))
    assert [t.answer.sent for t in again.turns] == [t.answer.sent for t in kept.turns]
    fresh = Boards(engine).get(board.id)
    found = fresh.asked(turn)
    assert found and found.exact is True and found.turn.answer.sent == kept.turns[-1].answer.sent


def test_an_answer_of_an_older_version_says_what_is_not_known(engine: Engine) -> None:
    boards, board = chat(engine, ECHO)
    asked(board, "hi")
    old = json.loads(to_json(board.kept(), {}))
    for turn in old["turns"]:
        del turn["ending"]["sent"], turn["ending"]["params"]
    conversation, _ = from_json(json.dumps(old))
    imported = boards.keep(board.id, conversation)
    turn = imported.columns()[0].turns[-1].id
    html = look(Details(engine, boards), imported, turn)["html"]
    assert saw_page.EXACT[None] in html and "nothing was written down" in html


def test_a_conversation_that_was_tampered_with_is_told(engine: Engine) -> None:
    boards, board = chat(engine, ECHO)
    asked(board, "hi", "there")
    forged = json.loads(to_json(board.kept(), {}))
    forged["turns"][0]["text"] = "something else"
    imported = boards.keep(board.id, from_json(json.dumps(forged))[0])
    found = imported.asked(imported.columns()[0].turns[-1].id)
    assert found and found.exact is False


@pytest.mark.parametrize(
    ("where", "value", "refused"),
    [
        ("request", "[" * 100_000, False),
        ("request", "[1]", False),
        ("begun", -5, False),
        ("address", f"javascript:{EVIL}", False),
        ("loaded", {"changed": 10**300}, True),
        ("loaded", {"size": -1}, True),
        ("loaded", {"path": "/etc/passwd"}, True),
    ],
)
def test_a_hostile_record_in_a_file_harms_nobody(engine: Engine, where: str, value: Any, refused: bool) -> None:
    boards, board = chat(engine, ECHO)
    asked(board, "hi")
    file = json.loads(to_json(board.kept(), {}))
    file["turns"][0]["ending"]["sent"] |= {"request": "{}", where: value}
    if refused:
        with pytest.raises(ForeignFile):
            from_json(json.dumps(file))
        return
    imported = boards.keep(board.id, from_json(json.dumps(file))[0])
    html = look(Details(engine, boards), imported, imported.columns()[0].turns[-1].id)["html"]
    assert "Messages" in html and EVIL not in html


def test_parameters_that_a_backend_does_not_take_are_told(engine: Engine) -> None:
    boards, board = chat(engine, ECHO, params=SamplingParams(max_tokens=5, temperature=0.5))
    html = look(Details(engine, boards), board, asked(board, "hi"))["html"]
    rows = [unescape(row) for row in html.split("<tr")[1:]]
    assert any("Max tokens" in row and ">sent<" in row for row in rows)
    assert any("Temperature" in row and "does not take it" in row for row in rows)


@needs("llama_cpp")
@pytest.mark.skipif(not GUIDE_GGUF.exists(), reason="needs assets/guide")
def test_a_local_model_tells_its_prompt_its_files_and_its_memory(tmp_path: Path) -> None:
    copy = tmp_path / "m.gguf"
    shutil.copyfile(GUIDE_GGUF, copy)
    with Engine(Settings.load()) as engine:
        boards, board = chat(
            engine,
            ModelId("gguf", str(copy)),
            params=SamplingParams(max_tokens=8, temperature=0, top_logprobs=3),
            load=LoadOptions(kv_type="q8_0"),
        )
        turn, details = asked(board, f"Hello <|end|>{EVIL}"), Details(engine, boards)
        answer = board.columns()[0].turns[-1].answer
        assert answer.sent and answer.sent.loaded and answer.usage
        assert (answer.memory or 0) > copy.stat().st_size
        assert answer.sent.loaded.kv_type == "q8_0" and answer.sent.loaded.size == copy.stat().st_size
        assert answer.sent.versions and answer.sent.versions[0][0] == "llama_cpp_python"

        found = board.asked(turn)
        assert found
        prompt = board.inspect(found)
        assert prompt and prompt.digest == answer.sent.prompt
        assert len(prompt.tokens) == answer.usage.input_tokens and prompt.stripped == len("<|end|>")
        html = rest(details, board, turn)
        assert "Token for token" in html and "7 characters of typed special tokens" in html
        assert EVIL not in html and EVIL in unescape(html)
        assert subprocess.run(["sha256sum", copy], capture_output=True, text=True).stdout[:64] in rest(
            details, board, turn, "files"
        )

        tokens = look(details, board, turn, "tokens")
        assert "".join(row[0] for row in tokens["rows"]) == answer.text
        fresh = Boards(engine)
        assert look(Details(engine, fresh), fresh.get(board.id), turn, "tokens")["rows"] == tokens["rows"]

        sizes = meters(board.measure("word " * 400))
        assert sizes[0]["level"] == "quiet" or "tokens" in sizes[0]["words"]
        engine.unload(found.spec)
        assert "data-saw-load" in rest(details, board, turn)
        assert "Token for token" in rest(details, board, turn, load=True)
        with copy.open("ab") as file:
            file.write(b"\0")
        assert "not what answered" in rest(details, board, turn, "files")


def test_a_history_too_long_is_shown_with_what_was_left_out() -> None:
    messages = [Message("system", "s"), Message("user", "old"), Message("assistant", "reply"), Message("user", "new")]
    html = saw_page._messages(messages, 2)
    assert html.count("data-gone") == 2 and html.index("reply") > html.index("data-gone")
    assert "data-gone" not in html[html.index("reply") :]


def test_a_remote_request_is_shown_as_it_left_and_without_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_KEY", "sk-very-secret")
    with FaultServer() as server:
        endpoints = [{"name": "fake", "base_url": server.url("good"), "key_var": "FAKE_KEY"}]
        monkeypatch.setenv("ENDPOINTS", json.dumps(endpoints))
        with Engine(Settings.load()) as engine:
            boards, board = chat(engine, ModelId("fake", "good-model"), params=SamplingParams(max_tokens=7, top_k=2))
            turn = asked(board, f"Hello {EVIL}")
            answer = board.columns()[0].turns[-1].answer
            html = look(Details(engine, boards), board, turn)["html"]
            body = server.requests[-1].body
            found = board.asked(turn)
            assert found and found.exact and answer.sent
            assert json.loads(answer.sent.request) == {k: v for k, v in body.items() if k != "messages"}
            assert saw_page._body(found, answer.sent) == body
            assert answer.sent.address == f"{server.url('good')}/chat/completions"
            assert (answer.sent.model, answer.sent.response) == ("m", "x")
            assert "sk-very-secret" not in html and "$FAKE_KEY" in html and EVIL not in html
            assert "sk-very-secret" not in to_json(board.kept(), {})

            program = saw_page.python(answer.sent.address, body, "FAKE_KEY")
            said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
            assert "Hel" in said and server.requests[-1].body == body
            assert server.requests[-1].headers["authorization"] == "Bearer sk-very-secret"


def test_what_failed_leaves_a_record_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultServer() as server:
        monkeypatch.setenv("ENDPOINTS", json.dumps([{"name": "fake", "base_url": server.url("400")}]))
        with Engine(Settings.load()) as engine:
            _, board = chat(engine, ModelId("fake", "m"))
            asked(board, "Hello")
            answer = board.columns()[0].turns[-1].answer
            assert answer.error and answer.sent and json.loads(answer.sent.request)["model"] == "m"


def test_nothing_is_told_of_what_is_not_there(engine: Engine) -> None:
    boards, board = chat(engine, ECHO)
    details = Details(engine, boards)
    for turn in (99, "1", None):
        assert "not here" in look(details, board, turn)["error"]  # type: ignore[arg-type]


# the tokens of an answer


def test_perplexity_and_the_least_likely_tokens() -> None:
    tokens = [TokenLogprob("a", math.log(0.5)), TokenLogprob("b", math.log(0.125)), TokenLogprob("c", 0.0)]
    view = saw_page.tokens_view(tokens, "abc")
    assert f"perplexity {(1 / (0.5 * 0.125)) ** (1 / 3):.2f}" in view["html"]
    assert view["least"] == [1, 0, 2]
    assert "last part" in saw_page.tokens_view(tokens, "xyz abc")["html"]
    assert "Token probabilities" in saw_page.tokens_view((), "abc")["html"]


# two answers


@pytest.mark.parametrize(
    ("left", "right", "same", "agreement"),
    [
        ("a b c", "a b c", 3, 1.0),
        ("a b c", "a  b\nc ", 3, 1.0),
        ("a b c", "x y z", 0, 0.0),
        ("", "", 0, 1.0),
        ("", "a", 0, 0.0),
        ("a b c d", "a c d", 1, 6 / 7),
    ],
)
def test_where_two_texts_part(left: str, right: str, same: int, agreement: float) -> None:
    found = diverge(left, right)
    assert found.same == same and found.agreement == pytest.approx(agreement)
    for side, text in (("left", left), ("right", right)):
        shown = "".join(part.text for part in found.parts if part.kind in ("both", side))
        assert shown.split() == text.split()
    assert found.equal == (left.split() == right.split())


def test_answers_are_compared_side_by_side(tmp_path: Path) -> None:
    fakes = Fakes(says("the cat sat on the mat"), other=says(f"the cat lay on the {EVIL}"))
    with Engine(Settings.load(), connect=fakes.connect) as engine:
        boards, board = chat(engine, ModelId("openai", "m"), ModelId("openai", "other"))
        turn = asked(board, "tell")
        html = look(Details(engine, boards), board, turn, "compare")["html"]
        assert "They part after 2 words: on the left “sat on the mat”" in html
        assert "<del>" in html and "<ins>" in html and "−" in html and EVIL not in html
        board.regenerate(board.columns()[0].key)
        eventually(lambda: not board.active())
        same = look(Details(engine, boards), board, board.columns()[0].turns[-1].id, "compare", other=turn)["html"]
        assert "the same, word for word" in same and f'value="{turn}" selected' in same
        board.remove(board.columns()[0].key)
        alone = look(Details(engine, boards), board, board.columns()[0].turns[-1].id, "compare")["html"]
        assert "no other answer" in alone


# figures


def test_all_figures_are_those_that_are_known() -> None:
    timing, usage = Timing(0.0, 0.5, 2.5), Usage(300, 101, reused_tokens=280, reasoning_tokens=40)
    rows = {
        name: figure
        for name, figure, _ in all_figures(Snapshot(ECHO, "x", timing, usage, "stop", memory=2_500_000_000))
    }
    assert rows["Time per output token"] == "33.3 ms" and rows["Prompt tokens"] == "280 of 300 reused"
    assert rows["Of them thoughts"] == "40 tokens" and rows["Peak memory"] == "2.5 GB" and rows["End"] == "finished"
    assert "Cost" not in rows
    bare = {name for name, _, _ in all_figures(Snapshot(ECHO, "x", Timing(0.0), finish_reason="stopped"))}
    assert bare == {"End"}
    assert "40 tokens" in turn_html(turn_of(usage), ECHO)


def turn_of(usage: Usage) -> Turn:
    return Turn("p", Snapshot(ECHO, "x", Timing(0.0, 0.1, 1.0), usage, "stop"), 1)


@needs("genai_prices", "openai")
def test_the_context_of_a_service_is_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    with Engine(Settings.load()) as engine:
        _, board = chat(engine, ModelId("openai", "gpt-4o"))
        ((_, measured),) = board.measure("a" * 4 * 64_000)
        assert measured.estimated and (measured.tokens, measured.context_length) == (64_000, 128_000)
        assert meters(board.measure("a" * 4 * 64_000))[0]["words"] == "about 64,000 of 128,000 tokens (50%)"
        assert not engine.measure(ModelId("openai", "nobody-knows"), [Message("user", "hi")])


def test_a_record_takes_up_what_is_learnt() -> None:
    messages = [Message("user", "hi")]
    known = Sent(messages=digest_of(messages)).merge(Sent(dropped=2)).merge(None).merge(Sent(prompt="abc"))
    assert known == Sent(messages=digest_of(messages), dropped=2, prompt="abc")
    assert digest_of(messages) != digest_of([Message("system", "hi")])
