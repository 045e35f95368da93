"""From tokens to text that may be shown: whole characters only, and nothing that a stop string may still take back."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Decode = Callable[[Sequence[int]], str]
HALF = "\ufffd"  # what a decoder makes of a character whose last bytes are still to come


class TextStream:
    """The text of one answer, piece by piece.

    >>> stream = TextStream(lambda ids: bytes(ids).decode("utf-8", "replace"), [], stop=("END",))
    >>> [stream.push(byte) for byte in "é! ENDx".encode()]
    ['', 'é', '!', ' ', '', '', '', '']
    >>> stream.stopped, stream.rest()
    (True, '')
    """

    def __init__(self, decode: Decode, prompt: Sequence[int], stop: Sequence[str] = ()) -> None:
        """`prompt`: its last tokens; whether a decoder begins a word with a space depends on what came before."""
        self._decode = decode
        self._stop = tuple(filter(None, stop))
        self._ids = list(prompt)
        self._shown = len(self._ids)  # tokens whose text has left
        self._start = 0  # where decoding begins: far enough before `_shown` to be the same as in the whole
        self._before = decode(self._ids)  # the text of what lies between the two
        self._held = ""  # the beginning of a stop string, perhaps
        self.stopped = False  # a stop string came

    def push(self, token: int) -> str:
        """The text that is certain now that `token` came too; empty after a stop string."""
        self._ids.append(token)
        text = self._decode(self._ids[self._start :])
        if text.endswith(HALF) or len(text) <= len(self._before):
            return ""
        piece = text[len(self._before) :]
        self._start, self._shown = self._shown, len(self._ids)
        self._before = self._decode(self._ids[self._start :])
        return self._pass(piece)

    def rest(self) -> str:
        """What is still held back when no more tokens come; half a character is not text."""
        if self.stopped:
            return ""
        piece = self._decode(self._ids[self._start :])[len(self._before) :].rstrip(HALF)
        passed = self._pass(piece)
        return passed if self.stopped else passed + self._held

    def _pass(self, piece: str) -> str:
        """The part of held and new text that no stop string can touch any more."""
        if not self._stop or self.stopped:
            return "" if self.stopped else piece
        text = self._held + piece
        found = [at for stop in self._stop if (at := text.find(stop)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        keep = max(_overlap(text, stop) for stop in self._stop)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` are a beginning of `stop`.

    >>> _overlap("the en", "end"), _overlap("the", "end")
    (2, 1)
    """
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
