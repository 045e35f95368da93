"""The boards of all visitors: who has which, found again by an address, in memory or as they were written down."""

from __future__ import annotations

import re
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from threading import RLock

from .board import Board
from .conversation import MAX_COLUMNS, Conversation, Entry, Options, now
from .engine import Engine
from .errors import BadRequest, MultimodelError
from .habits import Habits, Pane, Preset
from .settings import Settings
from .store import Store
from .types import ModelId, SamplingParams, TokenLogprob

BOARDS = 200
"""How many boards the server has in memory; the one unused for longest leaves first."""

INVITED_FOR = 600.0  # seconds
SECRET = re.compile(r"[\w-]{43}")
CHAT = re.compile(r"[0-9a-f]{16}")


class Boards:
    """The boards of all visitors.

    A page holds the address of its board, `SECRET.CHAT`: the secret is the browser's and opens all conversations of
    its visitor, and only those. What is kept of it is a hash.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = RLock()  # between the events of all visitors
        self._boards: OrderedDict[str, Board] = OrderedDict()
        self._invitations: dict[str, tuple[str, float]] = {}  # code: an address, and when it is no longer taken
        self.giving: list[Callable[[str, str], object]] = []  # what else goes along when a visitor joins another one

    def get(self, id: str | None) -> Board:
        """The board of that address; a new one for an address the server does not know."""
        secret, chat = _parts(id)
        with self._lock:
            if chat and (board := self._known(secret, chat)):
                return board
            free = bool(chat) and not self.store.known(chat)
            return self._new(secret, chat if free else _chat())

    def fresh(self, id: str) -> Board:
        """A board on which nothing was asked: by the preset chosen for new chats, else like this one."""
        with self._lock:
            board = self.get(id)
            secret, _ = _parts(board.id)
            chosen = self._chosen(secret)
            if not board.empty:
                fresh = self._new(secret, _chat(), chosen or preset_of(board))
                if board.blind:
                    fresh.set_blind(True)
                return fresh
            if chosen:
                arrange(board, chosen)
            return board

    def begin(self, id: str | None, preset: Preset) -> Board:
        """A board on which nothing was asked, with the columns and settings of a preset."""
        secret, _ = _parts(id)
        with self._lock:
            return self._new(secret, _chat(), preset)

    def usual(self, id: str | None) -> Preset:
        """The columns and settings of a new chat: the preset that the visitor chose for it, else those of the app."""
        return self._chosen(_parts(id)[0]) or _defaults(self._engine)

    def open(self, id: str, chat: str) -> Board:
        """Another conversation of the same visitor; the one at hand where there is none of that name."""
        secret, _ = _parts(id)
        with self._lock:
            found = self._known(secret, chat) if CHAT.fullmatch(chat) else None
            return found or self.get(id)

    def keep(
        self, id: str, conversation: Conversation, logprobs: dict[int, tuple[TokenLogprob, ...]] | None = None
    ) -> Board:
        """A conversation from elsewhere, as one of this visitor. Raises NotKept."""
        secret, _ = _parts(self.get(id).id)
        chat = _chat()
        self.store.save(_owner(secret), chat, conversation, logprobs or {})
        return self.open(f"{secret}.{chat}", chat)

    def invite(self, id: str) -> str:
        """A code by which another browser of the same person becomes this visitor: once, within ten minutes."""
        board, code = self.get(id), secrets.token_urlsafe(16)
        with self._lock:
            self._invitations = {c: (a, end) for c, (a, end) in self._invitations.items() if end > now()}
            self._invitations[code] = (board.id, now() + INVITED_FOR)
        return code

    def join(self, code: str, id: str | None) -> Board:
        """The board that a code was made at; what the other browser had said before comes along. Raises BadRequest."""
        with self._lock:
            address, end = self._invitations.pop(code, ("", 0.0))
        if end < now():
            raise BadRequest("This link was used already, or is too old.", hint="Make a new one in the list there.")
        secret, _ = _parts(id)
        if id and not address.startswith(secret):
            self.store.give(self.owner(id), self.owner(address))
            for give in self.giving:
                give(self.owner(id), self.owner(address))
        return self.get(address)

    def kept(self, id: str, chat: str) -> Conversation:
        """A conversation of this visitor as it can be taken elsewhere, by the title it has in the list."""
        board = self.open(id, chat)
        titles = {entry.id: entry.title for entry in self.store.entries(self.owner(board.id))}
        kept = board.kept()
        return replace(kept, title=titles.get(board.chat, kept.title))

    def entries(self, id: str, words: str = "") -> list[Entry]:
        """The visitor's conversations, or those in which the words occur."""
        owner = self.owner(id)
        return self.store.find(owner, words) if words.strip() else self.store.entries(owner)

    @property
    def settings(self) -> Settings:
        """The settings of the app."""
        return self._engine.settings

    @property
    def store(self) -> Store:
        """Where they are written down."""
        return self._engine.store

    def owner(self, id: str) -> str:
        """Under what the store keeps this visitor's conversations."""
        return _owner(_parts(id)[0])

    def _known(self, secret: str, chat: str) -> Board | None:
        address = f"{secret}.{chat}"
        if address in self._boards:
            self._boards.move_to_end(address)
            return self._boards[address]
        kept = self.store.read(_owner(secret), chat)
        if not (kept and kept.states):
            return None
        keeper, votes = self.store.record(_owner(secret), chat), self.store.votes(_owner(secret), chat)
        queue = self.store.waiting(chat)
        return self._add(Board(self._engine, id=address, keeper=keeper, kept=kept, votes=votes, queue=queue))

    def _new(self, secret: str, chat: str, preset: Preset | None = None) -> Board:
        preset = preset or self._chosen(secret) or _defaults(self._engine)
        keeper = self.store.record(_owner(secret), chat)
        models = [pane.model for pane in preset.columns]
        board = self._add(Board(self._engine, models, preset.shared, id=f"{secret}.{chat}", keeper=keeper))
        for column, pane in zip(board.columns(), preset.columns, strict=True):
            if pane.own:
                board.set_options(pane.own, column.key)
        return board

    def _chosen(self, secret: str) -> Preset | None:
        """The preset of new chats; none where the store cannot be read, which the page tells of."""
        try:
            return Habits(self.store).presets.chosen(_owner(secret))
        except MultimodelError:
            return None

    def _add(self, board: Board) -> Board:
        self._boards[board.id] = board
        if len(self._boards) > BOARDS:
            idle = next((id for id, other in self._boards.items() if not other.active()), next(iter(self._boards)))
            self._boards.pop(idle).stop()
        return board


def _parts(id: str | None) -> tuple[str, str]:
    """The secret and the conversation of an address; a new secret, and "", where it holds none that is one of ours."""
    secret, _, chat = (id or "").partition(".")
    if not SECRET.fullmatch(secret):
        return secrets.token_urlsafe(32), ""
    return secret, chat if CHAT.fullmatch(chat) else ""


def _owner(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()


def _chat() -> str:
    return secrets.token_hex(8)


def preset_of(board: Board, name: str = "Like before") -> Preset:
    """The columns and settings of a board."""
    columns = tuple(Pane(model=column.model, own=column.own) for column in board.columns())
    return Preset(name=name, columns=columns, shared=board.shared)


def arrange(board: Board, preset: Preset) -> None:
    """Let a board show the columns of a preset. Raises BadRequest while answers are on their way."""
    board.arrange([(pane.model, pane.own) for pane in preset.columns], preset.shared)


def _defaults(engine: Engine) -> Preset:
    chat = engine.settings.chat
    params = SamplingParams(temperature=chat.temperature, max_tokens=chat.max_tokens)
    columns = tuple(Pane(model=ModelId.parse(text)) for text in chat.columns[:MAX_COLUMNS])
    return Preset(name="New chat", columns=columns, shared=Options(params, chat.system_prompt))
