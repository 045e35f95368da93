"""What is to be asked: prompts times settings times models, each so many times."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field, ValidationError

from ..conversation import LOADING
from ..errors import BatchError, DataError, InvalidParameter, MultimodelError
from ..finetune.checkpoints import write_last
from ..finetune.data import text_column
from ..finetune.reading import read
from ..finetune.tables import Limits
from ..modifiers import loaded_with, written
from ..store.forms import Form, complaint
from ..types import LoadOptions, ModelId, ModelSpec, SamplingParams, whole

CONFIG = "batch.json"
COLUMNS = ("prompt", "question", "input", "instruction", "text")
"""Names of the column that holds the prompts, the first one found."""

MOST = 100_000  # answers in one batch
MOST_SETTINGS = 20
LONGEST_NAME = 60
INTEGERS = frozenset({"max_tokens", "top_k", "seed"})
OWN = ("adapter", "adapter_scale")
"""What of loading names files of this machine: a person says it at the terminal, a file of anybody may not."""
SAMPLING = frozenset(field.name for field in fields(SamplingParams))
RULE = re.compile(r"^\s*-{3,}\s*$", re.MULTILINE)
"""A line between two prompts of more than one line."""


class Item(NamedTuple):
    """One answer to ask for, by the places of its parts in the batch."""

    model: int
    setting: int
    prompt: int
    repeat: int


@dataclass(frozen=True, slots=True)
class Setting:
    """How the models are asked, and how those of this machine are loaded: only fields of LOADING and OWN."""

    name: str = "default"
    params: SamplingParams = SamplingParams(temperature=0.0, max_tokens=512)
    system: str = ""
    load: LoadOptions = LoadOptions()

    def __post_init__(self) -> None:
        object.__setattr__(self, "system", whole(self.system))
        if other := self.load.changed().difference(LOADING, OWN):
            raise InvalidParameter(f"A setting has no option {min(other)!r}.", hint=f"It has {', '.join(LOADING)}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What is to be asked. Raises BatchError where there is nothing to ask, or too much.

    >>> batch = Batch(prompts=("a", "b"), models=(ModelId("echo", "any"),), repeats=2)
    >>> len(batch), [(item.prompt, item.repeat) for item in batch.items()]
    (4, [(0, 0), (0, 1), (1, 0), (1, 1)])
    """

    prompts: tuple[str, ...]
    models: tuple[ModelId, ...]
    settings: tuple[Setting, ...] = (Setting(),)
    repeats: int = 1  # answers to each prompt; the first of a model that was not loaded is the cold one
    revisions: tuple[str, ...] = ()  # of each model, on the Hub; "", and none at all: the newest

    def __post_init__(self) -> None:
        for what in ("prompts", "models", "settings"):
            found = getattr(self, what)
            if not found:
                raise BatchError(f"There are no {what}.", hint="Name at least one.")
            names = [each.name if isinstance(each, Setting) else each for each in found]
            if what != "prompts" and len(set(names)) < len(found):
                raise BatchError(f"Two of the {what} are the same.", hint="Name each once.")
        if self.repeats < 1 or len(self) > MOST:
            hint = f"Ask for at most {MOST:,} in one batch."
            raise BatchError(f"{len(self):,} answers were asked for.", hint=hint)
        if self.revisions and len(self.revisions) != len(self.models):
            raise BatchError("The revisions are not as many as the models.", hint='Write "" for the newest.')

    def __len__(self) -> int:
        return len(self.prompts) * len(self.models) * len(self.settings) * self.repeats

    def items(self) -> Iterator[Item]:
        """All answers to ask for: a model is brought into memory once, and a prompt's repeats follow each other."""
        for model in range(len(self.models)):
            for setting in range(len(self.settings)):
                for prompt in range(len(self.prompts)):
                    for repeat in range(self.repeats):
                        yield Item(model, setting, prompt, repeat)

    def __contains__(self, item: Item) -> bool:
        sizes = (len(self.models), len(self.settings), len(self.prompts), self.repeats)
        return all(0 <= place < size for place, size in zip(item, sizes, strict=True))

    def spec(self, item: Item) -> ModelSpec:
        """The model of an answer and how it is loaded."""
        revision = self.revisions[item.model] if self.revisions else ""
        load = replace(self.settings[item.setting].load, revision=revision or None)
        return ModelSpec(self.models[item.model], load)

    def save(self, folder: Path) -> None:
        """Write it down; a folder belongs to one batch. Raises BatchError."""
        if (folder / CONFIG).exists() and self.load(folder, own=True) != self:
            raise BatchError(f"{folder} holds another batch.", hint="Choose another folder, or go on with that one.")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_last(folder / CONFIG, BatchForm.of(self).model_dump_json(indent=1, exclude_defaults=True))
        except OSError as error:
            hint = "Free some space, or choose another folder."
            raise BatchError(f"{folder} cannot be written: {error}", hint=hint) from error

    @classmethod
    def load(cls, folder: Path, *, own: bool = False) -> Batch:
        """The batch of a folder. Raises BatchError; also where it names files of this machine, which may be the wish of
        whoever made the folder, unless it is only to be read (`own`)."""
        hint = "Begin a new batch in another folder; answers.jsonl holds what was answered."
        try:
            return BatchForm.model_validate_json((folder / CONFIG).read_text("utf-8")).batch(own=own)
        except FileNotFoundError:
            raise BatchError(f"There is no batch in {folder}.", hint="Name the folder of one.") from None
        except ValidationError as error:
            raise BatchError(f"{folder / CONFIG} cannot be read: {complaint(error)}.", hint=hint) from error
        except BatchError:
            raise
        except (OSError, ValueError, MultimodelError) as error:
            raise BatchError(f"{folder / CONFIG} cannot be read: {error}", hint=hint) from error


class SettingForm(Form):
    """A setting in a file."""

    name: str = Field(min_length=1, max_length=LONGEST_NAME)
    params: SamplingParams = SamplingParams()
    system: str = ""
    load: LoadOptions = LoadOptions()


class BatchForm(Form):
    """A batch in a file."""

    prompts: tuple[str, ...]
    models: tuple[str, ...]
    settings: tuple[SettingForm, ...]
    repeats: int
    revisions: tuple[str, ...] = ()

    @classmethod
    def of(cls, batch: Batch) -> BatchForm:
        """The form of a batch."""
        return cls(
            prompts=batch.prompts,
            models=tuple(map(str, batch.models)),
            settings=tuple(
                SettingForm(name=s.name, params=s.params, system=s.system, load=s.load) for s in batch.settings
            ),
            repeats=batch.repeats,
            revisions=batch.revisions,
        )

    def batch(self, *, own: bool = False) -> Batch:
        """The batch of this form. Raises BatchError, InvalidModelId, InvalidParameter. `own` as in `Batch.load`."""
        named = next((s.load.adapter for s in self.settings if s.load.changed() & set(OWN)), None)
        if named is not None and not own:
            hint = "A file may not choose files of this machine. Give the whole command, with --set, and it goes on."
            raise BatchError(f"The batch names the adapter {named!r}.", hint=hint)
        return Batch(
            prompts=self.prompts,
            models=tuple(map(ModelId.parse, self.models)),
            settings=tuple(Setting(s.name, s.params, s.system, s.load) for s in self.settings),
            repeats=self.repeats,
            revisions=self.revisions,
        )


def prompts_in(text: str) -> tuple[str, ...]:
    """The prompts of a text that a person typed: one a line, or what stands between lines of dashes.

    >>> prompts_in("one\\n\\ntwo\\n"), prompts_in("a\\nb\\n---\\nc\\n")
    (('one', 'two'), ('a\\nb', 'c'))
    """
    parts = RULE.split(text) if RULE.search(text) else text.splitlines()
    return tuple(prompt for part in parts if (prompt := whole(part).strip()))


def text_of(prompts: tuple[str, ...]) -> str:
    """The inverse of `prompts_in`."""
    if all(len(prompt.splitlines()) == 1 and not RULE.search(prompt) for prompt in prompts):
        return "\n".join(prompts)
    return "".join(f"{RULE.sub('', prompt).strip()}\n---\n" for prompt in prompts)


def prompts_of(source: Path) -> tuple[str, ...]:
    """The prompts of a file: lines of a .txt file, or a column of a table of any kind. Raises DataError."""
    if source.suffix.lower() == ".txt":
        try:
            found = list(prompts_in(source.read_text("utf-8-sig")))
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{source} cannot be read: {error}", hint="Save it as text in UTF-8.") from error
    else:
        table = read(source, Limits())
        named = {name.strip().lower(): name for name in table.columns}
        column = next((named[name] for name in COLUMNS if name in named), None) or text_column(table)
        found = ["" if cell is None else str(cell).strip() for cell in table.column(column)]
    if not any(found):
        raise DataError(f"{source.name} holds no prompts.", hint="Write one a line, or a column called prompt.")
    return tuple(prompt for prompt in found if prompt)


def setting_of(text: str, system: str = "") -> Setting:
    """A setting written `NAME:key=value,key=value`: fields of SamplingParams, of LOADING and of OWN. Raises
    InvalidParameter. A chat template, which may hold commas, is a file: `chat_template=@FILE`.

    >>> warm = setting_of("warm: temperature=0.7, seed=1, dtype=int4")
    >>> warm.params.asdict(), warm.load.dtype
    ({'temperature': 0.7, 'seed': 1}, 'int4')
    """
    name, colon, rest = text.partition(":")
    params, load = dict[str, Any](), dict[str, Any]()
    for pair in filter(None, map(str.strip, rest.split(","))):
        key, _, value = (part.strip() for part in pair.partition("="))
        if key in SAMPLING:
            params[key] = _value(key, value)
        elif key in (*LOADING, *OWN):
            load[key] = written(key, _text_of(value) if key == "chat_template" else value)
        else:
            hint = f"Use {', '.join(sorted(SAMPLING))}; of loading {', '.join(sorted((*LOADING, *OWN)))}."
            raise InvalidParameter(f"There is no option {key!r}.", hint=hint)
    if not (name.strip() and colon):
        raise InvalidParameter(f"{text!r} is not a setting.", hint="Write NAME:key=value, as in warm:temperature=0.7.")
    return Setting(name.strip(), SamplingParams(**params), system, loaded_with(load))


def _text_of(value: str) -> str:
    """A text as it is written, or that of a file after "@". Raises InvalidParameter."""
    if not value.startswith("@"):
        return value
    try:
        return Path(value[1:]).expanduser().read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidParameter(f"{value[1:]} cannot be read: {error}", hint="Save it as text in UTF-8.") from error


def _value(key: str, text: str) -> Any:
    try:
        if key == "stop":
            return (text,)
        if key in ("grammar", "json_schema"):
            return text
        return int(text) if key in INTEGERS else float(text)
    except ValueError:
        raise InvalidParameter(f"{key} is {text!r}.", hint="Write a number.") from None
