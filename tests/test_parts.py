"""Files, pictures and calls of tools on their way: from the person to the model and back, and into files and again."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from multimodel.attachment import Attachment
from multimodel.backends import openai
from multimodel.backends.calls import Calls
from multimodel.backends.openai import request_body
from multimodel.board import Board
from multimodel.boards import Boards
from multimodel.engine import Engine
from multimodel.errors import BadRequest, ForeignFile
from multimodel.exchange import from_json, to_json, to_markdown
from multimodel.messages import LEFT_OUT, conversation, taken
from multimodel.pool import Pool
from multimodel.settings import ApiSettings, ChatSettings, Settings
from multimodel.spoken import Spoken
from multimodel.tools import tools_from
from multimodel.types import (
    Capabilities,
    Chunk,
    Image,
    Message,
    ModelId,
    ModelSpec,
    SamplingParams,
    Snapshot,
    Timing,
    ToolCall,
    ToolResult,
    Usage,
)
from tabs.export import line, to_html
from tabs.parts import calls_html, files_html, question_html

from .faults import DONE, FaultServer, event, streamed
from .samples import png
from .support import FakeBackend, eventually

EVIL = "<script>alert(1)</script>\"'><img src=http://evil/x onerror=alert(1)>"
PICTURE = Image("image/png", png(4, 4))
NOTES = Attachment("notes.txt", "text", 12, "2 lines", ("Only the first 2 of 3 lines are given.",), "hello\nworld")
PHOTO = Attachment("photo.png", "image", 99, "4 x 4", image=PICTURE)
CALLS = (ToolCall("get_weather", '{"city": "Paris"}', "a"), ToolCall("now", "{}", "b"))
TOOLS = '[{"name": "get_weather"}, {"name": "now"}]'
SEES = Capabilities(params=frozenset({"tools"}), local=False, images=True)
BLIND = replace(SEES, images=False, local=True)


# what a model is sent


def test_files_come_before_the_question_and_pictures_beside_it() -> None:
    (message,) = conversation("", [], "What is it?", [NOTES, PHOTO])
    assert message.images == (PICTURE,)
    assert message.content.startswith(
        'The file "notes.txt": Only the first 2 of 3 lines are given.\n```\nhello\nworld\n```'
    )
    assert message.content.endswith("\n\nWhat is it?")


def test_the_wire_form_of_a_picture_and_of_calls() -> None:
    messages = [
        Message("user", "Look.", (PICTURE,)),
        Message("assistant", "", calls=CALLS),
        Message("tool", "21", name="get_weather", call="a"),
    ]
    address = f"data:image/png;base64,{b64encode(PICTURE.data).decode()}"
    calls = [{"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}} for c in CALLS]
    assert request_body("m", messages, SamplingParams())["messages"] == [
        {
            "role": "user",
            "content": [{"type": "image_url", "image_url": {"url": address}}, {"type": "text", "text": "Look."}],
        },
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "content": "21", "tool_call_id": "a"},
    ]


def test_a_picture_in_the_prompt_is_refused_where_none_is_taken_and_an_older_one_left_out() -> None:
    new, old = Message("user", "Look.", (PICTURE,)), Message("user", "And now?")
    assert taken([new], SEES) == ([new], ())
    with pytest.raises(BadRequest, match="takes no pictures: models on this machine") as caught:
        taken([new], BLIND)
    assert "Choose a model of a service" in caught.value.hint
    with pytest.raises(BadRequest, match="reads text only"):
        taken([new], replace(BLIND, local=False))
    kept, notes = taken([new, Message("assistant", "Nice."), old], BLIND)
    assert notes == (LEFT_OUT,)
    assert [message.images for message in kept] == [(), (), ()]
    assert kept[0].content == "Look.\n\n(A picture was left out here.)"


def test_calls_are_told_in_words_where_no_tools_are_taken() -> None:
    messages = [Message("user", "Hi"), Message("assistant", "Wait.", calls=CALLS), Message("tool", "21", name="now")]
    assert taken(messages, SEES) == (messages, ())
    words, _ = taken(messages, replace(SEES, params=frozenset()))
    assert [(message.role, message.content) for message in words] == [
        ("user", "Hi"),
        ("assistant", 'Wait.\n\nI call get_weather with {"city": "Paris"}.\nI call now with {}.'),
        ("user", "The result of now: 21"),
    ]


@pytest.mark.parametrize(
    ("name", "sees"), [("gpt-3.5-turbo", False), ("o3-mini", False), ("gpt-4", False), ("gpt-4o", True), ("new", True)]
)
def test_the_models_of_openai_that_only_read_are_known(name: str, sees: bool) -> None:
    settings = Settings(api=ApiSettings(openai_key=SecretStr("sk-of-the-tests")))
    backend = openai.connect(ModelSpec(ModelId("openai", name)), settings, Pool())
    assert backend.capabilities.images is sees
    backend.close()


# tools, as they are typed


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "nested too deeply|not JSON"),
        ("[]", "0 tools"),
        ("[1]", "Tool 1 is no object"),
        ('[{"name": "a"}, {"name": "two words"}]', "Tool 2 has no name, or one with"),
        ('[{"name": "a"}, {"name": "a"}]', "Two tools are called 'a'"),
        ('{"name": "a", "parameters": {"type": "string"}}', "The parameters of a are no JSON schema"),
        ('{"name": "a", "description": 1}', "The description of a is no text"),
        ('{"name": "a", "arguments": {}}', "a has a field 'arguments'"),
    ],
)
def test_tools_that_are_none_are_refused_in_a_sentence(text: str, why: str) -> None:
    with pytest.raises(BadRequest, match=why) as caught:
        tools_from(text)
    assert "get_weather" in caught.value.hint


def test_a_choice_must_be_one_of_the_tools() -> None:
    with pytest.raises(BadRequest, match="No tool is called 'then'"):
        request_body("m", [], SamplingParams(tools=TOOLS, tool_choice="then"))


# calls, as they come


def piece(index: object = None, id: str = "", name: str = "", arguments: object = "") -> dict[str, Any]:
    return {"index": index, "id": id, "function": {"name": name, "arguments": arguments}}


@pytest.mark.parametrize(
    "pieces",
    [
        [piece(0, "a", "f", '{"x"'), piece(0, "", "", ": 1}"), piece(1, "b", "g", "{}")],
        [piece(0, "a", "f"), piece(1, "b", "g"), piece(0, arguments='{"x": 1}'), piece(1, arguments="{}")],
        [piece(None, "a", "f", '{"x": 1}'), piece(None, "b", "g", "{}")],  # not numbered
        [piece(0, "a", "f", '{"x": 1}'), piece(0, "b", "g", "{}")],  # all numbered 0
        [piece(0, "a", "f", {"x": 1}), piece(1, "b", "g", {})],  # arguments that are no text
    ],
    ids=["in order", "mixed", "no numbers", "one number", "objects"],
)
def test_calls_are_put_together_from_their_pieces(pieces: list[dict[str, Any]]) -> None:
    calls = Calls()
    for one in pieces:
        found = calls.told([one])
    assert found == (ToolCall("f", '{"x": 1}', "a"), ToolCall("g", "{}", "b"))


def test_what_is_no_call_is_passed_over_and_there_is_an_end_to_calls() -> None:
    calls = Calls()
    assert calls.told(None) == calls.told([1, "x"]) == calls.told({"a": 1}) == ()
    found = calls.told([piece(at, f"id{at}", "f") for at in range(1000)])
    assert len(found) == 128
    assert calls.told([{"index": "x", "function": 7}])


def spoken(*texts: str, calls: bool = False) -> tuple[str, str, tuple[ToolCall, ...], str]:
    """(text, thoughts, calls, how it ended) of an answer that comes in these pieces."""
    fold, text, thoughts, last = Spoken(calls=calls), "", "", Chunk()
    for chunk in [*map(Chunk, texts), Chunk(finish_reason="stop")]:
        last = fold.told(chunk)
        text, thoughts = text + last.text, thoughts + last.reasoning
    return text, thoughts, last.calls, str(last.finish_reason)


@pytest.mark.parametrize(
    ("text", "said", "thoughts"),
    [
        ("<think>\nHm.\n</think>\n\nYes.", "Yes.", "Hm."),
        ("\n<think>Hm.</think>Yes. <think>no</think>", "Yes. <think>no</think>", "Hm."),
        ("[THINK]Hm.[/THINK]Yes.", "Yes.", "Hm."),
        ("<think>never ended", "", "never ended"),
        ("A <think> in words.", "A <think> in words.", ""),
        ("<thin ice>", "<thin ice>", ""),
        ("  plain ", "  plain ", ""),
        ("<", "<", ""),
        ("", "", ""),
    ],
)
def test_thoughts_in_tags_are_told_apart(text: str, said: str, thoughts: str) -> None:
    assert spoken(text)[:2] == (said, thoughts)
    slowly = spoken(*text)  # letter by letter
    assert (slowly[0], slowly[1].rstrip()) == (said, thoughts)


def test_calls_in_tags_are_told_apart_where_there_are_tools() -> None:
    call = '<tool_call>\n{"name": "now", "arguments": {"zone": "UTC"}}\n</tool_call>'
    text = f"One moment.\n{call}\n<tool_call>what</tool_call>"
    assert spoken(text)[0] == text
    calls = (ToolCall("now", '{"zone": "UTC"}', "call_1"), ToolCall("", "what", "call_2"))
    assert spoken(text, calls=True) == ("One moment.", "", calls, "tool_calls")
    assert spoken(*text, calls=True)[2:] == (calls, "tool_calls")
    assert spoken('<tool_call>{"name": "now"}', calls=True)[2] == (ToolCall("now", "{}", "call_1"),)


# a board


def wants(messages: Sequence[Message]) -> Iterator[Chunk]:
    """Calls two functions; once it has their results it says them."""
    results = [message.content for message in messages if message.role == "tool"]
    if results:
        yield Chunk(" and ".join(results), finish_reason="stop", usage=Usage(1, 1))
    else:
        yield Chunk(calls=CALLS[:1])
        yield Chunk(calls=CALLS, finish_reason="tool_calls", usage=Usage(1, 2))


class Seeing(FakeBackend):
    capabilities = replace(FakeBackend.capabilities, images=True)


@pytest.fixture
def start() -> Iterator[Callable[[], Boards]]:
    """Boards of two columns, one of which sees; each time over the same folder, after the end of the one before."""
    engines: list[Engine] = []

    def connect(spec: ModelSpec, settings: Settings, pool: Pool) -> FakeBackend:
        kind = Seeing if spec.id.name == "a" else FakeBackend
        return kind(spec.id, wants)

    def again() -> Boards:
        for engine in engines:
            engine.close()
        chat = ChatSettings(columns=("fake:a", "fake:b"), data_dir=Path("data"))
        engines.append(Engine(Settings(chat=chat), connect=connect))
        return Boards(engines[-1])

    yield again
    engines[-1].close()


def settle(board: Board) -> None:
    eventually(lambda: not board.active())


def asked(board: Board, name: str) -> list[tuple[Message, ...]]:
    """What the model of a column was sent."""
    backend: Any = board._engine.backend(ModelId("fake", name))
    found: list[tuple[Message, ...]] = backend.asked
    return found


def test_one_column_is_asked_and_the_other_says_why_not(start: Callable[[], Boards]) -> None:
    board = start().get(None)
    assert board.send("Look.", files=[PHOTO])
    settle(board)
    a, b = board.columns()
    assert a.turns[0].answer.calls == CALLS and a.turns[0].files == b.turns[0].files == (PHOTO,)
    assert "takes no pictures" in str(b.turns[0].answer.error) and asked(board, "b") == []
    board.choose(b.key, ModelId("fake", "a"))
    board.regenerate(b.key)
    settle(board)
    assert board.columns()[1].turns[0].answer.calls == CALLS  # nothing was lost


def test_an_edit_and_a_branch_keep_the_files(start: Callable[[], Boards]) -> None:
    boards = start()
    board = boards.get(None)
    board.send("Read.", files=[NOTES])
    settle(board)
    first = board.columns()[0]
    board.edit(first.key, first.turns[0].id, "Read again.")
    settle(board)
    (turn,) = board.columns()[0].turns
    assert turn.files == (NOTES,) and len(turn.place.prompts) == 2
    assert "hello\nworld" in asked(board, "a")[-1][-1].content
    assert boards.keep(board.id, board.branch(first.key, turn.id)).columns()[0].turns[0].files == (NOTES,)


def test_the_same_prompt_with_another_file_is_another_version(start: Callable[[], Boards]) -> None:
    board = start().get(None)
    board.send("Read.", files=[NOTES])
    settle(board)
    board.undo()
    board.send("Read.", files=[replace(NOTES, text="other")])
    settle(board)
    assert len(board.columns()[0].turns[0].place.prompts) == 2


def test_results_go_to_one_column_which_goes_on(start: Callable[[], Boards]) -> None:
    board = start().get(None)
    board.send("Weather?")
    settle(board)
    first = board.columns()[0]
    with pytest.raises(BadRequest, match="answered already"):
        board.answer_calls(first.key, first.turns[0].id, ["21"])  # there are two calls
    board.answer_calls(first.key, first.turns[0].id, ["21", ""])
    settle(board)
    a, b = board.columns()
    assert [turn.answer.text for turn in a.turns] == ["", "21 and "] and len(b.turns) == 1
    sent = asked(board, "a")[-1]
    assert sent[1] == Message("assistant", "", calls=CALLS)
    assert sent[2:] == (Message("tool", "21", name="get_weather", call="a"), Message("tool", "", name="now", call="b"))
    with pytest.raises(BadRequest):
        board.answer_calls(a.key, a.turns[0].id, ["21", "again"])
    board.regenerate(a.key)  # the same results once more
    settle(board)
    assert asked(board, "a")[-1] == sent


def test_a_call_that_nobody_answered_is_not_sent(start: Callable[[], Boards]) -> None:
    board = start().get(None)
    for prompt in ("Weather?", "Never mind."):
        board.send(prompt)
        settle(board)
    assert [message.content for message in asked(board, "a")[-1]] == ["Never mind."]


# kept, and taken elsewhere


@pytest.fixture
def rich(start: Callable[[], Boards]) -> tuple[Boards, Board]:
    """A conversation with everything in it."""
    boards = start()
    board = boards.get(None)
    board.send("Look.", files=[NOTES, PHOTO])
    settle(board)
    first = board.columns()[0]
    board.answer_calls(first.key, first.turns[0].id, ["21", "noon"])
    settle(board)
    return boards, board


def untimed(board: Board) -> list[object]:
    """The turns without what differs between two that are the same."""
    return [
        (t.prompt, t.files, t.results, t.answer.text, t.answer.calls, t.answer.finish_reason, t.parent, t.place)
        for column in board.columns()
        for t in column.turns
    ]


def test_all_of_it_is_there_after_a_restart(rich: tuple[Boards, Board], start: Callable[[], Boards]) -> None:
    _, board = rich
    before, id = untimed(board), board.id
    boards = start()
    assert untimed(boards.get(id)) == before
    assert boards.store.blob(PHOTO.hash) == PICTURE.data
    assert boards.store._rows("SELECT count(*) FROM blobs", ()) == [(2,)]  # for four turns


def test_it_leaves_as_a_file_and_comes_back_equal(rich: tuple[Boards, Board]) -> None:
    boards, board = rich
    text = to_json(boards.kept(board.id, board.chat), {})
    again = boards.keep(board.id, *from_json(text))
    assert untimed(again) == untimed(board)
    assert to_json(boards.kept(again.id, again.chat), {}) == text
    assert text.count(b64encode(PICTURE.data).decode()) == 1


def test_it_can_be_read_elsewhere_too(rich: tuple[Boards, Board]) -> None:
    boards, board = rich
    kept = boards.kept(board.id, board.chat)
    words = to_markdown(kept, line)
    assert "Attached: notes.txt (2 lines), photo.png (4 x 4)." in words
    assert 'Wants to call `get_weather`:\n\n```json\n{"city": "Paris"}\n```' in words
    page = to_html(kept)
    assert f'src="data:image/png;base64,{b64encode(PICTURE.data).decode()}"' in page
    assert "hello\nworld" in page and "get_weather" in page and "img-src data:" in page


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda form: form["bodies"].clear(), "held is missing"),
        (lambda form: form["bodies"].update({PHOTO.hash: "!"}), "not in base64"),
        (lambda form: form["bodies"].update({PHOTO.hash: b64encode(b"<svg/>").decode()}), "held is missing"),
        (lambda form: form["turns"][0]["files"][1].update(media_type="image/svg+xml"), "no conversation of this app"),
        (lambda form: form["turns"][0]["files"][0].update(kind="image"), "is not what it says"),
        (lambda form: form["turns"][0]["files"][0].update(hash="../../etc"), "no conversation of this app"),
    ],
)
def test_a_hostile_file_is_refused(rich: tuple[Boards, Board], damage: Callable[[Any], object], why: str) -> None:
    boards, board = rich
    form = json.loads(to_json(boards.kept(board.id, board.chat), {}))
    damage(form)
    with pytest.raises(ForeignFile, match=why):
        from_json(json.dumps(form))


# as HTML, and over the wire


def test_every_text_of_files_and_calls_is_escaped() -> None:
    file = Attachment(EVIL, "text", 1, EVIL, (EVIL,), EVIL)
    answer = Snapshot(
        ModelId("a", "b"), "", Timing(0.0), finish_reason="tool_calls", calls=(ToolCall(EVIL, EVIL, EVIL),)
    )
    html = files_html([file, replace(PHOTO, name=EVIL)]) + calls_html(answer, 1)
    for part in (html, calls_html(replace(answer, finish_reason=None))):
        assert "<script" not in part and "http://evil/x onerror=alert(1)>" not in part.replace("&gt;", "")


def test_streamed_calls_arrive_as_they_grow() -> None:
    with FaultServer() as server:
        deltas = [piece(0, "a", "now", ""), piece(0, arguments='{"zone"'), piece(0, arguments=': "UTC"}')]
        server.once("good", streamed(*(event({"tool_calls": [one]}) for one in deltas), event({}, "tool_calls"), DONE))
        settings = Settings(api=ApiSettings(openai_base_url=server.url("good"), openai_key=None))
        with Engine(settings) as engine:
            params = SamplingParams(tools=TOOLS, tool_choice="now")
            snapshots = list(engine.ask(ModelId("openai", "m"), [Message("user", "hi")], params))
    grown = [snapshot.calls[0].arguments for snapshot in snapshots if snapshot.calls]
    assert list(dict.fromkeys(grown)) == ["", '{"zone"', '{"zone": "UTC"}']
    assert (snapshots[-1].finish_reason, snapshots[-1].error) == ("tool_calls", None)
    body = server.asked("good")[0].body
    assert [tool["function"]["name"] for tool in body["tools"]] == ["get_weather", "now"]
    assert body["tool_choice"] == {"type": "function", "function": {"name": "now"}}


def test_results_are_shown_in_place_of_a_prompt() -> None:
    from multimodel.conversation import Turn

    turn = Turn("now: noon", Snapshot(ModelId("a", "b"), "", Timing(0.0)), results=(ToolResult("now", "noon", "a"),))
    assert "Result of now" in question_html(turn) and "<pre>noon</pre>" in question_html(turn)
