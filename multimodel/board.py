"""A comparison: up to four columns, each a model with a conversation of its own, and one prompt for all.

The board belongs to the server. No column ever sees another's answers: what a model is sent is made by `conversation`
from the turns that column shows. Turns are only ever added; what a board shows of them is its state.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from random import SystemRandom
from threading import RLock, Thread
from typing import Literal, Protocol

from .attachment import Attachment, check
from .conversation import (
    MAX_COLUMNS,
    Blind,
    Conversation,
    Lane,
    Options,
    State,
    Tree,
    Turn,
    cut,
    now,
    same_question,
    title_of,
)
from .engine import Engine
from .errors import BadRequest, InvalidModelId, MultimodelError
from .fairlane import FairLane, FairUpdate
from .measuring import Ask, Measurement, lane_of
from .messages import conversation
from .modifiers import forced
from .prices import Expected, Spent, expected, total
from .registry import honoured
from .runs import Run
from .topics import topic_of
from .types import Message, ModelId, ModelSpec, Prompt, PromptSize, Snapshot, ToolResult, digest_of
from .votes import Ballot, Standpoint, Style, Verdict, Vote
from .waiting import Queue

__all__ = ["CONTINUED", "MAX_COLUMNS", "Board", "Column", "Options", "Turn", "conversation"]

UNDO = 100  # states that a board remembers
CONTINUED = frozenset({"interrupted", "stopped", "incomplete", "length", "error"})
"""Finish reasons of an answer that can be gone on with."""

GO_ON = "Go on exactly where your last answer broke off. Do not repeat anything of it."
ASKED_TO_GO_ON = "This service cannot continue a text: the model was sent its answer so far and asked to go on."


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
    sent: Turn | None = None  # what is being answered, with all that went with the prompt


@dataclass(frozen=True, slots=True)
class Asked:
    """What an answer was asked with."""

    turn: Turn
    spec: ModelSpec
    messages: tuple[Message, ...]
    exact: bool | None  # whether these are the messages that were sent; None: it was not written down


@dataclass(frozen=True, slots=True)
class Question:
    """What a person asks in one turn."""

    prompt: str
    files: tuple[Attachment, ...] = ()
    results: tuple[ToolResult, ...] = ()

    @classmethod
    def of(cls, turn: Turn) -> Question:
        """That of a turn."""
        return cls(turn.prompt, turn.files, turn.results)

    def messages(self, system: str, turns: Sequence[Turn]) -> list[Message]:
        """What a model is sent after these turns."""
        return conversation(system, turns, self.prompt, self.files, self.results)


class Keeper(Protocol):
    """What writes a board down."""

    def state(self, state: State) -> None:
        """The board after an action."""

    def asked(self, turn: Turn, run: Run, title: str) -> None:
        """A turn whose answer is being made."""

    def voted(self, vote: Vote) -> None:
        """A vote on answers; it replaces an earlier one on the same."""

    def waiting(self, queue: Queue) -> None:
        """The prompts that wait."""

    def measured(self, lane: FairLane) -> None:
        """A measurement as it stands, in place of what it was before."""

    def flush(self) -> None:
        """Write what is not yet written."""


class Board:
    """The columns of one conversation of a visitor."""

    def __init__(
        self,
        engine: Engine,
        models: Sequence[ModelId] = (),
        shared: Options = Options(),
        *,
        id: str = "",
        keeper: Keeper | None = None,
        kept: Conversation | None = None,
        votes: Iterable[Vote] = (),
        queue: Queue | None = None,
    ) -> None:
        """`kept`: what was written down of it, in place of `models` and `shared`; `votes` too, oldest first, and the
        prompts of the `queue`, which go on only when a person says so."""
        self.id = id or secrets.token_urlsafe(32)
        self._engine = engine
        self._keeper = keeper
        self._lock = RLock()  # between this visitor's events, which Gradio runs in threads
        lanes = tuple(Lane(_key(), model) for model in models[:MAX_COLUMNS])
        states = kept.states if kept else (State(0, lanes, shared),)
        self._states = {state.revision: state for state in states}
        self._state = states[-1]
        self._tree = Tree(kept.turns if kept else ())
        self._created = kept.created if kept else now()
        self._measured = {lane.number: lane for lane in (kept.measured if kept else ())}
        self._measurement: Measurement | None = None
        self._runs: dict[int, Run] = {}  # by the ids of the turns they answer
        self._spent: dict[str | None, Spent] = {}  # by columns, as far as it was asked for since an answer ended
        self._queue = replace(queue or Queue(), paused=bool(queue))
        self._watchers: dict[Callable[[], object], list[Callable[[], None]]] = {}  # with what ends their watching
        self.votes: dict[int, str] = {}  # what votes say below the answers, by turns; see Vote.marks
        self._votes: dict[frozenset[int], Vote] = {}
        for vote in votes:
            self._mark(vote)

    # what it shows

    @property
    def shared(self) -> Options:
        """The options of columns that have none of their own."""
        return self._state.shared

    @property
    def revision(self) -> int:
        """Counts the actions of people."""
        return self._state.revision

    @property
    def chat(self) -> str:
        """The name of its conversation among the visitor's."""
        return self.id.partition(".")[2]

    def problem(self) -> MultimodelError | None:
        """Why what happens here is not kept; None when it is."""
        return self._engine.store.problem if self._keeper else None

    def flush(self) -> None:
        """Have everything so far written down; `problem` says where that does not work."""
        if self._keeper:
            self._keeper.flush()

    @property
    def empty(self) -> bool:
        """Whether nothing was ever asked here."""
        return not self._tree.turns

    def columns(self) -> tuple[Column, ...]:
        """The columns as they stand, with the answers that are on their way."""
        with self._lock:
            self._settle()
            return tuple(map(self._column, self._state.lanes))

    def active(self) -> bool:
        """Whether any column is still answering."""
        return any(column.live for column in self.columns())

    def spoken(self) -> frozenset[str]:
        """The columns whose running answer has begun to be visible."""
        with self._lock:
            spoken = {id for id, run in self._runs.items() if run.newest.snapshot.text}
            return frozenset(lane.key for lane in self._state.lanes if lane.head in spoken)

    def all_spoken(self) -> bool:
        """Whether every running answer has begun to be visible."""
        with self._lock:
            return len(self.spoken()) == len(self._runs)

    def options(self, column: Column) -> Options:
        """The options a column asks with."""
        return column.own or self.shared

    def can_undo(self) -> bool:
        """Whether there is a step to take back."""
        return self._state.previous in self._states

    def moved_on(self, seen: int | None) -> bool:
        """Whether any conversation has gone on since the revision that a page shows."""
        return any(self._seen_head(lane, seen) != lane.head for lane in self._state.lanes)

    def kept(self) -> Conversation:
        """Everything there is, as it can be written down; answers on their way as far as they have come."""
        with self._lock:
            self._settle()
            turns = tuple(self._settled(turn) for turn in self._tree.turns)
            return Conversation(self._title(), self._created, (self._state,), turns, tuple(self._measured.values()))

    def spec(self, column: Column) -> ModelSpec:
        """The model of a column and how it is loaded."""
        return self._spec(column.model, self.options(column))

    def _spec(self, model: ModelId, options: Options) -> ModelSpec:
        spec = ModelSpec(model, options.load)
        try:
            return honoured(spec, self._engine.settings)
        except InvalidModelId:  # the answer will say so
            return spec

    def watch(self, listener: Callable[[], object]) -> Callable[[], None]:
        """Call `listener`, from other threads, whenever an answer changes, also of those that are begun
        later; returns the function that ends it."""
        with self._lock:
            ends = self._watchers[listener] = [run.on_change(listener) for run in self._runs.values()]
            ends += [self._measurement.on_change(listener)] if self._measurement else []

        def unwatch() -> None:
            with self._lock:
                self._watchers.pop(listener, None)
            for end in ends:
                end()

        return unwatch

    # what a person does with a prompt

    def send(self, prompt: str, *, seen: int | None = None, files: Sequence[Attachment] = ()) -> bool:
        """Ask every column, or while answers are on their way put the prompt into the queue; whether it was not empty.
        Raises BadRequest where too many wait.

        `seen`: the revision that the person saw. What another page has asked since then stays, as another version.
        `files`: what goes with it, also while it waits; a column that takes no pictures answers with why.
        """
        with self._lock:
            if not prompt.strip():
                return False
            self._settle()
            check(files)
            if self._runs:
                first = not self._queue
                self._keep_queue(self._queue.add(prompt, files))
                for run in self._runs.values() if first else ():
                    self._go_on_after(run)
            else:
                lanes = self._anew()
                question = Question(prompt, tuple(files))
                self._step((self._ask(lane, question, self._seen_head(lane, seen)) for lane in lanes), anew=True)
            return True

    def answer_calls(self, key: str, turn: int, results: Sequence[str]) -> None:
        """Give a column the results of the calls that its last answer ended with. Raises BadRequest where it has none.

        An empty result is one too: many functions return nothing.
        """
        with self._lock:
            self._settle()
            lane, found = self._lane(key), self._shown(key, turn)
            if not found or lane.head != turn or len(results) != len(found.answer.calls) or not results:
                raise BadRequest("This call is answered already, or gone.", hint="Look at the conversation again.")
            told = tuple(
                ToolResult(call.name, text, call.id) for call, text in zip(found.answer.calls, results, strict=True)
            )
            words = "\n\n".join(f"{result.name}: {result.content}" for result in told)
            asked = self._ask(lane, Question(words, results=told), turn)
            self._step(asked if other is lane else other for other in self._state.lanes)

    # prompts that wait

    @property
    def queue(self) -> Queue:
        """The prompts that wait until all columns have answered."""
        return self._queue

    def requeue(self, change: Callable[[Queue], Queue]) -> None:
        """Change what waits: `lambda queue: queue.remove(3)`."""
        with self._lock:
            self._keep_queue(change(self._queue))

    def go_on(self) -> None:
        """Send what waits after all: at once, or when the running answers have ended."""
        with self._lock:
            self._keep_queue(replace(self._queue, paused=False))
            self._settle()

    def _keep_queue(self, queue: Queue) -> None:
        if queue.waiting != self._queue.waiting and self._keeper:
            self._keeper.waiting(queue)
        self._queue = queue

    def _pause(self) -> None:
        self._queue = replace(self._queue, paused=bool(self._queue))

    def _advance(self, *, just_ended: bool) -> None:
        """Send what waits next, now that nothing is being answered; not where every answer before it failed."""
        heads = [self._tree[lane.head] for lane in self._state.lanes if lane.head is not None]
        if just_ended and all(turn.answer.error for turn in heads):
            self._pause()
        if not self._queue or self._queue.paused or self._engine.closed:
            return
        first = self._queue.waiting[0]
        self._keep_queue(self._queue.remove(first.id))
        self._step(
            (self._ask(lane, Question(first.prompt, first.files), lane.head) for lane in self._anew()), anew=True
        )

    def _go_on_after(self, run: Run) -> None:
        """See to it that the queue goes on when this run has ended, whether a page is looking or not."""

        def look() -> None:  # from the thread of the run, which must not wait for the lock of the board
            if not run.active:
                Thread(target=self.active, name="queue", daemon=True).start()

        run.on_change(look)
        look()  # it may have ended just now

    def regenerate(self, key: str, turn: int | None = None, *, everywhere: bool = False, anyway: bool = False) -> None:
        """Ask a prompt of one column again, the last one where `turn` is None; what was answered stays as a version.

        `everywhere`: in every column that was asked it at the same place. `anyway`: the model is to be loaded even
        where the memory plan says that it does not fit.
        """
        with self._lock:
            self._settle()
            if found := self._shown(key, turn):
                self._again(key, found, found.prompt, everywhere, anyway)

    def edit(self, key: str, turn: int, prompt: str, *, everywhere: bool = False) -> None:
        """Ask another prompt in the place of one; the old one stays as a version. `everywhere` as in `regenerate`."""
        with self._lock:
            self._settle()
            if prompt.strip() and (found := self._shown(key, turn)) and not found.results:
                self._again(key, found, prompt, everywhere)

    def resume(self, key: str) -> None:
        """Go on with the last answer of a column, which was cut short; what there was stays as a version."""
        with self._lock:
            self._settle()
            lane = self._lane(key)
            if lane.head is None or lane.head in self._runs:
                return
            last = self._tree[lane.head]
            if last.answer.finish_reason in CONTINUED and last.answer.text:
                self._step(self._resumed(other, last) if other is lane else other for other in self._state.lanes)

    def stop(self, key: str | None = None) -> None:
        """Stop one column, or all; the text so far stays. After a stop of all, what waits is sent only by `go_on`."""
        with self._lock:
            if key is None:
                self._pause()
            for lane in self._state.lanes:
                if key in (None, lane.key) and lane.head in self._runs:
                    self._runs[lane.head].stop()

    # what a person does with what was said

    def walk(self, key: str, turn: int) -> None:
        """Show another version in a column, and what followed it."""
        with self._lock:
            self._settle()
            if turn in self._tree and self._lane(key).head not in self._runs:
                self._change(key, head=self._tree.leaf(turn, key))

    def continue_all(self, key: str, turn: int) -> None:
        """Let every column go on from this answer of one of them. Raises BadRequest while answers are on their way."""
        with self._lock:
            self._refuse_while_active()
            if self._shown(key, turn):
                self._step(replace(lane, head=turn) for lane in self._state.lanes)

    def undo(self) -> None:
        """Take back the last step, settings left alone; answers that are then not shown any more are stopped."""
        with self._lock:
            self._settle()
            self._pause()
            if before := self._states.get(-1 if self._state.previous is None else self._state.previous):
                own = {lane.key: lane.own for lane in self._state.lanes}
                lanes = tuple(replace(lane, own=own.get(lane.key, lane.own)) for lane in before.lanes)
                blind = self._blind_before(before)
                self._commit(replace(before, revision=self.revision + 1, lanes=lanes, shared=self.shared, blind=blind))

    def branch(self, key: str, turn: int) -> Conversation:
        """The conversation up to this turn, and in the other columns as far, as one of its own. Raises BadRequest."""
        with self._lock:
            self._settle()
            if turn not in self._tree:
                raise BadRequest("That answer is not here any more.", hint="Load the page again.")
            depth = len(self._tree.path(turn))
            heads = {lane.key: [t.id for t in self._path(lane)[:depth]] for lane in self._state.lanes}
            heads[key] = [turn]
            lanes = tuple(replace(lane, head=([None, *heads[lane.key]])[-1]) for lane in self._state.lanes)
            turns = tuple(self._settled(t) for t in cut(self._tree.turns, (lane.head for lane in lanes)))
            ids = {t.id for t in turns}
            measured = tuple(lane for lane in self._measured.values() if lane.turns <= ids)
            return Conversation(self._title(), now(), (State(1, lanes, self.shared),), turns, measured)

    def clear(self, key: str | None = None) -> None:
        """Empty one conversation, or all; models and options stay."""
        with self._lock:
            self._settle()
            self._step(replace(lane, head=None) if key in (None, lane.key) else lane for lane in self._state.lanes)

    # votes

    @property
    def blind(self) -> Blind:
        """Whether names are hidden until the vote."""
        return self._state.blind

    @property
    def hidden(self) -> bool:
        """Whether names are hidden now."""
        return self._state.blind == "hidden"

    def set_blind(self, on: bool) -> None:
        """Hide the names until the vote, or never. What was said before can be recognised: it stays as it is, and
        names are hidden from the next prompt on. Not a step that undo takes back."""
        with self._lock:
            self._settle()
            fresh = all(lane.head is None for lane in self._state.lanes)
            self._commit(replace(self._state, revision=self.revision + 1, blind="shown" if on else ""))
            if on and fresh:
                lanes = self._anew()
                self._commit(replace(self._state, revision=self.revision + 1, lanes=lanes, blind="hidden"))

    def reveal(self) -> None:
        """Show the names without a vote, until the next prompt."""
        with self._lock:
            if self.hidden:
                self._commit(replace(self._state, revision=self.revision + 1, blind="shown"))

    def row(self) -> tuple[Standpoint, ...]:
        """The newest prompt's answers, one a column, left to right; empty where fewer than two columns were asked."""
        with self._lock:
            self._settle()
            row = self._newest()
            vote = self._vote_on(row)
            places = dict(zip(vote.turns, vote.ballot.places(), strict=True)) if vote else {}
            return tuple(
                Standpoint(lane.key, turn.id, self._stands(turn), places.get(turn.id, 0)) for lane, turn in row
            )

    def newest_vote(self) -> Ballot | None:
        """The vote on the newest row; None where there is none."""
        with self._lock:
            vote = self._vote_on(self._newest())
            return vote.ballot if vote else None

    def decide(self, verdict: Verdict, places: Mapping[str, int] = {}, *, stop: bool = False) -> None:
        """Vote on the newest row, finished or not, and show the names. `places`: of the columns, where it is "ranked"
        or "best"; those left out are behind. `stop`: end answers that still run. "none" takes the vote back.

        Raises BadRequest where a column that got a place has failed or said nothing, or fewer than two have answered.
        """
        with self._lock:
            self._settle()
            row = self._newest()
            if verdict == "none":
                self._take_back(row)
                return
            for lane, turn in row:
                if places.get(lane.key):
                    self._refuse_silent(turn)
            row = [(lane, turn) for lane, turn in row if _votable(turn)]
            self._cast([turn for _, turn in row], verdict, {turn.id: places.get(lane.key, 0) for lane, turn in row})
            if stop:
                self.stop()
            self.reveal()

    def vote(self, key: str, turn: int, verdict: Verdict) -> None:
        """Say that this answer is the best of those to the same prompt, or that they tie, or are all bad.

        Raises BadRequest where it failed, or no other column has answered.
        """
        with self._lock:
            self._settle()
            if chosen := self._shown(key, turn):
                self._refuse_silent(chosen)
                row = [t for lane, t in self._asked_beside(chosen) if _votable(t) and lane.head not in self._runs]
                self._cast(row, verdict, {turn: 1})

    def _cast(self, answers: Iterable[Turn], verdict: Verdict, places: Mapping[int, int]) -> None:
        """`places`: of turns, where the verdict is "best" or "ranked"."""
        row = sorted(answers, key=lambda turn: turn.id)
        if len(row) < 2:
            raise BadRequest(
                "No other column has answered this prompt.", hint="Add a column, or ask all columns, or wait for them."
            )
        ballot = Ballot(
            models=tuple(str(t.answer.model) for t in row),
            verdict=verdict,
            ranks=tuple(places.get(t.id, 0) for t in row) if verdict in ("best", "ranked") else (),
            styles=tuple(Style.of(t.answer.text) for t in row),
            blind=self.hidden,
        )
        turns, prompt = tuple(t.id for t in row), row[0].prompt
        beside = self._asked_beside(row[0])
        if (before := self._vote_on(beside)) and set(before.turns) != set(turns):
            self._take_back(beside)  # it was cast when other answers had come
        self._keep(Vote(turns, ballot, self.chat, now(), topic_of(prompt), prompt))

    def _take_back(self, row: Sequence[tuple[Lane, Turn]]) -> None:
        if vote := self._vote_on(row):
            self._keep(replace(vote, ballot=replace(vote.ballot, verdict="none"), at=now()))

    def _vote_on(self, row: Sequence[tuple[Lane, Turn]]) -> Vote | None:
        ids = {turn.id for _, turn in row}
        return next((v for v in self._votes.values() if ids.issuperset(v.turns) and v.ballot.verdict != "none"), None)

    def _keep(self, vote: Vote) -> None:
        self._mark(vote)
        if self._keeper:
            self._keeper.voted(vote)

    def _mark(self, vote: Vote) -> None:
        self._votes[frozenset(vote.turns)] = vote
        for id in vote.turns:
            self.votes.pop(id, None)
        self.votes |= vote.marks()

    def _newest(self) -> list[tuple[Lane, Turn]]:
        """The row of the prompt that was asked last, where more than one column was asked it."""
        heads = [lane.head for lane in self._state.lanes if lane.head is not None]
        row = self._asked_beside(self._tree[max(heads)]) if heads else []
        return row if len(row) > 1 else []

    def _asked_beside(self, turn: Turn) -> list[tuple[Lane, Turn]]:
        """The turns of all columns that ask the same prompt at the same place, answers on their way as they are."""
        depth = len(self._tree.path(turn.id))
        paths = [(lane, self._path(lane)) for lane in self._state.lanes]
        found = [(lane, path[depth - 1]) for lane, path in paths if len(path) >= depth]
        return [(lane, self._now(t)) for lane, t in found if same_question(t, turn)]

    def _now(self, turn: Turn) -> Turn:
        return replace(turn, answer=self._runs[turn.id].newest.snapshot) if turn.id in self._runs else turn

    def _stands(self, turn: Turn) -> Literal["ready", "running", "silent", "failed"]:
        if turn.id in self._runs:
            return "running" if _votable(turn) else "silent"
        return "ready" if _votable(turn) else "failed"

    def _refuse_silent(self, turn: Turn) -> None:
        if self._stands(turn) == "silent":
            raise BadRequest(
                "This answer has not begun: there is nothing to vote on.", hint="Wait for its first words."
            )
        if not _votable(turn):
            raise BadRequest("This answer failed: there is nothing to vote on.", hint="Ask again first.")

    def _blind_before(self, before: State) -> Blind:
        """What undo makes of the names: hidden only where they were hidden all along, or nothing can be recognised."""
        fresh = all(lane.head is None for lane in before.lanes)
        if self.blind and (fresh or before.blind == self.blind == "hidden"):
            return "hidden"
        return "shown" if self.blind else ""

    def _anew(self) -> tuple[Lane, ...]:
        """The columns as a new row of answers finds them: where names are hidden, in an order that nobody knows."""
        lanes = self._state.lanes
        return tuple(SystemRandom().sample(lanes, len(lanes))) if self.blind else lanes

    # what a person does with the columns

    def add(self, model: ModelId) -> None:
        """One more column, up to four; answers in the others go on."""
        with self._lock:
            if len(self._state.lanes) < MAX_COLUMNS:
                self._step((*self._state.lanes, Lane(_key(), model)))

    def remove(self, key: str) -> None:
        """Take a column away; the last one stays."""
        with self._lock:
            if len(self._state.lanes) > 1:
                self._settle()
                self._step(lane for lane in self._state.lanes if lane.key != key)

    def move(self, key: str, by: int) -> None:
        """Move a column `by` places to the right (negative: to the left), as far as there are places."""
        with self._lock:
            lanes = list(self._state.lanes)
            lane = self._lane(key)
            at = lanes.index(lane)
            lanes.remove(lane)
            lanes.insert(max(0, at + by), lane)
            self._step(lanes)

    def choose(self, key: str, model: ModelId) -> None:
        """Change the model of a column; it takes over the conversation so far."""
        with self._lock:
            self._change(key, model=model)

    def arrange(self, columns: Sequence[tuple[ModelId, Options | None]], shared: Options) -> None:
        """Show these models with these options of their own, None for the shared ones. A column that is there already
        keeps its conversation; undo brings the columns back that were, not the settings. Raises BadRequest while
        answers are on their way.
        """
        with self._lock:
            self._refuse_while_active()
            before: list[Lane | None] = [*self._state.lanes, *[None] * MAX_COLUMNS]
            lanes = tuple(
                replace(lane, model=model, own=own) if lane else Lane(_key(), model, own)
                for lane, (model, own) in zip(before, columns[:MAX_COLUMNS], strict=False)
            )
            new = replace(self._state, revision=self.revision + 1, lanes=lanes, shared=shared, previous=self.revision)
            self._commit(new)

    def set_options(self, options: Options, key: str | None = None) -> None:
        """Set a column's own options, or without a key the shared ones. Not a step that undo takes back."""
        with self._lock:
            state = self._state
            if key is None:
                self._commit(replace(state, revision=state.revision + 1, shared=options))
            else:
                self._set_own(key, options)

    def share(self, key: str) -> None:
        """Let a column follow the shared options again."""
        with self._lock:
            self._set_own(key, None)

    def asked(self, turn: int) -> Asked | None:
        """What the answer of a turn was asked with; None where there is no such turn, or it is being answered."""
        with self._lock:
            self._settle()
            if turn not in self._tree or turn in self._runs:
                return None
            found = self._tree.path(turn)[-1]
            spec = self._spec(found.answer.model, found.asked)
            return Asked(found, spec, *_messages(found, self._tree.path(found.parent)))

    def versions(self, turn: int) -> tuple[tuple[Lane, Turn], ...]:
        """Every answer to the prompt of a turn at its place, and the columns: those shown, and earlier versions."""
        with self._lock:
            self._settle()
            mine = self._tree[turn]
            depth = len(self._tree.path(turn))
            found = [t for t in self._tree.turns if same_question(t, mine) and t.id not in self._runs]
            lanes = {lane.key: lane for lane in self._state.lanes}
            same = [t for t in found if t.column in lanes and t.answer.text and len(self._tree.path(t.id)) == depth]
            return tuple((lanes[t.column], t) for t in same)

    def inspect(self, asked: Asked, *, load: bool = False) -> Prompt | None:
        """What a local model read, as it reads it now; see `Engine.inspect`."""
        return self._engine.inspect(asked.spec, asked.messages, asked.turn.asked.params, load=load)

    def measure(self, prompt: str, files: Sequence[Attachment] = ()) -> list[tuple[Column, PromptSize]]:
        """The size of the next prompt for each column that can tell."""
        sizes = []
        for column in self.columns():
            messages = conversation(self.options(column).system, column.turns, prompt, files)
            if size := self._engine.measure(self.spec(column), messages):
                sizes.append((column, size))
        return sizes

    # each model alone

    def measure_alone(self, repeats: int, *, cached: bool = False, cold: bool = True) -> None:
        """Ask the last prompt of every column again, one column after another, beside what they answered.

        `cached`: with what a cache holds of the prompt, as usual. `cold`: each model is unloaded first, unless somebody
        else uses it. Raises BadRequest while anything is on its way or nothing was asked, InvalidParameter.
        """
        with self._lock:
            self._refuse_while_active()
            if self.hidden:
                raise BadRequest("Figures would tell the models apart.", hint="Vote first, or press Show names.")
            if self.measuring():
                raise BadRequest("Models are being measured already.", hint="Wait for the end, or stop it.")
            asks = self._asks()
            prompt = self._tree[asks[0].turn].prompt if asks else ""
            lane = lane_of(asks, max(self._measured, default=0) + 1, now(), prompt, repeats, cached)
            self._measurement = self._engine.measuring.start(lane, asks, cold=cold, tell=self._take_in)

    def measuring(self) -> bool:
        """Whether models are being measured."""
        return bool(self._measurement and self._measurement.active)

    def stop_measuring(self) -> None:
        """End it; what was measured stays."""
        if self._measurement:
            self._measurement.stop()

    def fair(self) -> FairUpdate | None:
        """The newest measurement of what the columns show; None while names are hidden."""
        with self._lock:
            if self.hidden:
                return None
            if self._measurement and self._measurement.active:
                return self._measurement.newest
            shown = {turn.id for lane in self._state.lanes for turn in self._path(lane)}
            lanes = [lane for lane in self._measured.values() if lane.turns <= shown]
            return FairUpdate(lanes[-1]) if lanes else None

    def _asks(self) -> list[Ask]:
        """What the columns were asked last, as it was asked, where it was answered."""
        found = []
        for lane in self._state.lanes:
            turn = self._tree[lane.head] if lane.head is not None else None
            if turn and turn.answer.text and not turn.answer.error:
                messages = conversation(
                    turn.asked.system, self._tree.path(turn.parent), turn.prompt, turn.files, turn.results
                )
                spec = self._spec(turn.answer.model, turn.asked)
                found.append(Ask(lane.key, turn.id, spec, tuple(messages), turn.asked.params, turn.answer))
        return found

    def _take_in(self, lane: FairLane) -> None:
        self._measured[lane.number] = lane
        self._spent.clear()
        if self._keeper:
            self._keeper.measured(lane)

    def spent(self, key: str | None = None) -> Spent:
        """What the answers cost that have ended, of a column or of all, earlier versions included."""
        with self._lock:
            self._settle()
            if key not in self._spent:
                answers = [t.answer.cost for t in self._tree.turns if key in (None, t.column)]
                measured = [cost for lane in self._measured.values() for cost in lane.costs(key)]
                self._spent[key] = total([*answers, *measured])
            return self._spent[key]

    def expected(self, prompt: str) -> list[tuple[Column, Expected]]:
        """What the next prompt will cost in each column where somebody is paid."""
        found = []
        for column in self.columns():
            options = self.options(column)
            messages = conversation(options.system, column.turns, prompt)
            if price := self._engine.prices.of(column.model):
                found.append((column, expected(price, messages, options.params.max_tokens)))
        return found

    # asking

    def _again(self, key: str, found: Turn, prompt: str, everywhere: bool, anyway: bool = False) -> None:
        """Ask in the place of a turn, where nothing is being answered."""
        depth = len(self._tree.path(found.id))
        places = {key: found}
        if everywhere:
            for lane in self._state.lanes:
                path = self._path(lane)
                if len(path) >= depth and same_question(path[depth - 1], found):
                    places.setdefault(lane.key, path[depth - 1])
        lanes = (
            self._ask(lane, replace(Question.of(found), prompt=prompt), places[lane.key].parent, anyway=anyway)
            if lane.key in places and lane.head not in self._runs
            else lane
            for lane in (self._anew() if everywhere else self._state.lanes)
        )
        self._step(lanes, anew=everywhere)

    def _ask(self, lane: Lane, question: Question, parent: int | None, *, anyway: bool = False) -> Lane:
        options = lane.own or self.shared
        messages = question.messages(options.system, self._tree.path(parent))
        spec = self._spec(lane.model, options)
        run = self._engine.start(forced(spec) if anyway else spec, messages, options.params)
        return self._asked(lane, question, parent, options, run)

    def _resumed(self, lane: Lane, last: Turn) -> Lane:
        """Ask for the rest of an answer: of the text itself where the backend can, else in words."""
        options, before = lane.own or self.shared, replace(last.answer, error=None)
        messages = Question.of(last).messages(options.system, self._tree.path(last.parent))
        messages.append(Message("assistant", before.text))
        spec = self._spec(lane.model, options)
        capabilities = self._engine.capabilities(spec)
        if not (capabilities and capabilities.prefill):
            messages.append(Message("user", GO_ON))
            before = replace(before, notes=(*before.notes, ASKED_TO_GO_ON))
        run = self._engine.start(spec, messages, options.params, before=before)
        return self._asked(lane, Question.of(last), last.parent, options, run)

    def _asked(self, lane: Lane, question: Question, parent: int | None, options: Options, run: Run) -> Lane:
        turn = Turn(question.prompt, run.newest.snapshot, self._tree.next, parent, lane.key, now(), options)
        turn = replace(turn, files=question.files, results=question.results)
        self._tree.add(turn)
        self._runs[turn.id] = run
        for listener, ends in self._watchers.items():
            ends.append(run.on_change(listener))
            with suppress(RuntimeError):  # the page's loop may have ended, as in Run
                listener()  # its first events may be over
        if self._queue:
            self._go_on_after(run)
        if self._keeper:
            self._keeper.asked(turn, run, self._title())
        return replace(lane, head=turn.id)

    def _refuse_while_active(self) -> None:
        self._settle()
        if self._runs:
            count = len(self._runs)
            who = "One column is" if count == 1 else f"{count} columns are"
            raise BadRequest(f"{who} still answering.", hint="Wait for the end, or press Stop all.")

    def _settle(self) -> None:
        """Take answers that have ended from their runs into the tree; after the last of them, what waits is sent."""
        ended = [id for id, run in self._runs.items() if not run.active]
        for id in ended:
            self._spent.clear()
            self._tree.add(replace(self._tree[id], answer=self._runs.pop(id).newest.snapshot))
        if not self._runs:
            self._advance(just_ended=bool(ended))

    # states

    def _step(self, lanes: Iterable[Lane], *, anew: bool = False) -> None:
        """A change of the columns that undo can take back. `anew`: all begin a new row of answers."""
        new = tuple(lanes)
        if new != self._state.lanes:
            blind: Blind = "hidden" if anew and self.blind else self.blind
            self._commit(State(self.revision + 1, new, self.shared, previous=self.revision, blind=blind))

    def _change(self, key: str, **fields: object) -> None:
        new = replace(self._lane(key), **fields)  # type: ignore[arg-type]
        self._step(new if lane.key == key else lane for lane in self._state.lanes)

    def _set_own(self, key: str, own: Options | None) -> None:
        lanes = tuple(replace(lane, own=own) if lane.key == key else lane for lane in self._state.lanes)
        self._commit(replace(self._state, revision=self.revision + 1, lanes=lanes))

    def _commit(self, state: State) -> None:
        self._state = self._states[state.revision] = state
        self._states.pop(state.revision - UNDO, None)
        if self._keeper:
            self._keeper.state(state)
        shown = {lane.head for lane in state.lanes}
        for id, run in self._runs.items():
            if id not in shown:
                run.stop()

    def _seen_head(self, lane: Lane, seen: int | None) -> int | None:
        """Where a column stood at a revision; where it stands now if that is not known."""
        then = self._states.get(self.revision if seen is None else seen)
        before = then.lane(lane.key) if then else None
        return before.head if before else lane.head

    def _lane(self, key: str) -> Lane:
        return next(lane for lane in self._state.lanes if lane.key == key)

    def _path(self, lane: Lane) -> tuple[Turn, ...]:
        return self._tree.path(lane.head)

    def _shown(self, key: str, turn: int | None) -> Turn | None:
        """A turn that a column shows, the last one for None, unless that column is answering."""
        lane = self._lane(key)
        if lane.head is None or lane.head in self._runs:
            return None
        return next((t for t in reversed(self._path(lane)) if turn in (None, t.id)), None)

    def _settled(self, turn: Turn) -> Turn:
        """A turn as it can be written down: an answer on its way is one that was interrupted."""
        if turn.id not in self._runs:
            return turn
        said = replace(self._runs[turn.id].newest.snapshot, finish_reason="interrupted", stage=None)
        return replace(turn, answer=said)

    def _title(self) -> str:
        return title_of(self._tree.turns[0].prompt) if self._tree.turns else ""

    def _column(self, lane: Lane) -> Column:
        run = None if lane.head is None else self._runs.get(lane.head)
        if lane.head is None or not run:
            return Column(lane.key, lane.model, self._path(lane), lane.own)
        asked, newest = self._tree[lane.head], run.newest
        before = self._tree.path(asked.parent)
        return Column(lane.key, lane.model, before, lane.own, asked.prompt, newest.snapshot, newest.cursor, asked)


def _messages(turn: Turn, before: Sequence[Turn]) -> tuple[tuple[Message, ...], bool | None]:
    """What the model of a turn was sent, and whether that is certain: None where it was not written down."""
    messages = Question.of(turn).messages(turn.asked.system, before)
    sent = turn.answer.sent
    if not (sent and sent.messages):
        return tuple(messages), None
    begun = [*messages, Message("assistant", turn.answer.text[: sent.begun])] if sent.begun else messages
    for ways in (begun, [*begun, Message("user", GO_ON)]):
        if digest_of(ways) == sent.messages:
            return tuple(ways), True
    return tuple(begun), False


def _votable(turn: Turn) -> bool:
    return bool(turn.answer.text) and not turn.answer.error


def _key() -> str:
    return secrets.token_hex(4)
