"""Prompts that were sent while columns still answered. They wait, in order, until all columns have."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from .attachment import Attachment
from .errors import BadRequest
from .types import whole

MOST = 50
"""Prompts that may wait in one conversation."""
HEAVIEST = 64_000_000
"""Bytes of their files altogether: until they are sent they take memory."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A prompt that waits, with what goes along with it. `id` tells it from the others of its queue."""

    id: int
    prompt: str
    files: tuple[Attachment, ...] = ()


@dataclass(frozen=True, slots=True)
class Queue:
    """What waits, the next first. `paused`: until a person says that it goes on."""

    waiting: tuple[Waiting, ...] = ()
    paused: bool = False

    def __bool__(self) -> bool:
        return bool(self.waiting)

    def add(self, prompt: str, files: Sequence[Attachment] = ()) -> Queue:
        """One more at the end. Raises BadRequest where too many wait."""
        if len(self.waiting) >= MOST:
            raise BadRequest(f"{MOST} prompts wait already.", hint="Wait for answers, or remove some of them.")
        waiting = [file for item in self.waiting for file in item.files]
        if files and sum(len(file.body) for file in (*waiting, *files)) > HEAVIEST:
            raise BadRequest("Too many large files wait already.", hint="Wait for answers, or remove some of them.")
        id = max((item.id for item in self.waiting), default=0) + 1
        return self._with([*self.waiting, Waiting(id, whole(prompt), tuple(files))])

    def edit(self, id: int, prompt: str) -> Queue:
        """Another text in the place of one; an empty one removes it."""
        if not prompt.strip():
            return self.remove(id)
        return self._with(replace(item, prompt=whole(prompt)) if item.id == id else item for item in self.waiting)

    def remove(self, id: int) -> Queue:
        """Without this one."""
        return self._with(item for item in self.waiting if item.id != id)

    def move(self, id: int, by: int) -> Queue:
        """One of them `by` places nearer the end (negative: nearer the front), as far as there are places.

        >>> queue = Queue((Waiting(1, "one"), Waiting(2, "two")))
        >>> [item.prompt for item in queue.move(2, -1).waiting]
        ['two', 'one']
        """
        items = list(self.waiting)
        at = next((i for i, item in enumerate(items) if item.id == id), None)
        if at is not None:
            items.insert(max(0, at + by), items.pop(at))
        return self._with(items)

    def _with(self, items: Iterable[Waiting]) -> Queue:
        waiting = tuple(items)
        return Queue(waiting, self.paused and bool(waiting))
