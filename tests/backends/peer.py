"""A server of the OpenAI protocol on loopback that behaves: it says the last user message again, word by word.

Its temperature is 1 where none is sent, as at the real one: it then says the words in an order of chance.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from multimodel.backends.echo import pieces

from ..faults import DONE, END, MODELS, STREAM, FaultServer, Request, Talk, chunk, data, event, reply

PACE = 0.002  # seconds a word, so that words are events of their own


class ChatServer(FaultServer):
    """Remembers its requests. While `silent`, it sends nothing; where it is `lost` then, its connections end."""

    silent = False
    lost = False

    def _answer(self, talk: Talk, request: Request) -> None:
        if request.method == "GET":
            talk.send(reply(200, {"object": "list", "data": [{"id": name} for name in MODELS]}))
            return
        words, reason = said(request.body)
        asked = request.body.get("top_logprobs") if request.body.get("logprobs") else None
        spoken = [_spoken(word, asked) for word in words]
        parts = [event({"role": "assistant", "content": ""}), *spoken, event({}, reason)]
        parts += [_usage(request.body, len(words)), DONE]
        for part in (STREAM, *map(chunk, parts), END):
            while self.silent and not self.lost and not talk.wait(0.02):
                pass
            if self.lost or talk.wait(PACE):
                return
            talk.send(part)


def said(body: Mapping[str, Any]) -> tuple[list[str], str]:
    """What this model says to a request, in words, and why it ends."""
    words = pieces(next(m["content"] for m in reversed(body["messages"]) if m["role"] == "user"))
    if body.get("temperature", 1):
        random.Random(body.get("seed")).shuffle(words)
    text = "".join(words)
    ends = [at for stop in body.get("stop", ()) if (at := text.find(stop)) >= 0]
    words = pieces(text[: min(ends, default=len(text))])
    limit = body.get("max_tokens")
    return (words, "stop") if limit is None or len(words) <= limit else (words[:limit], "length")


def _spoken(word: str, top: int | None) -> bytes:
    """A word, with its log-probability where that was asked for: each alternative is one letter longer and rarer."""
    choice: dict[str, Any] = {"index": 0, "delta": {"content": word}, "finish_reason": None}
    if top is not None:
        others = [_logprob(word + "?" * longer, -0.5 - longer) for longer in range(top)]
        choice["logprobs"] = {"content": [{**_logprob(word, -0.5), "top_logprobs": others}]}
    return event(choices=[choice])


def _logprob(token: str, logprob: float) -> dict[str, Any]:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode())}


def _usage(body: Mapping[str, Any], written: int) -> bytes:
    read = sum(len(pieces(m["content"])) for m in body["messages"])
    usage = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
    return data({"choices": [], "usage": usage})
