"""A board as the page shows it: values to HTML. Pure but for a cache; every text of a model or person is escaped here.

The page's script (assets/board.js) puts these pieces in place; it makes no HTML of its own from texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from html import escape
from typing import Any

from multimodel import blind
from multimodel.board import CONTINUED, MAX_COLUMNS, Board, Column, Turn
from multimodel.errors import MultimodelError, TooLarge
from multimodel.types import LoadOptions, ModelId, Snapshot, Timing

from . import markdown
from .announce import told
from .format import all_figures, backend_name, figures, short_name, spent_figure, stage_text, variations
from .parts import calls_html, files_html, question_html
from .voting import vote_view

RECENT = 6
"""Turns of a column that fill any screen: they are shown first when a conversation is opened."""


class Live:
    """A running answer as the page is told of it: first whole, then what has changed since it was told last.

    "asked", "wait" (while there is no text) and "foot" are HTML; "thoughts" is plain text, and before it whether it
    goes on with what there was; "keep" is how many of the finished "blocks" stay, the given ones follow, and "tail"
    follows them.
    """

    def __init__(self) -> None:
        self._stream = markdown.Stream()
        self._told: dict[str, str] = {}
        self._blocks: list[str] = []
        self._count = 0  # how many of them were told
        self._thoughts = ""

    def news(self, column: Column) -> dict[str, Any]:
        """What the page does not yet know; "asked" is told once. The column must be answering."""
        answer = column.live
        assert answer
        self._stream.update(answer.text)
        parts = {
            "wait": "" if answer.text or answer.calls else _waiting(answer),
            "tail": self._stream.tail,
            "foot": calls_html(answer) + _footer(answer),
        }
        news: dict[str, Any] = {name: html for name, html in parts.items() if self._told.get(name) != html}
        if not self._told:
            news["asked"] = _prompt(column.sent or Turn(column.asked, answer))
        self._told = parts
        return news | self._new_blocks() | self._new_thoughts(answer.reasoning)

    def rest(self, text: str) -> dict[str, Any]:
        """What the page does not yet show of the text, with which the answer has ended; {} where it shows all."""
        self._stream.update(text)
        if self._stream.tail == self._told.get("tail") and len(self._stream.blocks) == self._count:
            return {}
        self._told["tail"] = self._stream.tail
        return {"tail": self._stream.tail} | self._new_blocks()

    def finish(self, text: str) -> None:
        """The answer has ended with this text."""
        self._stream.finish(text)

    def _new_blocks(self) -> dict[str, Any]:
        keep = self._count if self._stream.blocks is self._blocks else 0
        self._blocks, self._count = self._stream.blocks, len(self._stream.blocks)
        new = self._blocks[keep:]
        return {"keep": keep, "blocks": new} if new or not keep else {}

    def _new_thoughts(self, text: str) -> dict[str, Any]:
        before, self._thoughts = self._thoughts, text
        more = text.startswith(before)
        return {"thoughts": [more, text[len(before) :] if more else text]} if text != before else {}


def board_view(board: Board, lives: dict[str, Live] | None = None, *, opening: bool = False) -> dict[str, Any]:
    """Everything the page needs to show a board. `lives` takes up what the page is told of running answers, by column.

    `opening`: only the newest turns; the earlier ones are "", and "partial" says that there are such.
    """
    columns, lives = blind.shown(board), {} if lives is None else lives
    shown = map(_newest, columns) if opening else columns
    return {
        **board_head(board, columns),
        "address": board.id,
        "partial": opening and any(len(column.turns) > RECENT for column in columns),
        "columns": [_column(board, column, lives) for column in shown],
    }


def board_head(board: Board, columns: Sequence[Column]) -> dict[str, Any]:
    """What the page shows of a board beside its columns."""
    return {
        "spent": ("", "") if board.hidden else spent_figure(board.spent()),
        "running": sum(column.live is not None for column in columns),
        "full": len(columns) >= MAX_COLUMNS,
        "empty": not any(column.turns or column.live for column in columns),
        "chat": board.chat,
        "revision": board.revision,
        "undo": board.can_undo(),
        "waiting": [[item.id, item.prompt, [file.name for file in item.files]] for item in board.queue.waiting],
        "paused": board.queue.paused,
        "problem": problem_text(board.problem()),
        "blind": board.blind,
        "vote": vote_view(board, columns),
    }


def warning(text: str) -> str:
    """A sentence in the colours of caution."""
    return f'<div class="mm-warn" role="status">{escape(text)}</div>'


def problem_text(problem: MultimodelError | None) -> str:
    """Why nothing is kept, in a line; empty when all is well."""
    return f"{problem} {problem.hint}" if problem else ""


def _newest(column: Column) -> Column:
    """The column with nothing in its earlier turns."""
    earlier = max(0, len(column.turns) - RECENT)
    empty = Turn("", Snapshot(column.model, "", Timing(0.0)))
    return replace(column, turns=(empty,) * earlier + column.turns[earlier:])


def _column(board: Board, column: Column, lives: dict[str, Live]) -> dict[str, Any]:
    live = None
    if column.live:
        lives[column.key] = Live()
        live = lives[column.key].news(column)
    turns = [column_turn(board, column, turn) if turn.prompt else "" for turn in column.turns]
    return {**column_head(board, column), "turns": turns, "live": live}


def column_head(board: Board, column: Column) -> dict[str, Any]:
    """What the page shows of a column beside its conversation."""
    return {
        "key": column.key,
        "id": str(column.model),
        "name": short_name(column.model),
        "backend": ", ".join([backend_name(column.model), *_loaded(board.spec(column).load, column)]),
        "own": column.own is not None,
        "running": column.live is not None,
        "told": told(column),
        "spent": ("", "") if board.hidden else spent_figure(board.spent(column.key)),
    }


def _loaded(load: LoadOptions, column: Column) -> list[str]:
    """How a column has its model loaded otherwise than usual, in words; of the context what there really is, once an
    answer has told."""
    found = _context(column, load) if load.context_length else None
    device = [] if load.device == "auto" else [f"on {load.device.upper()}"]
    return [*device, *variations(replace(load, context_length=found or load.context_length))]


def _context(column: Column, load: LoadOptions) -> int | None:
    """Tokens that its model had room for when it last answered with this context asked for."""
    for turn in reversed(column.turns):
        asked, sent = turn.asked.load, turn.answer.sent
        same = (asked.context_length, asked.rope_factor) == (load.context_length, load.rope_factor)
        if same and turn.answer.model == column.model and sent and sent.loaded:
            return sent.loaded.context_length
    return None


def column_turn(board: Board, column: Column, turn: Turn) -> str:
    """A finished turn as this column shows it."""
    return turn_html(turn, column.model, "" if board.hidden else board.votes.get(turn.id, ""))


@lru_cache(maxsize=4096)
def turn_html(turn: Turn, current: ModelId, vote: str = "") -> str:
    """A finished turn; the answer says its model where that is not the column's any more. `vote`: a verdict."""
    answer = turn.answer
    parts = [_prompt(turn, _prompt_tools(turn)), '<div class="mm-answer">']
    if answer.model != current:
        parts.append(f'<div class="mm-by">{escape(str(answer.model))}</div>')
    parts.append(_reasoning(answer.reasoning))
    parts.append(f'<div class="mm-md">{markdown.render(answer.text)}</div>')
    parts.append(calls_html(answer, turn.id))
    if answer.finish_reason in ENDINGS:
        parts.append(_ending(answer))
    parts.append(error_html(answer.error, same_model=answer.model == current))
    parts.append(_footer(answer, _vote(vote) + _answer_tools(turn)))
    return "".join(parts) + "</div>"


def _prompt(turn: Turn, tools: str = "") -> str:
    return f'{files_html(turn.files)}<div class="mm-asked">{tools}{question_html(turn)}</div>'


def _reasoning(text: str) -> str:
    if not text:
        return ""
    return f'<details class="mm-thoughts"><summary>Thoughts</summary><div>{escape(text)}</div></details>'


def _waiting(answer: Snapshot) -> str:
    """What an answer without text shows: its stage, a bar where progress is known, and lines that hold the place."""
    stage = answer.stage
    words = stage_text(stage) if stage else "Asking the model"
    bar = ""
    if stage and stage.fraction is not None:
        share = f"{100 * stage.fraction:.0f}"
        attributes = f'class="mm-bar" role="progressbar" aria-label="{escape(words)}" aria-valuenow="{share}"'
        bar = f'<div {attributes}><i style="width:{share}%"></i></div>'
    return f'<div class="mm-stage">{escape(words)}</div>{bar}<div class="mm-skeleton"><i></i><i></i></div>'


ENDINGS = {
    "incomplete": "The answer may be cut: the stream ended without a finish reason.",
    "length": "The length limit was reached. Raise Max tokens in the settings for a longer answer.",
    "content_filter": "The service ended this answer by its content filter.",
    "stopped": "Stopped.",
    "interrupted": "Interrupted: the app ended before the answer did.",
}


def _ending(answer: Snapshot) -> str:
    """How an answer ended that did not end by itself; the last one of a column can be gone on with."""
    more = ""
    if answer.text and answer.finish_reason in CONTINUED:
        more = ' <button type="button" class="mm-resume" data-act="resume">Continue</button>'
    words = _full(answer) or ENDINGS[answer.finish_reason or ""]
    return f'<div class="mm-note">{words}{more}</div>'


def _full(answer: Snapshot) -> str:
    """What helps an answer that its context has cut, which more Max tokens would not; empty of others, and where the
    context is not known."""
    loaded, usage = answer.sent and answer.sent.loaded, answer.usage
    if answer.finish_reason != "length" or not loaded or not usage or usage.total_tokens < loaded.context_length:
        return ""
    return (
        f"The context is full: prompt and answer take all of its {loaded.context_length:,} tokens. "
        "Begin a new chat, or raise Context length in the settings if the model goes further."
    )


def _versions(ids: tuple[int, ...], at: int, what: str) -> str:
    """Arrows between the versions of a prompt or an answer; empty where there is one."""
    if len(ids) < 2:
        return ""
    earlier = _step(ids, at - 1, "mm-i-before", f"Earlier version of this {what}")
    later = _step(ids, at + 1, "mm-i-after", f"Later version of this {what}")
    return f'<span class="mm-versions">{earlier}<span>{at + 1}/{len(ids)}</span>{later}</span>'


def _step(ids: tuple[int, ...], to: int, icon: str, title: str) -> str:
    there = f'data-turn="{ids[to]}"' if 0 <= to < len(ids) else "disabled"
    return f'<button type="button" class="mm-icon {icon}" data-act="walk" {there} title="{title}">{title}</button>'


def _prompt_tools(turn: Turn) -> str:
    if not turn.id:
        return ""
    versions = _versions(turn.place.prompts, turn.place.prompt, "prompt")
    title = "Edit this prompt"
    edit = f'<button type="button" class="mm-icon mm-i-edit" data-edit="{turn.id}" title="{title}">{title}</button>'
    return f'<div class="mm-prompt-tools">{versions}{"" if turn.results else edit}</div>'


VOTES = {"best": "Best", "tie": "Tie", "bad": "Bad", "1": "1st", "2": "2nd", "3": "3rd", "4": "4th"}


def _vote(verdict: str) -> str:
    return f'<span class="mm-vote mm-vote-{verdict}" title="Your vote">{VOTES[verdict]}</span>' if verdict else ""


MENU = (
    ("best", "Vote: best"),
    ("tie", "Vote: tie"),
    ("bad", "Vote: all bad"),
    ("regenerate", "Ask again here"),
    ("regenerate-all", "Ask again in all columns"),
    ("continue-all", "Continue all columns from this answer"),
    ("branch", "Branch into a new conversation"),
)
VIEWS = (
    ("prompt", "What the model saw"),
    ("tokens", "Token probabilities"),
    ("compare", "Compare with another answer"),
)
"""What assets/saw.js shows of an answer in a panel."""


def _answer_tools(turn: Turn) -> str:
    if not turn.id:
        return ""
    hidden = turn.answer.model.backend == blind.HIDDEN
    rows = "".join(
        f'<button type="button" data-{kind}="{name}" data-turn="{turn.id}">{words}</button>'
        for kind, menu in (("act", MENU), ("saw", VIEWS))
        for name, words in menu
        if not hidden or name in blind.ALLOWED
    )
    more = '<summary class="mm-icon mm-i-more" title="More to do with this answer">More</summary>'
    versions = _versions(turn.place.answers, turn.place.answer, "answer")
    return f'{versions}<details class="mm-menu">{more}<div>{rows}</div></details>'


def error_html(error: MultimodelError | None, *, same_model: bool = True) -> str:
    """What went wrong and what to do, with the buttons that do it."""
    if not error:
        return ""
    hint = f"<p>{escape(error.hint)}</p>" if error.hint else ""
    buttons = '<button type="button" data-act="regenerate">Ask again</button>'
    if isinstance(error, TooLarge) and same_model:
        why = "The machine may become slow, and the system may end this model or another program"
        buttons += f' <button type="button" data-act="anyway" title="{why}">Load anyway</button>'
    return f'<div class="mm-error" role="alert"><strong>{escape(str(error))}</strong>{hint}{buttons}</div>'


def _footer(answer: Snapshot, tools: str = "") -> str:
    notes = "".join(f'<div class="mm-note">{escape(note)}</div>' for note in answer.notes)
    shown = "".join(f'<span title="{escape(why)}">{escape(figure)}</span>' for figure, why in figures(answer))
    copy = ""
    if answer.done and answer.text:
        raw = escape(answer.text)
        copy = f'<button type="button" data-copy="answer">Copy</button><template class="mm-raw">{raw}</template>'
    line = f'<span class="mm-figure-line">{shown}</span>'
    more = _all_figures(answer) if answer.done else ""
    return f'{notes}<div class="mm-figures">{line}<span class="mm-answer-tools">{more}{copy}{tools}</span></div>'


def _all_figures(answer: Snapshot) -> str:
    """Everything known of an answer, for a column that has no room for it in a line."""
    rows = "".join(
        f'<dt title="{escape(why)}">{name}</dt><dd>{escape(figure)}</dd>' for name, figure, why in all_figures(answer)
    )
    head = '<summary class="mm-icon mm-i-figures" title="All figures of this answer">All figures</summary>'
    if not rows:
        return ""
    return f'<details class="mm-menu mm-figures-menu">{head}<div><dl class="mm-all-figures">{rows}</dl></div></details>'
