"""What is to be asked: prompts times settings times models, each so many times."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import BatchError, DataError, InvalidParameter
from ..finetune.checkpoints import write_last
from ..finetune.data import text_column
from ..finetune.reading import read
from ..finetune.tables import Limits
from ..types import ModelId, SamplingParams

CONFIG = "batch.json"
COLUMNS = ("prompt", "question", "input", "instruction", "text")
"""Names of the column that holds the prompts, the first one found."""

MOST = 100_000  # answers in one batch
INTEGERS = frozenset({"max_tokens", "top_k", "seed"})


class Item(NamedTuple):
    """One answer to ask for, by the places of its parts in the batch."""

    model: int
    setting: int
    prompt: int
    repeat: int


@dataclass(frozen=True, slots=True)
class Setting:
    """How the models are asked."""

    name: str = "default"
    params: SamplingParams = SamplingParams(temperature=0.0, max_tokens=512)
    system: str = ""


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

    def __len__(self) -> int:
        return len(self.prompts) * len(self.models) * len(self.settings) * self.repeats

    def items(self) -> Iterator[Item]:
        """All answers to ask for: a model is brought into memory once, and a prompt's repeats follow each other."""
        for model in range(len(self.models)):
            for setting in range(len(self.settings)):
                for prompt in range(len(self.prompts)):
                    for repeat in range(self.repeats):
                        yield Item(model, setting, prompt, repeat)

    def save(self, folder: Path) -> None:
        """Write it down; a folder belongs to one batch. Raises BatchError."""
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / CONFIG).exists() and self.load(folder) != self:
            raise BatchError(f"{folder} holds another batch.", hint="Choose another folder, or go on with that one.")
        settings = [{"name": s.name, "params": s.params.asdict(), "system": s.system} for s in self.settings]
        values = asdict(self) | {"models": [str(model) for model in self.models], "settings": settings}
        write_last(folder / CONFIG, json.dumps(values, ensure_ascii=False, indent=1))

    @classmethod
    def load(cls, folder: Path) -> Batch:
        """The batch of a folder. Raises BatchError."""
        try:
            values = json.loads((folder / CONFIG).read_text("utf-8"))
            return cls(
                prompts=tuple(map(str, values["prompts"])),
                models=tuple(map(ModelId.parse, values["models"])),
                settings=tuple(_setting(row) for row in values["settings"]),
                repeats=int(values["repeats"]),
            )
        except FileNotFoundError:
            raise BatchError(f"There is no batch in {folder}.", hint="Name the folder of one.") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            hint = "Begin a new batch in another folder; answers.jsonl holds what was answered."
            raise BatchError(f"{folder / CONFIG} cannot be read: {error}", hint=hint) from error


def _setting(row: Mapping[str, Any]) -> Setting:
    params: dict[str, Any] = dict(row["params"])
    if "stop" in params:
        params["stop"] = tuple(params["stop"])
    if "logit_bias" in params:
        params["logit_bias"] = tuple((int(token), float(bias)) for token, bias in params["logit_bias"])
    return Setting(str(row["name"]), SamplingParams(**params), str(row["system"]))


def prompts_of(source: Path) -> tuple[str, ...]:
    """The prompts of a file: lines of a .txt file, or a column of a table of any kind. Raises DataError."""
    if source.suffix.lower() == ".txt":
        try:
            found = [line.strip() for line in source.read_text("utf-8-sig").splitlines()]
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
    """A setting written `NAME:key=value,key=value`. Raises InvalidParameter.

    >>> setting_of("warm: temperature=0.7, seed=1").params.asdict()
    {'temperature': 0.7, 'seed': 1}
    """
    name, colon, rest = text.partition(":")
    known, params = {field.name for field in fields(SamplingParams)}, dict[str, Any]()
    for pair in filter(None, map(str.strip, rest.split(","))):
        key, _, value = (part.strip() for part in pair.partition("="))
        if key not in known:
            raise InvalidParameter(f"There is no sampling parameter {key!r}.", hint=f"Use {', '.join(sorted(known))}.")
        params[key] = _value(key, value)
    if not (name.strip() and colon):
        raise InvalidParameter(f"{text!r} is not a setting.", hint="Write NAME:key=value, as in warm:temperature=0.7.")
    return Setting(name.strip(), SamplingParams(**params), system)


def _value(key: str, text: str) -> Any:
    try:
        if key == "stop":
            return (text,)
        if key in ("grammar", "json_schema"):
            return text
        return int(text) if key in INTEGERS else float(text)
    except ValueError:
        raise InvalidParameter(f"{key} is {text!r}.", hint="Write a number.") from None
