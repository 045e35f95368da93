"""A conversation as it is kept: the turns of all its columns, which never change, and the states of the board.

All turns form one tree. Asking the same prompt again, or an edited one, adds a turn beside the one it replaces; a
column shows the path that ends at its head. So nothing that was said is ever taken away, and undo is a step back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

from .attachment import Attachment
from .errors import InvalidParameter
from .fairlane import FairLane
from .types import LoadOptions, ModelId, SamplingParams, Snapshot, ToolResult, whole

MAX_COLUMNS = 4
TITLE = 60  # characters of the first prompt that make a title
LOADING = (
    *("dtype", "kv_type", "context_length", "device", "gpu_layers", "flash_attention"),
    *("rope_scaling", "rope_factor", "chat_template"),
)
"""What a column may say about how its model is loaded: all but what names a path or overrules the memory plan."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a column asks its model. Raises InvalidParameter for a way to load it that a page does not offer."""

    params: SamplingParams = SamplingParams()
    system: str = ""
    load: LoadOptions = LoadOptions()  # for local models: only fields of LOADING

    def __post_init__(self) -> None:
        object.__setattr__(self, "system", whole(self.system))
        if other := self.load.changed().difference(LOADING):  # a file of anybody may not name paths on this machine
            raise InvalidParameter(f"A column has no option {min(other)!r}.", hint=f"It has {', '.join(LOADING)}.")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a turn stands among those asked in its place: versions of the prompt, and answers to the same prompt.

    Each version of a prompt is named by the newest turn that asks it.
    """

    prompts: tuple[int, ...] = ()
    prompt: int = 0  # its index in `prompts`
    answers: tuple[int, ...] = ()
    answer: int = 0


@dataclass(frozen=True, slots=True)
class Turn:
    """One prompt and its answer."""

    prompt: str
    answer: Snapshot
    id: int = 0  # counts the turns of a conversation
    parent: int | None = None  # the turn before it
    column: str = ""  # the key of the column that asked
    at: float = 0.0  # seconds since 1970
    asked: Options = Options()
    place: Place = Place()
    files: tuple[Attachment, ...] = ()  # what went with the prompt
    results: tuple[ToolResult, ...] = ()  # of the calls of the turn before: what was really sent; `prompt` tells of it

    def __hash__(self) -> int:
        """Of what tells turns apart: the page asks for it, of every turn at every update, to find its HTML again."""
        return hash((self.id, self.prompt, self.answer.text))


@dataclass(frozen=True, slots=True)
class Lane:
    """What a board keeps of a column; `head` is the last turn that it shows."""

    key: str
    model: ModelId
    own: Options | None = None  # None: the shared options
    head: int | None = None


Blind = Literal["", "hidden", "shown"]
"""Whether names are hidden until the vote: not at all; now; or not any more, until the next prompt for all columns."""


@dataclass(frozen=True, slots=True)
class State:
    """A board between two actions of a person. Every action makes a new one with the next revision."""

    revision: int
    lanes: tuple[Lane, ...]
    shared: Options = Options()
    previous: int | None = None  # the revision that undo goes back to
    blind: Blind = ""

    def lane(self, key: str) -> Lane | None:
        """The lane of a column."""
        return next((lane for lane in self.lanes if lane.key == key), None)


@dataclass(frozen=True, slots=True)
class Conversation:
    """Everything that is kept of a conversation; the newest of the states, which are never none, is shown."""

    title: str
    created: float  # seconds since 1970
    states: tuple[State, ...]
    turns: tuple[Turn, ...]
    measured: tuple[FairLane, ...] = ()


@dataclass(frozen=True, slots=True)
class Entry:
    """A conversation in the list."""

    id: str
    title: str
    updated: float  # seconds since 1970
    pinned: bool = False
    excerpt: str = ""  # of what was searched for; the words found stand between MARKS
    tag: str = ""  # what it is about, by the person's word


MARKS = ("\x01", "\x02")


class Tree:
    """The turns of a conversation, and the paths through them."""

    def __init__(self, turns: Iterable[Turn] = ()) -> None:
        self._turns = {turn.id: turn for turn in turns}
        self._beside: dict[tuple[int | None, str], list[int]] = {}  # parent and column: the turns asked there
        for turn in self._turns.values():
            self._beside.setdefault((turn.parent, turn.column), []).append(turn.id)
        self._paths: dict[int, tuple[Turn, ...]] = {}

    def __getitem__(self, id: int) -> Turn:
        return self._turns[id]

    def __contains__(self, id: object) -> bool:
        return id in self._turns

    @property
    def turns(self) -> tuple[Turn, ...]:
        """All turns, oldest first."""
        return tuple(self._turns.values())

    @property
    def next(self) -> int:
        """The id of the next turn."""
        return max(self._turns, default=0) + 1

    def add(self, turn: Turn) -> None:
        """A new turn, or one whose answer has come."""
        if turn.id not in self._turns:
            self._beside.setdefault((turn.parent, turn.column), []).append(turn.id)
        self._turns[turn.id] = turn
        self._paths.clear()

    def path(self, head: int | None) -> tuple[Turn, ...]:
        """The turns from the first to this one, each knowing its place among its versions."""
        if head is not None and head not in self._paths:
            turns, at = [], self._turns.get(head)
            while at is not None:
                turns.append(at)
                at = None if at.parent is None else self._turns[at.parent]
            self._paths[head] = tuple(replace(turn, place=self._place(turn)) for turn in reversed(turns))
        return () if head is None else self._paths[head]

    def leaf(self, id: int, column: str) -> int:
        """The newest turn that a column has asked after this one."""
        while after := self._beside.get((id, column)):
            id = max(after)
        return id

    def _place(self, turn: Turn) -> Place:
        beside = sorted(self._beside[turn.parent, turn.column])
        newest = {_question(self._turns[id]): id for id in beside}  # in the order in which they were first asked
        mine = _question(turn)
        answers = tuple(id for id in beside if _question(self._turns[id]) == mine)
        return Place(tuple(newest.values()), list(newest).index(mine), answers, answers.index(turn.id))


def _question(turn: Turn) -> tuple[object, ...]:
    """What makes two turns ask the same."""
    return turn.prompt, tuple(file.hash for file in turn.files), turn.results


def same_question(one: Turn, other: Turn) -> bool:
    """Whether both turns ask the same, with the same files."""
    return _question(one) == _question(other)


def now() -> float:
    """Seconds since 1970."""
    return datetime.now(UTC).timestamp()


def title_of(prompt: str) -> str:
    """What a conversation is called until somebody renames it: the beginning of its first prompt.

    >>> title_of("  What is the\\nKV cache? ")
    'What is the KV cache?'
    >>> title_of("word " * 20)
    'word word word word word word word word word word word word…'
    """
    line = " ".join(prompt[: 20 * TITLE].split())
    if len(line) <= TITLE:
        return line or "Untitled"
    return line[: TITLE + 1].rsplit(" ", 1)[0][:TITLE].rstrip() + "…"


def cut(turns: Sequence[Turn], heads: Iterable[int | None]) -> tuple[Turn, ...]:
    """Of these turns, those on the paths to the heads, in their order."""
    parents = {turn.id: turn.parent for turn in turns}
    kept: set[int] = set()
    for head in heads:
        at = head
        while at is not None and at not in kept:
            kept.add(at)
            at = parents[at]
    return tuple(turn for turn in turns if turn.id in kept)
