"""A comparison: up to four columns, each a model with a conversation of its own, and one prompt for all.

The board belongs to the server. No column ever sees another's answers: what a model is sent is made by `conversation`
from that column's turns alone.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from threading import RLock

from .engine import Engine
from .errors import BadRequest
from .modifiers import forced
from .runs import Run
from .types import Message, ModelId, ModelSpec, PromptSize, SamplingParams, Snapshot

MAX_COLUMNS = 4
BOARDS = 200
"""How many boards the server keeps; the one unused for longest leaves first."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a column asks its model."""

    params: SamplingParams = SamplingParams()
    system: str = ""


@dataclass(frozen=True, slots=True)
class Turn:
    """One prompt and its answer."""

    prompt: str
    answer: Snapshot


@dataclass(frozen=True, slots=True)
class Column:
    """One model and its conversation. `key` is its identity: it survives moving and a change of model."""

    key: str
    model: ModelId
    turns: tuple[Turn, ...] = ()
    own: Options | None = None  # None: the shared options
    asked: str = ""  # the prompt being answered
    live: Snapshot | None = None  # its answer so far; None when nothing is being answered
    cursor: int = 0  # counts what changed in `live`


def conversation(system: str, turns: Sequence[Turn], prompt: str) -> list[Message]:
    """What a model is sent: the system prompt, the turns that were answered, the new prompt.

    A turn without an answer (it failed at once) is left out: two prompts in a row break many chat templates.
    """
    messages = [Message("system", system)] if system.strip() else []
    for turn in turns:
        if turn.answer.text:
            messages += [Message("user", turn.prompt), Message("assistant", turn.answer.text)]
    return [*messages, Message("user", prompt)]


class Board:
    """The columns of one visitor."""

    def __init__(self, engine: Engine, models: Sequence[ModelId], shared: Options = Options()) -> None:
        self.id = secrets.token_urlsafe(32)
        self.shared = shared
        self._engine = engine
        self._lock = RLock()  # between this visitor's events, which Gradio runs in threads
        self._columns = [Column(_key(), model) for model in models[:MAX_COLUMNS]]
        self._runs: dict[str, Run] = {}

    # what it shows

    def columns(self) -> tuple[Column, ...]:
        """The columns as they stand, with the answers that are on their way."""
        with self._lock:
            self._settle()
            return tuple(self._with_live(column) for column in self._columns)

    def active(self) -> bool:
        """Whether any column is still answering."""
        return any(column.live for column in self.columns())

    def spoken(self) -> frozenset[str]:
        """The columns whose running answer has begun to be visible."""
        with self._lock:
            return frozenset(key for key, run in self._runs.items() if run.newest.snapshot.text)

    def all_spoken(self) -> bool:
        """Whether every running answer has begun to be visible."""
        with self._lock:
            return len(self.spoken()) == len(self._runs)

    def options(self, column: Column) -> Options:
        """The options a column asks with."""
        return column.own or self.shared

    def watch(self, listener: Callable[[], object]) -> Callable[[], None]:
        """Call `listener`, from other threads, whenever a running answer changes; returns the function that ends it."""
        with self._lock:
            ends = [run.on_change(listener) for run in self._runs.values()]

        def unwatch() -> None:
            for end in ends:
                end()

        return unwatch

    # what a person does

    def send(self, prompt: str) -> bool:
        """Ask every column; nothing happens for an empty prompt. Raises BadRequest while answers are on their way."""
        with self._lock:
            if not prompt.strip():
                return False
            self._refuse_while_active()
            for column in self._columns:
                self._ask(column, prompt)
            return True

    def regenerate(self, key: str, *, anyway: bool = False) -> None:
        """Ask the last prompt of one column again; the other columns are not touched.

        `anyway`: its model is to be loaded even where the memory plan says that it does not fit.
        """
        with self._lock:
            self._settle()
            column = self._find(key)
            if key not in self._runs and column.turns:
                self._replace(replace(column, turns=column.turns[:-1]))
                self._ask(self._find(key), column.turns[-1].prompt, anyway=anyway)

    def stop(self, key: str | None = None) -> None:
        """Stop one column, or all; the text so far stays."""
        with self._lock:
            for name, run in self._runs.items():
                if key in (None, name):
                    run.stop()

    def clear(self, key: str | None = None) -> None:
        """Empty one conversation, or all; models and options stay."""
        with self._lock:
            self.stop(key)
            self._settle()
            self._columns = [replace(c, turns=()) if key in (None, c.key) else c for c in self._columns]

    def add(self, model: ModelId) -> None:
        """One more column, up to four; answers in the others go on."""
        with self._lock:
            if len(self._columns) < MAX_COLUMNS:
                self._columns.append(Column(_key(), model))

    def remove(self, key: str) -> None:
        """Take a column away; the last one stays."""
        with self._lock:
            if len(self._columns) > 1:
                self.stop(key)
                self._runs.pop(key, None)
                self._columns = [column for column in self._columns if column.key != key]

    def move(self, key: str, by: int) -> None:
        """Move a column `by` places to the right (negative: to the left), as far as there are places."""
        with self._lock:
            column = self._find(key)
            at = self._columns.index(column)
            self._columns.remove(column)
            self._columns.insert(max(0, at + by), column)

    def choose(self, key: str, model: ModelId) -> None:
        """Change the model of a column; it takes over the conversation so far."""
        with self._lock:
            self._replace(replace(self._find(key), model=model))

    def set_options(self, options: Options, key: str | None = None) -> None:
        """Set a column's own options, or without a key the shared ones."""
        with self._lock:
            if key is None:
                self.shared = options
            else:
                self._replace(replace(self._find(key), own=options))

    def share(self, key: str) -> None:
        """Let a column follow the shared options again."""
        with self._lock:
            self._replace(replace(self._find(key), own=None))

    def measure(self, prompt: str) -> list[tuple[Column, PromptSize]]:
        """The size of the next prompt for each column that can tell."""
        sizes = []
        for column in self.columns():
            messages = conversation(self.options(column).system, column.turns, prompt)
            if size := self._engine.measure(column.model, messages):
                sizes.append((column, size))
        return sizes

    # what stands behind it

    def _ask(self, column: Column, prompt: str, *, anyway: bool = False) -> None:
        options = self.options(column)
        messages = conversation(options.system, column.turns, prompt)
        self._replace(replace(column, asked=prompt))
        spec = ModelSpec(column.model)
        self._runs[column.key] = self._engine.start(forced(spec) if anyway else spec, messages, options.params)

    def _settle(self) -> None:
        """Move answers that have ended from their runs into the conversations."""
        for key, run in tuple(self._runs.items()):
            if not run.active:
                column = self._find(key)
                turn = Turn(column.asked, run.newest.snapshot)
                self._replace(replace(column, turns=(*column.turns, turn), asked=""))
                del self._runs[key]

    def _with_live(self, column: Column) -> Column:
        if not (run := self._runs.get(column.key)):
            return column
        newest = run.newest
        return replace(column, live=newest.snapshot, cursor=newest.cursor)

    def _refuse_while_active(self) -> None:
        self._settle()
        if self._runs:
            count = len(self._runs)
            who = "One column is" if count == 1 else f"{count} columns are"
            raise BadRequest(f"{who} still answering.", hint="Wait for the end, or press Stop all.")

    def _find(self, key: str) -> Column:
        return next(column for column in self._columns if column.key == key)

    def _replace(self, column: Column) -> None:
        self._columns = [column if c.key == column.key else c for c in self._columns]


def _key() -> str:
    return secrets.token_hex(4)


class Boards:
    """The boards of all visitors, found again by their ids."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = RLock()  # between the events of all visitors
        self._boards: OrderedDict[str, Board] = OrderedDict()

    def get(self, id: str | None) -> Board:
        """The board of that id; a new one for an id the server does not know."""
        with self._lock:
            if not (id and id in self._boards):
                return self._create()
            self._boards.move_to_end(id)
            return self._boards[id]

    def _create(self) -> Board:
        chat = self._engine.settings.chat
        params = SamplingParams(temperature=chat.temperature, max_tokens=chat.max_tokens)
        models = [ModelId.parse(text) for text in chat.columns]
        board = Board(self._engine, models, Options(params, chat.system_prompt))
        self._boards[board.id] = board
        if len(self._boards) > BOARDS:
            _, oldest = self._boards.popitem(last=False)
            oldest.stop()
        return board
