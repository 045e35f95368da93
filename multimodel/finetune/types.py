"""What a fine-tuning run is told and what it reports. Standard library only; every type is frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from numbers import Real
from pathlib import Path
from typing import Any, Literal, Self, get_args

from ..errors import InvalidParameter, MultimodelError

Task = Literal["single_label", "multi_label", "regression"]
Precision = Literal["float32", "int8"]
"""How a model predicts: with its own weights, or by ONNX Runtime with weights in 8 bits, where it was exported."""
Phase = Literal["queued", "preparing", "training", "evaluating", "saving", "done", "stopped", "failed", "interrupted"]
"""Where a run is.

`stopped`: a person stopped it; the best model so far is saved. `failed`: see the error. `interrupted`: its process or
the app ended; nothing but the steps since the last checkpoint is lost. The last three can be resumed.
"""

ENDED = frozenset({"done", "stopped", "failed", "interrupted"})
SPLITS = ("train", "validation", "test")
BUILT_IN = "encoder"  # the base model that is part of the repository

CHOICES: dict[str, tuple[str, ...]] = {
    "task": ("auto", *get_args(Task)),
    "schedule": ("linear", "cosine", "constant"),
    "best_by": ("auto", "loss", "accuracy", "f1", "rmse"),
    "precision": ("auto", "float32", "bfloat16", "float16"),
    "device": ("auto", "cpu", "cuda", "mps"),
}
"""The values of the parameters that are a choice."""

RANGES: dict[str, tuple[float, float]] = {
    "validation_size": (0.0, 0.5),
    "test_size": (0.0, 0.5),
    "epochs": (1, 200),
    "adaptation": (0, 100),
    "learning_rate": (1e-7, 0.1),
    "warmup": (0.0, 0.9),
    "weight_decay": (0.0, 1.0),
    "batch_size": (1, 1024),
    "gradient_accumulation": (1, 256),
    "max_length": (8, 8192),
    "evaluations": (1, 50),
    "early_stopping": (0, 100),
    "freeze_layers": (0, 100),
    "lora_rank": (0, 256),
    "seed": (0, 2**31 - 1),
    "checkpoint_steps": (1, 1_000_000),
}
"""Lowest and highest value of each parameter that is a number; the sliders read the same table."""

TYPES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "True or False",
    "str": "a text",
    "tuple[str, ...]": "a list of texts",
}
"""The types of parameters in words; a choice has its values instead."""

PATHS = ("data", "validation_data", "test_data", "base")  # a path is as good as its text

HELP: dict[str, str] = {
    "data": "A CSV, TSV, JSON, JSONL, Parquet or Excel file, a folder of such files, a sample set, or a Hub data set.",
    "text_column": "The column that holds the texts; found by itself where it is not named.",
    "label_column": "The column that holds the answers; found by itself where it is not named.",
    "split_column": "A column that says train, validation or test for each row.",
    "validation_data": "A file of its own for validation; its columns are those of the data.",
    "test_data": "A file of its own for the final test; its columns are those of the data.",
    "task": "One label a text, several labels a text, or a number.",
    "label_separator": "What stands between the labels of one cell, for texts with several.",
    "fixes": "Findings of the data report to repair before training, by name.",
    "validation_size": "The share of rows on which training is judged as it goes on.",
    "test_size": "The share of rows kept aside for the final figures.",
    "base": "The encoder to start from: encoder (built in), a folder, or OWNER/REPO on the Hub.",
    "name": "What the model will be called; its folder has this name.",
    "epochs": "Rounds of training over all rows.",
    "adaptation": "Epochs of guessing masked words of your texts before; empty: chosen for the base model, 0: none.",
    "learning_rate": "How far a step goes; empty: chosen for the base model.",
    "schedule": "How the learning rate falls from its highest value to the end.",
    "warmup": "The share of all steps during which the learning rate rises from zero.",
    "weight_decay": "How strongly weights are pulled to zero; a little keeps a model from learning rows by heart.",
    "batch_size": "Rows a pass; lower it when memory is short.",
    "gradient_accumulation": "Passes whose gradients make one step: a larger batch without more memory.",
    "gradient_checkpointing": "Computes activations twice instead of keeping them: less memory, about a third slower.",
    "class_weights": "Rare classes count as much as frequent ones.",
    "max_length": "Tokens read of a text; empty: enough for 99 of 100.",
    "evaluations": "How often per epoch the model is judged on the validation rows.",
    "early_stopping": "Ends training after so many evaluations without a better one; 0: never, often the best way.",
    "best_by": "What says which model is best, of models alike the later one; auto: f1, or rmse for numbers.",
    "freeze_layers": "The embeddings and so many first layers are not trained: faster, often a little worse.",
    "lora_rank": "Trains small added matrices of this rank instead of all weights; 0: all weights.",
    "precision": "The number format of the matrix products; auto: the faster one, measured on this machine.",
    "device": "Where to train; auto: a GPU where there is one.",
    "seed": "The same seed, data and settings give the same model on the same machine.",
    "checkpoint_steps": "Steps between two checkpoints; empty: about one a minute, and one with every best model.",
}
"""One line of help for each parameter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """What to train, on what, and how. None: chosen from the data and the base model.

    >>> TrainConfig(data="reviews.csv", name="reviews").merge({"epochs": 5}).epochs
    5

    Raises InvalidParameter for a value of another type or out of its range.
    """

    data: str
    name: str
    text_column: str | None = None
    label_column: str | None = None
    split_column: str | None = None
    validation_data: str | None = None
    test_data: str | None = None
    task: Literal["auto"] | Task = "auto"
    label_separator: str | None = None
    fixes: tuple[str, ...] = ()
    validation_size: float = 0.1  # fraction of the rows
    test_size: float = 0.1  # fraction of the rows
    base: str = BUILT_IN
    epochs: int = 3
    adaptation: int | None = None  # epochs
    learning_rate: float | None = None
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup: float = 0.1  # fraction of the steps
    weight_decay: float = 0.01
    batch_size: int = 32  # rows
    gradient_accumulation: int = 1  # batches per step
    gradient_checkpointing: bool = False
    class_weights: bool = False
    max_length: int | None = None  # tokens
    evaluations: int = 1  # per epoch
    early_stopping: int = 0  # evaluations without a better one; 0: never
    best_by: Literal["auto", "loss", "accuracy", "f1", "rmse"] = "auto"
    freeze_layers: int = 0
    lora_rank: int = 0  # 0: off
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    seed: int = 42
    checkpoint_steps: int | None = None

    def __post_init__(self) -> None:
        for f in fields(self):
            object.__setattr__(self, f.name, _typed(f.name, str(f.type), getattr(self, f.name)))
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise InvalidParameter(f"{name} is {value}.", hint=f"Choose a value from {low:g} to {high:g}.")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise InvalidParameter(f"{name} is {getattr(self, name)!r}.", hint=f"Use {', '.join(choices)}.")

    def asdict(self) -> dict[str, Any]:
        """All fields, as JSON can hold them."""
        return asdict(self)

    def merge(self, changes: Mapping[str, Any]) -> TrainConfig:
        """A copy with these fields changed. Raises InvalidParameter for a field there is none of."""
        if unknown := set(changes) - {f.name for f in fields(self)}:
            raise InvalidParameter(f"There is no setting {sorted(unknown)[0]!r}.")
        return replace(self, **changes)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """The config that `asdict` gave; fields of another version are left out."""
        known = {f.name for f in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})


def _typed(name: str, type: str, value: Any) -> Any:
    """A value as its field has it. Raises InvalidParameter for one of another type.

    >>> _typed("epochs", "int", 3.0), _typed("fixes", "tuple[str, ...]", ["leaks"]), _typed("data", "str", Path("a"))
    (3, ('leaks',), 'a')
    """
    kind = type.removesuffix(" | None")
    if value is None and kind != type:
        return None
    match kind:
        case "int" if _number(value) and value % 1 == 0:
            return int(value)
        case "float" if _number(value):
            return float(value)
        case "bool" if isinstance(value, bool):
            return value
        case "str" if isinstance(value, str) or (name in PATHS and isinstance(value, Path)):
            return str(value)
        case "tuple[str, ...]" if isinstance(value, list | tuple) and all(isinstance(one, str) for one in value):
            return tuple(value)
        case _ if kind in TYPES:
            more = " or None" if kind != type else ""
            raise InvalidParameter(f"{name} is {value!r:.80}.", hint=f"Give {TYPES[kind]}{more}.")
    return value  # a choice


def _number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


@dataclass(frozen=True, slots=True)
class Point:
    """One point of a curve."""

    step: int
    value: float


Curves = Mapping[str, tuple[Point, ...]]
"""Points by name: loss and learning_rate of training; validation_loss, accuracy, f1 ... of the evaluations."""


@dataclass(frozen=True, slots=True)
class Best:
    """The evaluation whose weights are kept: the highest, or a later one that is lower by less than chance."""

    step: int
    metric: str
    value: float
    highest: float | None = None  # figure of all evaluations; None in records of older versions


@dataclass(frozen=True, slots=True)
class TrainUpdate:
    """A run as it stands. Each one replaces the one before."""

    run: str
    phase: Phase = "queued"
    detail: str = ""  # one short sentence on what goes on
    position: int | None = None  # in the queue; 1 is next
    step: int = 0
    total_steps: int = 0
    epoch: float = 0.0
    epochs: int = 0
    prepared: float | None = None  # 0..1 while preparing, where it is known
    evaluated: float | None = None  # 0..1 while an evaluation runs
    steps_per_second: float | None = None
    samples_per_second: float | None = None
    seconds_left: float | None = None
    curves: Curves = field(default_factory=dict)
    new: Curves = field(default_factory=dict)  # the points since the update before
    metrics: Mapping[str, float] = field(default_factory=dict)  # the newest evaluation; at the end, the final figures
    best: Best | None = None
    plan: Mapping[str, Any] = field(default_factory=dict)  # what was chosen, and why: max_length, precision, rows ...
    log: tuple[str, ...] = ()  # the last lines
    model: str | None = None  # the folder of the saved model
    error: MultimodelError | None = None
    retry: Mapping[str, Any] = field(default_factory=dict)  # settings with which another try may succeed

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self.phase in ENDED

    @property
    def fraction(self) -> float:
        """Of the whole run, 0..1."""
        return 1.0 if self.phase == "done" else min(1.0, self.step / self.total_steps) if self.total_steps else 0.0

    @property
    def epoch_fraction(self) -> float:
        """Of the epoch under way, 0..1.

        >>> TrainUpdate("a", epoch=1.25, epochs=3).epoch_fraction, TrainUpdate("a", epoch=3.0, epochs=3).epoch_fraction
        (0.25, 1.0)
        """
        return self.epoch % 1.0 if self.epoch < self.epochs or not self.epochs else 1.0

    @property
    def loss(self) -> float | None:
        """The newest training loss."""
        points = self.curves.get("loss")
        return points[-1].value if points else None


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model says of one text.

    Several labels a text: `label` joins those above the threshold with ", ", `labels` has them one by one. A number:
    `score` is the number, `scores` is empty.
    """

    label: str
    score: float  # the probability of the label, 0..1
    scores: Mapping[str, float]  # every label's probability, in the model's order
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Attribution:
    """How much one word of a text speaks for a label."""

    word: str
    start: int  # position in the text, in characters
    weight: float  # log-odds that go with it when it is left out; below 0 it speaks against the label


@dataclass(frozen=True, slots=True)
class Filling:
    """One word that a masked language model would put in the gap."""

    token: str
    score: float  # probability, 0..1
    text: str  # the whole text with the word in it
