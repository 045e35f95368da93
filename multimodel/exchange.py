"""A conversation as a file: JSON that comes back as it was, and Markdown to read."""

from __future__ import annotations

import binascii
import re
from base64 import b64decode, b64encode
from collections.abc import Callable
from itertools import zip_longest
from typing import Literal

from pydantic import Field, ValidationError

from .attachment import Attachment
from .conversation import MAX_COLUMNS, Conversation, State, Tree, Turn
from .errors import BadRequest, ForeignFile, MultimodelError
from .fairlane import FairLane
from .store.forms import KEY, LATEST, Form, TurnForm, complaint
from .types import ModelId, Snapshot, TokenLogprob

LARGEST = 20_000_000  # characters of a file to import
Logprobs = dict[int, tuple[TokenLogprob, ...]]
"""Of answers, by the ids of their turns."""


class File(Form):
    """A conversation with all its versions. Who it belongs to is not in it."""

    format: Literal["multimodel-conversation"]
    version: Literal[1]
    title: str = Field(max_length=1000)
    created: float = Field(ge=0, le=LATEST)
    state: State
    turns: tuple[TurnForm, ...]
    bodies: dict[str, str] = Field({})  # of the files that went with prompts, by hash, in base64
    measured: tuple[FairLane, ...] = ()


def to_json(kept: Conversation, logprobs: Logprobs) -> str:
    """Everything that is kept of a conversation, but for the steps that undo goes back.

    Raises BadRequest where that is more than `from_json` takes.
    """
    turns = tuple(TurnForm.of(turn, logprobs.get(turn.id, ())) for turn in kept.turns)
    state = State(1, kept.states[-1].lanes, kept.states[-1].shared)
    bodies = {file.hash: b64encode(file.body).decode() for turn in kept.turns for file in turn.files}
    file = File(
        format="multimodel-conversation",
        version=1,
        title=kept.title,
        created=kept.created,
        state=state,
        turns=turns,
        bodies=bodies,
        measured=kept.measured,
    )
    text = file.model_dump_json(indent=1, exclude_defaults=True) + "\n"
    if bodies and len(text) > LARGEST:
        hint = "Export it as Markdown or as a page, or branch off the part that you need."
        raise BadRequest(f"With its files it is larger than {LARGEST // 1_000_000} MB.", hint=hint)
    return text


def from_json(text: str) -> tuple[Conversation, Logprobs]:
    """The inverse of `to_json`. Raises ForeignFile, which says what is wrong and where."""
    hint = "Choose a JSON file that was taken out of a conversation list here."
    if len(text) > LARGEST:
        raise ForeignFile(f"The file is larger than {LARGEST // 1_000_000} MB.", hint=hint)
    try:
        file = File.model_validate_json(text)
        if trouble := _trouble(file):
            raise ForeignFile(f"The file is damaged: {trouble}.", hint=hint)
        bodies = {hash: b64decode(body, validate=True) for hash, body in file.bodies.items()}
        turns = tuple(form.turn(bodies) for form in file.turns)
        logprobs = {form.id: form.read_logprobs() for form in file.turns if form.logprobs}
    except ValidationError as error:
        raise ForeignFile(f"This is no conversation of this app. {complaint(error)}.", hint=hint) from None
    except UnicodeEncodeError:
        raise ForeignFile("The file is damaged: a token is made of no bytes.", hint=hint) from None
    except ForeignFile:
        raise
    except binascii.Error:
        raise ForeignFile("The file is damaged: something attached is not in base64.", hint=hint) from None
    except MultimodelError as error:  # a parameter out of its range
        raise ForeignFile(f"The file is damaged: {error}", hint=hint) from None
    return Conversation(file.title, file.created, (file.state,), turns, file.measured), logprobs


def _trouble(file: File) -> str:
    """What of a file does not fit together; empty when all does."""
    lanes, seen = file.state.lanes, set[int]()
    for turn in file.turns:
        if turn.id in seen or not (turn.parent is None or turn.parent in seen):
            return f"turn {turn.id} does not follow one before it"
        seen.add(turn.id)
    if not 1 <= len({lane.key for lane in lanes}) == len(lanes) <= MAX_COLUMNS:
        return f"it has {len(lanes)} columns"
    if strange := [lane.key for lane in lanes if not re.fullmatch(KEY, lane.key)]:
        return f"a column cannot be called {strange[0][:40]!r}"
    if any(lane.head is not None and lane.head not in seen for lane in lanes):
        return "a column shows a turn that is not in it"
    if any(not lane.turns <= seen or len(lane.models) > MAX_COLUMNS for lane in file.measured):
        return "a measurement is of turns that are not in it"
    if not all(_is_model(model) for model in [*(lane.model for lane in lanes), *(turn.model for turn in file.turns)]):
        return "a model has no name"
    return ""


def _is_model(model: ModelId) -> bool:
    return bool(model.backend.strip() and model.name.strip())


def rows(kept: Conversation) -> list[tuple[Turn | None, ...]]:
    """What the columns show, side by side: a tuple of turns for each step, None where a column has no more."""
    tree = Tree(kept.turns)
    return list(zip_longest(*(tree.path(lane.head) for lane in kept.states[-1].lanes)))


def _about(file: Attachment) -> str:
    return f"{file.name} ({file.detail})" if file.detail else file.name


def to_markdown(
    kept: Conversation, figures: Callable[[Snapshot], str], measured: Callable[[FairLane], str] | None = None
) -> str:
    """What the columns show, for reading. `figures`: a line on an answer; `measured`: a part on a measurement."""
    parts = [f"# {kept.title}"]
    for row in rows(kept):
        prompt = ""
        for turn in filter(None, row):
            if turn.prompt != prompt:
                prompt = turn.prompt
                parts += [f"*Attached: {sent}.*"] if (sent := ", ".join(map(_about, turn.files))) else []
                parts.append("\n".join(f"> {line}".rstrip() for line in prompt.splitlines()))
            said = turn.answer
            calls = [f"Wants to call `{call.name}`:\n\n```json\n{call.arguments}\n```" for call in said.calls]
            empty = "" if calls else f"*{said.error}*" if said.error else "*No answer.*"
            parts += [f"## {said.model}", *filter(None, [said.text or empty]), *calls]
            parts.append(f"*{figures(said)}*")
    parts += map(measured, kept.measured) if measured else ()
    return "\n\n".join(parts) + "\n"
