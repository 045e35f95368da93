"""What a model is sent: a conversation as messages, and those as one model can take them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .attachment import Attachment, given
from .conversation import Turn
from .errors import BadRequest
from .tools import in_words
from .types import Capabilities, Message, ToolResult

LEFT_OUT = "Pictures of earlier prompts were left out: this model takes none."


def conversation(
    system: str,
    turns: Sequence[Turn],
    prompt: str,
    files: Sequence[Attachment] = (),
    results: Sequence[ToolResult] = (),
) -> list[Message]:
    """What a model is sent: the system prompt, the turns that were answered, the new prompt with what goes with it.

    A turn without an answer (it failed at once) is left out: two prompts in a row break many chat templates. So is a
    call whose result was never told: services refuse one that hangs in the air.
    """
    messages, answered = asked(prompt, files, results), bool(results)
    for turn in reversed(turns):
        calls = turn.answer.calls if answered else ()
        if turn.answer.text or calls:
            answer = Message("assistant", turn.answer.text, calls=calls)
            messages = [*asked(turn.prompt, turn.files, turn.results), answer, *messages]
            answered = bool(turn.results)
    return [Message("system", system), *messages] if system.strip() else messages


def asked(prompt: str, files: Sequence[Attachment], results: Sequence[ToolResult]) -> list[Message]:
    """A person's turn: a prompt and its files, or the results of calls."""
    if results:
        return [Message("tool", result.content, name=result.name, call=result.id) for result in results]
    return [Message("user", given(prompt, files), tuple(file.image for file in files if file.image))]


def taken(messages: Sequence[Message], capabilities: Capabilities) -> tuple[list[Message], tuple[str, ...]]:
    """The messages as a model takes them, and what the person should know of it.

    Raises BadRequest for a picture in the prompt that it cannot be given.
    """
    kept, notes = list(messages), tuple[str, ...]()
    if "tools" not in capabilities.params:
        kept = in_words(kept)
    if not capabilities.images and any(message.images for message in kept):
        newest = max(i for i, message in enumerate(kept) if message.role in ("user", "tool"))
        if kept[newest].images:
            raise _refused(capabilities)
        kept = [_without(message) for message in kept]
        notes = (LEFT_OUT,)
    return kept, notes


def why_no_pictures(capabilities: Capabilities) -> str:
    """Why a model is not given a picture."""
    local = "models on this machine are given text only, also those that could see"
    return local if capabilities.local else "it reads text only"


def _refused(capabilities: Capabilities) -> BadRequest:
    hint = "Choose a model of a service that sees pictures and ask again, or ask without the picture."
    return BadRequest(f"This model takes no pictures: {why_no_pictures(capabilities)}.", hint=hint)


def _without(message: Message) -> Message:
    if not message.images:
        return message
    return replace(message, content=f"{message.content}\n\n(A picture was left out here.)", images=())
