"""Values as JSON, in the database and in exported files alike. What is read is checked: it may come from anybody."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from ..conversation import Options, State, Turn
from ..errors import MultimodelError, by_name
from ..fairlane import FairLane
from ..types import (
    Cost,
    FinishReason,
    ModelId,
    SamplingParams,
    Sent,
    Snapshot,
    Timing,
    TokenLogprob,
    ToolCall,
    ToolResult,
    Usage,
)
from ..votes import Ballot
from ..waiting import Waiting
from .files import FileForm

Logprob = tuple[str, float, list[tuple[str, float]]]
"""A token: its bytes, one character each; its log-probability; the likeliest tokens in its place."""


class Form(BaseModel):
    """JSON with these fields and no other."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Failure(Form):
    """An error of ours."""

    type: str
    message: str
    hint: str = ""


class Ending(Form):
    """What is known of an answer beside its text; times in seconds."""

    finish_reason: FinishReason
    ttft: float | None = None
    total: float | None = None
    loading: float = 0.0
    begun: float | None = None
    usage: Usage | None = None
    error: Failure | None = None
    notes: tuple[str, ...] = ()
    params: SamplingParams | None = None  # as they were sent
    cost: Cost | None = None  # at the prices of its day
    provider: str = ""
    memory: int | None = Field(default=None, ge=0, le=2**62)  # bytes
    sent: Sent | None = None
    calls: tuple[ToolCall, ...] = ()


BALLOT: TypeAdapter[Ballot] = TypeAdapter(Ballot)
FAIR: TypeAdapter[FairLane] = TypeAdapter(FairLane)
STATE: TypeAdapter[State] = TypeAdapter(State)
OPTIONS: TypeAdapter[Options] = TypeAdapter(Options)
LOGPROBS: TypeAdapter[list[Logprob]] = TypeAdapter(list[Logprob])
CALLS: TypeAdapter[tuple[ToolCall, ...]] = TypeAdapter(tuple[ToolCall, ...])
RESULTS: TypeAdapter[tuple[ToolResult, ...]] = TypeAdapter(tuple[ToolResult, ...])

KEY = r"^[\w-]{1,40}$"  # of a column; it becomes part of the page
LATEST = 1e11  # seconds since 1970 that every calendar can hold

T = TypeVar("T")


def written(adapter: TypeAdapter[T], value: T) -> str:
    """A value as JSON, without what is as usual."""
    return adapter.dump_json(value, exclude_defaults=True).decode()


def ending(answer: Snapshot) -> Ending:
    """What there is to write of an answer that has ended."""
    error, timing = answer.error, answer.timing
    return Ending(
        finish_reason=answer.finish_reason or "interrupted",
        ttft=timing.ttft,
        total=timing.total,
        loading=timing.loading,
        begun=None if timing.begun is None else timing.begun - timing.started,
        usage=answer.usage,
        error=Failure(type=type(error).__name__, message=str(error), hint=error.hint) if error else None,
        notes=answer.notes,
        params=answer.params,
        cost=answer.cost,
        provider=answer.provider,
        memory=answer.memory,
        sent=answer.sent,
        calls=answer.calls,
    )


def answer(model: ModelId, text: str, reasoning: str, end: Ending) -> Snapshot:
    """The answer that this was written of. Its times are true as differences; it began at 0."""
    error: MultimodelError | None = None
    if end.error:
        error = by_name(end.error.type)(end.error.message, hint=end.error.hint)
    return Snapshot(
        model,
        text,
        Timing(0.0, end.ttft, end.total, end.loading, end.begun),
        usage=end.usage,
        finish_reason=end.finish_reason,
        error=error,
        reasoning=reasoning,
        notes=end.notes,
        params=end.params,
        cost=end.cost,
        provider=end.provider,
        memory=end.memory,
        sent=end.sent,
        calls=end.calls,
    )


def logprobs_form(tokens: tuple[TokenLogprob, ...]) -> list[Logprob]:
    """Tokens and how likely they were, as they are written."""
    return [(_bytes(t), _finite(t), [(_bytes(o), _finite(o)) for o in t.alternatives]) for t in tokens]


def logprobs(form: list[Logprob]) -> tuple[TokenLogprob, ...]:
    """The inverse of `logprobs_form`. Raises UnicodeEncodeError for what stands for no bytes."""
    return tuple(
        TokenLogprob.of(
            data.encode("latin-1"),
            likely,
            tuple(TokenLogprob.of(other.encode("latin-1"), rarer) for other, rarer in others),
        )
        for data, likely, others in form
    )


def _finite(token: TokenLogprob) -> float:
    """JSON knows no infinity; the exponential of this is 0 too."""
    return max(token.logprob, -1000.0)


def _bytes(token: TokenLogprob) -> str:
    return token.data.decode("latin-1")


class TurnForm(Form):
    """A turn in a file."""

    id: int = Field(ge=1)
    parent: int | None = None
    column: str = Field(pattern=KEY)
    at: float = Field(0.0, ge=0, le=LATEST)
    prompt: str = Field(min_length=1)
    model: ModelId
    asked: Options = Options()
    text: str = ""
    reasoning: str = ""
    ending: Ending
    logprobs: list[Logprob] = []
    files: tuple[FileForm, ...] = ()
    results: tuple[ToolResult, ...] = ()

    @classmethod
    def of(cls, turn: Turn, logprobs: tuple[TokenLogprob, ...] = ()) -> TurnForm:
        """The form of a turn."""
        said = turn.answer
        return cls(
            id=turn.id,
            parent=turn.parent,
            column=turn.column,
            at=turn.at,
            prompt=turn.prompt,
            model=said.model,
            asked=turn.asked,
            text=said.text,
            reasoning=said.reasoning,
            ending=ending(said),
            logprobs=logprobs_form(logprobs),
            files=tuple(map(FileForm.of, turn.files)),
            results=turn.results,
        )

    def read_logprobs(self) -> tuple[TokenLogprob, ...]:
        """The log-probabilities of the answer."""
        return logprobs(self.logprobs)

    def turn(self, bodies: Mapping[str, bytes] = {}) -> Turn:
        """The turn of this form, without them. `bodies`: of its files, by hash. Raises ForeignFile for a wrong one."""
        said = answer(self.model, self.text, self.reasoning, self.ending)
        files = tuple(file.attachment(bodies) for file in self.files)
        turn = Turn(self.prompt, said, self.id, self.parent, self.column, self.at, self.asked)
        return replace(turn, files=files, results=self.results)


class WaitingForm(Form):
    """A prompt that waits, without what its files hold."""

    id: int
    prompt: str
    files: tuple[FileForm, ...] = ()

    @classmethod
    def of(cls, item: Waiting) -> WaitingForm:
        """The form of one."""
        return cls(id=item.id, prompt=item.prompt, files=tuple(map(FileForm.of, item.files)))

    def waiting(self, bodies: Mapping[str, bytes]) -> Waiting:
        """The prompt of this form. `bodies`: of its files, by hash. Raises ForeignFile for a wrong one."""
        return Waiting(self.id, self.prompt, tuple(file.attachment(bodies) for file in self.files))


WAITING: TypeAdapter[tuple[WaitingForm, ...]] = TypeAdapter(tuple[WaitingForm, ...])


def complaint(error: ValidationError) -> str:
    """The first thing that is wrong, in a sentence without what the input said."""
    first: Any = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}" if where else str(first["msg"])
