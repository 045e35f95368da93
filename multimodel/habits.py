"""What a visitor keeps for the next time: presets of columns and settings, and prompts with gaps to fill.

>>> Prompt(name="Explain", text="Explain {{topic}} to {{whom}}. What is {{ topic }} for?").variables
('topic', 'whom')
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Generic, Literal, TypeVar

from pydantic import Field, ValidationError, field_validator

from . import registry
from .conversation import MAX_COLUMNS, Options
from .errors import ForeignFile, InvalidName, MultimodelError
from .locate import GUIDE
from .settings import Settings
from .store import Store
from .store.forms import Form, complaint
from .types import ModelId, SamplingParams, whole

MOST = 200
"""Presets, and prompts, that a visitor may keep."""
LARGEST = 5_000_000  # characters of a file to import
GAP = re.compile(r"\{\{\s*([^{}\n]{1,60}?)\s*\}\}")
"""A variable in a prompt."""

Kind = Literal["preset", "prompt"]


class Named(Form):
    """What is kept under a name."""

    name: str = Field(min_length=1, max_length=80)

    @field_validator("name")
    @classmethod
    def _tidy(cls, name: str) -> str:
        if not (tidy := " ".join(whole(name).split())):
            raise ValueError("a name is empty")
        return tidy


class Pane(Form):
    """A column of a preset. `own`: its settings where they are not the shared ones."""

    model: ModelId
    own: Options | None = None

    @field_validator("model")
    @classmethod
    def _named(cls, model: ModelId) -> ModelId:
        if not (model.backend.strip() and model.name.strip()):
            raise ValueError("a model has no name")
        return model


class Preset(Named):
    """Columns, and the settings they share."""

    columns: tuple[Pane, ...] = Field(min_length=1, max_length=MAX_COLUMNS)
    shared: Options = Options()


class Prompt(Named):
    """A prompt for more than one time; `{{topic}}` in it is asked for when it is used."""

    text: str = Field(min_length=1, max_length=100_000)

    @field_validator("text")
    @classmethod
    def _said(cls, text: str) -> str:
        if not text.strip():
            raise ValueError("a prompt is empty")
        return whole(text)

    @property
    def variables(self) -> tuple[str, ...]:
        """The names in double braces, each once."""
        return tuple(dict.fromkeys(GAP.findall(self.text)))


class File(Form):
    """Presets and prompts to take elsewhere."""

    format: Literal["multimodel-habits"]
    version: Literal[1]
    presets: tuple[Preset, ...] = Field((), max_length=MOST)
    prompts: tuple[Prompt, ...] = Field((), max_length=MOST)


T = TypeVar("T", Preset, Prompt)


class Drawer(Generic[T]):
    """The things of one kind of all visitors. Every method raises StoreError where they cannot be kept or read."""

    def __init__(self, store: Store, kind: Kind, form: type[T]) -> None:
        self._shelf = store.shelf
        self._kind = kind
        self._form: type[T] = form

    def items(self, owner: str) -> tuple[T, ...]:
        """All of a visitor, in the order of the alphabet."""
        kept = self._shelf.items(owner, self._kind)
        return tuple(
            self._form.model_validate_json(body).model_copy(update={"name": name}) for name, body in kept.items()
        )

    def find(self, owner: str, name: str) -> T | None:
        """The one of that name."""
        return next((item for item in self.items(owner) if item.name == name), None)

    def add(self, owner: str, item: T) -> None:
        """Keep one more. Raises InvalidName where the name is taken, or too many are kept."""
        names = self._shelf.items(owner, self._kind)
        if item.name in names:
            hint = "Choose another name, or change that one."
            raise InvalidName(f"There is a {self._kind} called {item.name!r} already.", hint=hint)
        if len(names) >= MOST:
            raise InvalidName(f"{MOST} {self._kind}s are kept already.", hint="Delete some of them first.")
        self._shelf.put(owner, self._kind, {item.name: _json(item)})

    def change(self, owner: str, name: str, item: T) -> None:
        """Keep this in the place of the one of that name. Raises InvalidName where its own name is another's."""
        names = self._shelf.items(owner, self._kind)
        if name not in names:
            self.add(owner, item)
        elif item.name != name and item.name in names:
            raise InvalidName(f"There is a {self._kind} called {item.name!r} already.", hint="Choose another name.")
        else:
            self._shelf.rename(owner, self._kind, name, item.name, _json(item))

    def remove(self, owner: str, name: str) -> None:
        """Take one away."""
        self._shelf.remove(owner, self._kind, name)

    def bring(self, owner: str, items: Iterable[T]) -> int:
        """Keep what is new among these, under another name where the name is taken; how many that were."""
        kept = self._shelf.items(owner, self._kind)
        new: dict[str, str] = {}
        for item in items:
            if kept.get(item.name) == _json(item):
                continue
            free = item.model_copy(update={"name": _free(item.name, kept | new)})
            new[free.name] = _json(free)
        if len(kept) + len(new) > MOST:
            raise InvalidName(f"That would be more than {MOST} {self._kind}s.", hint="Delete some of them first.")
        self._shelf.put(owner, self._kind, new)
        return len(new)

    def chosen(self, owner: str) -> T | None:
        """The one that new chats begin with; None where no one is."""
        name = self._shelf.chosen(owner, self._kind)
        return self.find(owner, name) if name else None

    def choose(self, owner: str, name: str) -> None:
        """Let new chats begin with this one, or with "" with none."""
        self._shelf.choose(owner, self._kind, name)


class Habits:
    """What visitors keep, each by the hash that the store knows them by."""

    def __init__(self, store: Store) -> None:
        self.presets = Drawer(store, "preset", Preset)
        self.prompts = Drawer(store, "prompt", Prompt)

    def bring(self, owner: str, text: str) -> tuple[int, int]:
        """What a file holds, as far as it is new; how many presets and prompts. Raises ForeignFile."""
        file = from_json(text)
        return self.presets.bring(owner, file.presets), self.prompts.bring(owner, file.prompts)


def built_in(settings: Settings, shared: Options = Options()) -> tuple[Preset, ...]:
    """The presets that every machine has whose packages are there: the built-in model, in two ways. `shared`: the
    settings that stay as they are.
    """
    gguf, torch = ModelId("gguf", GUIDE), ModelId("transformers", GUIDE)
    greedy, warm = (
        Pane(model=gguf, own=replace(shared, params=shared.params.merge(SamplingParams(temperature=warmth))))
        for warmth in (0.0, 1.0)
    )
    presets = (
        Preset(name="Guide in two engines", columns=(Pane(model=gguf), Pane(model=torch)), shared=shared),
        Preset(name="Greedy and warm", columns=(greedy, warm), shared=shared),
    )
    return tuple(preset for preset in presets if all(_installed(pane.model, settings) for pane in preset.columns))


def _installed(model: ModelId, settings: Settings) -> bool:
    return registry.missing(registry.source(model.backend, settings)) is None


def to_json(presets: Iterable[Preset] = (), prompts: Iterable[Prompt] = ()) -> str:
    """A file of these."""
    file = File(format="multimodel-habits", version=1, presets=tuple(presets), prompts=tuple(prompts))
    return file.model_dump_json(indent=1, exclude_defaults=True) + "\n"


def from_json(text: str) -> File:
    """The inverse of `to_json`. Raises ForeignFile, which says what is wrong and where."""
    hint = "Choose a JSON file that was exported from Presets or from the prompt library."
    if len(text) > LARGEST:
        raise ForeignFile(f"The file is larger than {LARGEST // 1_000_000} MB.", hint=hint)
    try:
        return File.model_validate_json(text)
    except ValidationError as error:
        raise ForeignFile(f"This is no file of presets or prompts. {complaint(error)}.", hint=hint) from None
    except MultimodelError as error:  # a parameter out of its range
        raise ForeignFile(f"The file is damaged: {error}", hint=hint) from None


def made(form: type[T], **fields: object) -> T:
    """A preset or prompt of what a person typed. Raises InvalidName, which says what is wrong with it."""
    try:
        return form.model_validate(fields)
    except ValidationError as error:
        raise InvalidName(f"It cannot be kept: {complaint(error)}.", hint="Correct it, and save again.") from None


def _json(item: Form) -> str:
    return item.model_dump_json(exclude_defaults=True)


def _free(name: str, taken: dict[str, str]) -> str:
    """The name, or with the first number behind it that is not taken."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name[:74]} ({number})"
    return free
