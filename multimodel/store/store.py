"""Conversations, written as they happen and found again: by list, by search, one by one."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Lock

from ..attachment import Attachment
from ..conversation import MARKS, Conversation, Entry, State, Turn, now
from ..errors import MultimodelError, StoreError
from ..fairlane import FairLane
from ..runs import Run
from ..topics import topic_of
from ..types import ModelId, TokenLogprob, whole
from ..votes import Style, Vote
from ..waiting import Queue
from . import forms
from .database import Database, transaction
from .files import FILES, forms_of
from .forms import BALLOT, CALLS, FAIR, LOGPROBS, OPTIONS, RESULTS, STATE, WAITING, Ending, WaitingForm
from .shelf import Shelf
from .writer import Writer, end, told

KEPT_STATES = 100  # of a conversation: how far undo goes back
DELETED_FOR = 7 * 24 * 3600.0  # seconds after which what was deleted is gone
LISTED = 500  # conversations in the list at most
MATCHES = 200  # turns that a search looks at
KEEP = "INSERT INTO blobs VALUES (?, ?) ON CONFLICT (hash) DO NOTHING"


class Store:
    """The conversations of all visitors. Where the file cannot be used they are in memory, and `problem` says why."""

    def __init__(self, folder: Path) -> None:
        self._refused: MultimodelError | None = None
        try:
            self._database = Database(folder)
        except StoreError as error:
            self._refused = error
            self._database = Database(None)
        self._connection = self._database.connection
        self._interrupt()
        self._writer = Writer(self._connection)
        self._closing = Lock()

    @property
    def problem(self) -> MultimodelError | None:
        """Why what happens now is not kept; None when it is."""
        return self._refused or self._writer.problem

    @property
    def note(self) -> str:
        """What a person should know of how the file was found; empty mostly."""
        return self._database.note

    def close(self) -> None:
        """Write what is left. Safe to call twice."""
        with self._closing:
            self._writer.close()
            self._database.close()

    # writing

    def record(self, owner: str, id: str) -> Record:
        """What a board writes its conversation with."""
        return Record(self._writer, owner, id)

    def save(self, owner: str, id: str, kept: Conversation, logprobs: dict[int, tuple[TokenLogprob, ...]]) -> None:
        """A whole conversation at once. `logprobs` by the ids of the turns."""

        def change(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT INTO conversations (id, owner, title, created, updated) VALUES (?, ?, ?, ?, ?)",
                (id, owner, whole(kept.title), kept.created, now()),
            )
            for state in kept.states:
                _insert_state(connection, id, state)
            for turn in kept.turns:
                _insert_turn(connection, id, turn)
                if tokens := logprobs.get(turn.id):
                    body = LOGPROBS.dump_json(forms.logprobs_form(tokens)).decode()
                    connection.execute("INSERT INTO logprobs VALUES (?, ?, 1, ?)", (id, turn.id, body))
                end(connection, (id, turn.id), turn.answer)
            for lane in kept.measured:
                _put_lane(connection, id, lane)

        self._now(change)

    def rename(self, owner: str, id: str, title: str) -> None:
        """Give a conversation a title. Raises NotKept."""
        self._set(owner, id, "title", whole(title))

    def tag(self, owner: str, id: str, tag: str) -> None:
        """Say what it is about: the topic of all votes in it; "" leaves that to each prompt. Raises NotKept."""
        self._set(owner, id, "tag", whole(tag))

    def pin(self, owner: str, id: str, pinned: bool) -> None:
        """Let it stand above the others, or no more. Raises NotKept."""
        self._set(owner, id, "pinned", int(pinned))

    def delete(self, owner: str, id: str) -> None:
        """Take it out of the list; for a week it can be brought back. Raises NotKept."""
        self._set(owner, id, "deleted", now())

    def restore(self, owner: str, id: str) -> None:
        """Undo `delete`. Raises NotKept."""
        self._set(owner, id, "deleted", None)

    def give(self, owner: str, to: str) -> None:
        """Make all conversations and votes of one visitor another's. Raises NotKept."""

        def change(connection: sqlite3.Connection) -> None:
            for table in ("conversations", "votes"):
                connection.execute(f"UPDATE {table} SET owner = ? WHERE owner = ?", (to, owner))
            for suffix in ("", " (other browser)"):  # of what has the same name there
                sql = "UPDATE OR IGNORE shelf SET owner = ?, chosen = 0, name = name || ? WHERE owner = ?"
                connection.execute(sql, (to, suffix, owner))

        self._now(change)

    def _set(self, owner: str, id: str, column: str, value: str | float | None) -> None:
        sql = f"UPDATE conversations SET {column} = ? WHERE id = ? AND owner = ?"
        self._now(lambda connection: connection.execute(sql, (value, id, owner)))

    def _now(self, change: Callable[[sqlite3.Connection], object]) -> None:
        """Make a change that the person waits for, or say why not."""
        with self._writer.lock:
            self._writer.flush()
            try:
                with transaction(self._connection):
                    change(self._connection)
            except sqlite3.Error as error:
                raise told(error) from error

    @property
    def shelf(self) -> Shelf:
        """What visitors keep under names."""
        return Shelf(self._now, self._rows)

    # reading

    def entries(self, owner: str) -> list[Entry]:
        """The conversations of a visitor: those that are pinned, then the newest first."""
        rows = self._rows(
            "SELECT id, title, updated, pinned, tag FROM conversations"
            " WHERE owner = ? AND deleted IS NULL AND title != '' ORDER BY pinned DESC, updated DESC LIMIT ?",
            (owner, LISTED),
        )
        return [Entry(id, title, updated, bool(pinned), tag=tag) for id, title, updated, pinned, tag in rows]

    def find(self, owner: str, text: str) -> list[Entry]:
        """The conversations in whose title, prompts or answers all these words occur, the newest first."""
        words = re.findall(r"\w+", text)
        if not words:
            return self.entries(owner)
        found = {row[0]: Entry(*row[:3], bool(row[3]), tag=row[4]) for row in self._titled(owner, words)}
        for id, title, updated, pinned, tag, excerpt in self._said(owner, words) or self._contained(owner, text):
            if not found.get(id) or not found[id].excerpt:
                found[id] = Entry(id, title, updated, bool(pinned), excerpt, tag)
        return sorted(found.values(), key=lambda entry: (not entry.pinned, -entry.updated))

    def _titled(self, owner: str, words: Iterable[str]) -> list[tuple[str, str, float, int, str]]:
        parts = [f"%{word}%" for word in words]  # no word holds a %, and _ stands for itself too
        sql = "SELECT id, title, updated, pinned, tag FROM conversations WHERE owner = ? AND deleted IS NULL"
        return self._rows(sql + " AND title LIKE ?" * len(parts) + " LIMIT 100", (owner, *parts))

    def _said(self, owner: str, words: Iterable[str]) -> list[tuple[str, str, float, int, str, str]]:
        query = " ".join(f'"{word}"*' for word in words)
        return self._rows(
            "SELECT c.id, c.title, c.updated, c.pinned, c.tag, snippet(words, -1, ?, ?, '…', 12) FROM words"
            " JOIN turns t ON t.number = words.rowid JOIN conversations c ON c.id = t.conversation"
            " WHERE words MATCH ? AND c.owner = ? AND c.deleted IS NULL ORDER BY words.rowid DESC LIMIT ?",
            (*MARKS, query, owner, MATCHES),
        )

    def _contained(self, owner: str, text: str) -> list[tuple[str, str, float, int, str, str]]:
        """The same for writing without spaces between words, of which the index knows only whole passages."""
        rows = self._rows(
            "SELECT c.id, c.title, c.updated, c.pinned, c.tag, t.prompt || ' ' || t.text FROM turns t"
            " JOIN conversations c ON c.id = t.conversation WHERE c.owner = ? AND c.deleted IS NULL"
            " AND (instr(t.prompt, ?) OR instr(t.text, ?)) ORDER BY t.number DESC LIMIT ?",
            (owner, text, text, MATCHES),
        )
        return [(*row[:5], _around(row[5], text)) for row in rows]

    def read(self, owner: str, id: str) -> Conversation | None:
        """A conversation of this visitor, log-probabilities left out; None where there is none."""
        head = self._rows("SELECT title, created FROM conversations WHERE id = ? AND owner = ?", (id, owner))
        if not head:
            return None
        states = self._rows("SELECT body FROM states WHERE conversation = ? ORDER BY revision", (id,))
        rows = self._rows(
            "SELECT id, parent, lane, at, prompt, model, asked, text, reasoning, ending, files, results FROM turns"
            " WHERE conversation = ? AND ending IS NOT NULL ORDER BY id",
            (id,),
        )
        bodies = self._bodies(id) if any(row[10] != "[]" for row in rows) else {}
        (title, created), turns = (
            head[0],
            tuple(_with_files(_turn(*row[:10]), row[10], row[11], bodies) for row in rows),
        )
        found = tuple(STATE.validate_json(body) for (body,) in states)
        lanes = self._rows("SELECT body FROM fairlanes WHERE conversation = ? ORDER BY number", (id,))
        return Conversation(title, created, found, turns, tuple(_lane(body) for (body,) in lanes))

    def _bodies(self, id: str) -> dict[str, bytes]:
        """What was attached in a conversation, by hash."""
        sql = (
            "SELECT b.hash, b.body FROM blobs b WHERE b.hash IN"
            " (SELECT json_extract(f.value, '$.hash') FROM turns t, json_each(t.files) f WHERE t.conversation = ?)"
        )
        return dict(self._rows(sql, (id,)))

    def blob(self, hash: str) -> bytes | None:
        """What was attached somewhere, by its hash; None where there is none."""
        rows = self._rows("SELECT body FROM blobs WHERE hash = ?", (hash,))
        return rows[0][0] if rows else None

    def keep(self, files: Iterable[Attachment]) -> None:
        """Keep the bodies of attachments, before any prompt is sent with them. Raises NotKept."""
        blobs = [(file.hash, file.body) for file in files]
        self._now(lambda connection: connection.executemany(KEEP, blobs))

    def known(self, id: str) -> bool:
        """Whether anybody has a conversation of this id."""
        return bool(self._rows("SELECT 1 FROM conversations WHERE id = ?", (id,)))

    def logprobs(self, id: str, only: int | None = None) -> dict[int, tuple[TokenLogprob, ...]]:
        """The log-probabilities of a conversation's answers, by the ids of the turns that have any. `only`: of one."""
        found: dict[int, tuple[TokenLogprob, ...]] = {}
        sql = "SELECT turn, body FROM logprobs WHERE conversation = ?1 AND ?2 IN (turn, -1) ORDER BY turn, number"
        for turn, body in self._rows(sql, (id, -1 if only is None else only)):
            found[turn] = found.get(turn, ()) + forms.logprobs(LOGPROBS.validate_json(body))
        return found

    def votes(self, owner: str, id: str | None = None) -> list[Vote]:
        """A visitor's votes, in one conversation or all, oldest first; of those on the same answers the newest.

        Those that were taken back are left out. The prompt is "" where the conversation is gone.
        """
        where = "owner = ?1" if id is None else "owner = ?1 AND conversation = ?2"
        rows = self._rows(
            "SELECT v.conversation, v.at, v.turns, v.best, v.body, v.topic, coalesce(c.tag, ''), coalesce(t.prompt, '')"
            " FROM votes v LEFT JOIN conversations c ON c.id = v.conversation LEFT JOIN turns t"
            " ON t.conversation = v.conversation AND t.id = json_extract(v.turns, '$[0]') WHERE v.number IN"
            f" (SELECT max(number) FROM votes WHERE {where} GROUP BY conversation, turns) ORDER BY v.number",
            (owner,) if id is None else (owner, id),
        )
        return [self._styled(vote) for row in rows if (vote := _vote(*row)).ballot.verdict != "none"]

    def _styled(self, vote: Vote) -> Vote:
        """A vote with the styles of its answers, where it was cast before these were written."""
        if vote.ballot.styles:
            return vote
        sql = "SELECT model, text FROM turns WHERE conversation = ? AND id = ?"
        said = dict(row for turn in vote.turns for row in self._rows(sql, (vote.conversation, turn)))
        if not said.keys() >= set(vote.ballot.models):
            return vote
        return replace(vote, ballot=replace(vote.ballot, styles=tuple(Style.of(said[m]) for m in vote.ballot.models)))

    def waiting(self, id: str) -> Queue:
        """The prompts that wait in a conversation."""
        rows = self._rows("SELECT body FROM waiting WHERE conversation = ?", (id,))
        items = WAITING.validate_json(rows[0][0]) if rows else ()
        bodies = {file.hash: self.blob(file.hash) or b"" for item in items for file in item.files}
        return Queue(tuple(item.waiting(bodies) for item in items))

    def _rows(self, sql: str, values: Iterable[object]) -> list[tuple]:  # type: ignore[type-arg]
        with self._writer.lock:
            self._writer.flush()
            try:
                return self._connection.execute(sql, tuple(values)).fetchall()
            except sqlite3.Error as error:
                raise told(error) from error

    # once, when the file is opened

    def _interrupt(self) -> None:
        """Answers that the last app was making when it ended are marked so; what was deleted long ago is gone."""
        with suppress(sqlite3.Error), transaction(self._connection):
            sql = "SELECT conversation, id, model FROM turns WHERE ending IS NULL"
            for row in self._connection.execute(sql).fetchall():
                _interrupted(self._connection, *row)
            _forget(self._connection, now() - DELETED_FOR)


class Record:
    """Writes one conversation, as its board changes."""

    def __init__(self, writer: Writer, owner: str, id: str) -> None:
        self._writer, self._owner, self._id = writer, owner, id

    def state(self, state: State) -> None:
        """The board after an action."""
        at, id, owner = now(), self._id, self._owner

        def change(connection: sqlite3.Connection) -> None:
            _touch(connection, owner, id, at)
            _insert_state(connection, id, state)
            connection.execute(
                "DELETE FROM states WHERE conversation = ? AND revision <= ?", (id, state.revision - KEPT_STATES)
            )

        self._writer.add(change)

    def asked(self, turn: Turn, run: Run, title: str) -> None:
        """A turn, whose answer is being made. `title`: of the conversation, where it has none yet."""
        id, owner = self._id, self._owner

        def change(connection: sqlite3.Connection) -> None:
            _touch(connection, owner, id, turn.at)
            _insert_turn(connection, id, turn)
            connection.execute("UPDATE conversations SET title = ? WHERE id = ? AND title = ''", (whole(title), id))

        self._writer.add(change)
        self._writer.follow((id, turn.id), run)

    def voted(self, vote: Vote) -> None:
        """A vote on answers; it replaces an earlier one on the same."""
        best = next((turn for turn, mark in vote.marks().items() if mark == "best"), None)
        body = forms.written(BALLOT, vote.ballot)
        row = (self._owner, self._id, vote.at, json.dumps(sorted(vote.turns)), best, body, vote.topic)
        sql = "INSERT INTO votes (owner, conversation, at, turns, best, body, topic) VALUES (?, ?, ?, ?, ?, ?, ?)"
        self._writer.add(lambda connection: connection.execute(sql, row))

    def waiting(self, queue: Queue) -> None:
        """The prompts that wait."""
        id, body = (
            self._id,
            WAITING.dump_json(tuple(map(WaitingForm.of, queue.waiting)), exclude_defaults=True).decode(),
        )

        def change(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM waiting WHERE conversation = ?", (id,))
            if queue:
                connection.execute("INSERT INTO waiting VALUES (?, ?)", (id, body))
                files = [file for item in queue.waiting for file in item.files]
                connection.executemany(KEEP, [(file.hash, file.body) for file in files])

        self._writer.add(change)

    def measured(self, lane: FairLane) -> None:
        """A measurement as it stands, in place of what it was before."""
        self._writer.add(lambda connection: _put_lane(connection, self._id, lane))

    def flush(self) -> None:
        """Write what is not yet written, of all conversations."""
        self._writer.flush()


def _touch(connection: sqlite3.Connection, owner: str, id: str, at: float) -> None:
    """There is such a conversation, and something has happened in it."""
    connection.execute(
        "INSERT INTO conversations (id, owner, created, updated) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (id) DO UPDATE SET updated = excluded.updated",
        (id, owner, at, at),
    )


def _insert_state(connection: sqlite3.Connection, id: str, state: State) -> None:
    """Fails where this revision is there already: somebody else has gone on from the one before."""
    connection.execute("INSERT INTO states VALUES (?, ?, ?)", (id, state.revision, forms.written(STATE, state)))


def _insert_turn(connection: sqlite3.Connection, id: str, turn: Turn) -> None:
    connection.execute(
        "INSERT INTO turns (conversation, id, parent, lane, at, prompt, model, asked, files, results)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(id, turn.id, turn.parent, turn.column, turn.at, whole(turn.prompt)),
            *(str(turn.answer.model), forms.written(OPTIONS, turn.asked)),
            *(forms_of(turn.files), RESULTS.dump_json(turn.results).decode()),
        ),
    )
    blobs = [(file.hash, file.body) for file in turn.files]
    connection.executemany(KEEP, blobs)


def _put_lane(connection: sqlite3.Connection, id: str, lane: FairLane) -> None:
    row = (id, lane.number, forms.written(FAIR, lane))
    connection.execute("INSERT OR REPLACE INTO fairlanes VALUES (?, ?, ?)", row)


def _lane(body: str) -> FairLane:
    """A measurement as it was written; one that was running ended with the app."""
    lane = FAIR.validate_json(body)
    return lane.ended("interrupted") if lane.state == "running" else lane


def _interrupted(connection: sqlite3.Connection, conversation: str, turn: int, model: str) -> None:
    """End an answer with what was written of it."""
    sql = "SELECT text, reasoning, calls, ttft, total FROM pieces WHERE conversation = ? AND turn = ? ORDER BY number"
    pieces = connection.execute(sql, (conversation, turn)).fetchall()
    ttft, total = pieces[-1][3:] if pieces else (None, None)
    text, reasoning = ("".join(piece[i] for piece in pieces) for i in (0, 1))
    calls = ([()] + [CALLS.validate_json(piece[2]) for piece in pieces if piece[2]])[-1]
    what = Ending(finish_reason="interrupted", ttft=ttft, total=total, calls=calls)
    end(connection, (conversation, turn), forms.answer(_model(model), text, reasoning, what))


def _forget(connection: sqlite3.Connection, before: float) -> None:
    """Remove what was deleted before this, and boards on which nothing was asked for as long."""
    old = "SELECT id FROM conversations WHERE deleted < ?1 OR (title = '' AND updated < ?1)"
    tag = "(SELECT tag FROM conversations WHERE id = conversation AND tag != '')"  # votes keep their topic
    connection.execute(f"UPDATE votes SET topic = coalesce({tag}, topic) WHERE conversation IN ({old})", (before,))
    for table in ("states", "turns", "pieces", "logprobs", "waiting", "fairlanes"):
        connection.execute(f"DELETE FROM {table} WHERE conversation IN ({old})", (before,))
    connection.execute(f"DELETE FROM conversations WHERE id IN ({old})", (before,))
    used = "SELECT json_extract(f.value, '$.hash') FROM turns t, json_each(t.files) f WHERE t.files != '[]'"
    wait = "SELECT json_extract(f.value, '$.hash') FROM waiting, json_each(body) w, json_each(w.value, '$.files') f"
    connection.execute(f"DELETE FROM blobs WHERE hash NOT IN ({used} UNION {wait})")


def _turn(
    id: int,
    parent: int | None,
    lane: str,
    at: float,
    prompt: str,
    model: str,
    asked: str,
    text: str,
    reasoning: str,
    ending: str,
) -> Turn:
    said = forms.answer(_model(model), text, reasoning, Ending.model_validate_json(ending))
    return Turn(prompt, said, id, parent, lane, at, OPTIONS.validate_json(asked))


def _vote(
    conversation: str, at: float, turns: str, best: int | None, body: str, topic: str, tag: str, prompt: str
) -> Vote:
    ballot, ids = BALLOT.validate_json(body), list(json.loads(turns))
    if best is not None and not ballot.ranks:  # of the time when the models stood best first, and the turns did not
        ids = [best, *(id for id in ids if id != best)]
    topic = tag or topic or (topic_of(prompt) if prompt else "")
    return Vote(tuple(ids), ballot, conversation, at, topic, prompt)


def _with_files(turn: Turn, files: str, results: str, bodies: dict[str, bytes]) -> Turn:
    """The turn with what went with its prompt."""
    if files == results == "[]":
        return turn
    found = tuple(form.attachment(bodies) for form in FILES.validate_json(files))
    return replace(turn, files=found, results=RESULTS.validate_json(results))


def _model(text: str) -> ModelId:
    backend, _, name = text.partition(":")
    return ModelId(backend, name)


def _around(text: str, found: str) -> str:
    """A passage around what was found, marked."""
    at = max(0, text.find(found))
    before, after = text[max(0, at - 30) : at], text[at + len(found) : at + len(found) + 60]
    return f"{before}{MARKS[0]}{found}{MARKS[1]}{after}".replace("\n", " ")
