"""What a model writes, taken apart as it comes: thoughts and calls, which it marks by tags in its text; the answer."""

from __future__ import annotations

from dataclasses import replace

from .tools import written_calls
from .types import Chunk

THOUGHTS = {"<think>": "</think>", "[THINK]": "[/THINK]"}
"""How thoughts begin and end; only at the very beginning of an answer, for elsewhere a model may speak of them."""
CALL, CALL_ENDS = "<tool_call>", "</tool_call>"
"""How Qwen, Hermes and others write a call: JSON with a name and arguments."""


class Spoken:
    """The fold of one answer's chunks.

    >>> spoken = Spoken()
    >>> told = [spoken.told(Chunk(text)) for text in ("<th", "ink>Hm.</think>", "\\n\\nYes")]
    >>> [(chunk.reasoning, chunk.text) for chunk in told]
    [('', ''), ('Hm.', ''), ('', 'Yes')]
    """

    def __init__(self, *, calls: bool = False) -> None:
        """`calls`: whether the model was told of tools, so that it may write calls."""
        self._calls = calls
        self._held = ""  # text that may be the beginning of a tag
        self._state = "start"
        self._end = ""  # the tag that ends the thoughts
        self._written: list[str] = []

    def told(self, chunk: Chunk) -> Chunk:
        """The chunk with its text told apart; the last one brings what was held back."""
        if (self._state == "answer" and not self._calls) or not (chunk.text or chunk.finish_reason):
            return chunk
        self._held += chunk.text
        text = reasoning = ""
        while more := self._next(last=chunk.finish_reason is not None):
            text, reasoning = text + more[0], reasoning + more[1]
        calls = chunk.calls or written_calls(self._written)
        ended = "tool_calls" if calls and chunk.finish_reason == "stop" else chunk.finish_reason
        return replace(chunk, text=text, reasoning=chunk.reasoning + reasoning, calls=calls, finish_reason=ended)

    def _next(self, *, last: bool) -> tuple[str, str] | None:
        """One step: (text, reasoning) that is certain now; None where more must come first."""
        match self._state:
            case "start":
                return self._begin(last)
            case "thoughts":
                return self._think(last)
            case "begun" | "after":  # the line breaks around thoughts and calls are no part of them
                self._held = self._held.lstrip()
                return self._to("thoughts" if self._state == "begun" else "answer") if self._held else None
            case "call":
                return self._call(last)
        return self._answer(last)

    def _begin(self, last: bool) -> tuple[str, str] | None:
        seen = self._held.lstrip()
        for begin, end in THOUGHTS.items():
            if seen.startswith(begin):
                self._held, self._end = seen[len(begin) :], end
                return self._to("begun")
            if begin.startswith(seen) and not last:
                return None
        return self._to("answer")

    def _think(self, last: bool) -> tuple[str, str] | None:
        thought, found, rest = self._held.partition(self._end)
        if found:
            self._held = rest
            self._to("after")
            return "", thought.rstrip()
        return self._all_but_a_tag(self._end, last, 1)

    def _answer(self, last: bool) -> tuple[str, str] | None:
        said, found, rest = self._held.partition(CALL) if self._calls else (self._held, "", "")
        if found:
            self._held = rest
            self._to("call")
            return said.rstrip("\n"), ""
        return self._all_but_a_tag(CALL if self._calls else "", last, 0)

    def _call(self, last: bool) -> tuple[str, str] | None:
        call, found, rest = self._held.partition(CALL_ENDS)
        if not found and not (last and call):
            return None
        self._held = rest
        self._written.append(call)
        return self._to("after")

    def _all_but_a_tag(self, tag: str, last: bool, part: int) -> tuple[str, str] | None:
        """What is held, but for what may be the beginning of a tag, as text (0) or as thoughts (1)."""
        keep = 0 if last else max((n for n in range(1, len(tag)) if self._held.endswith(tag[:n])), default=0)
        said, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return None if not said else (said, "") if part == 0 else ("", said)

    def _to(self, state: str) -> tuple[str, str]:
        self._state = state
        return "", ""
