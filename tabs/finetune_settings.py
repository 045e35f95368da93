"""The settings of a run: the form, what it says, and the memory that training takes. To HTML and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from html import escape
from pathlib import Path
from typing import Any

from multimodel.errors import InvalidParameter
from multimodel.finetune.bases import ALIASES, bases
from multimodel.finetune.fitting import rows_of_steps
from multimodel.finetune.store import Store
from multimodel.finetune.types import BUILT_IN, CHOICES, HELP, RANGES, TrainConfig
from multimodel.memory import MemoryPlan, Target, Verdict
from multimodel.settings import Settings
from multimodel.types import ON_HUB

from .explorer_page import TERMS, stack_html
from .format import size

DEFAULTS = {field.name: field.default for field in fields(TrainConfig)}
LABELS = {
    "epochs": "Epochs",
    "learning_rate": "Learning rate",
    "adaptation": "Adaptive pretraining",
    "batch_size": "Batch size",
    "max_length": "Max length",
    "class_weights": "Class weights",
    "early_stopping": "Early stopping",
    "evaluations": "Evaluations an epoch",
    "best_by": "Best by",
    "validation_size": "Validation share",
    "test_size": "Test share",
    "schedule": "Schedule",
    "warmup": "Warm-up",
    "weight_decay": "Weight decay",
    "gradient_accumulation": "Gradient accumulation",
    "gradient_checkpointing": "Gradient checkpointing",
    "freeze_layers": "Freeze layers",
    "lora_rank": "LoRA rank",
    "precision": "Precision",
    "device": "Device",
    "checkpoint_steps": "Checkpoint steps",
    "seed": "Seed",
}
COMMON = ("epochs", "batch_size", "learning_rate", "max_length")
EMPTY = dict.fromkeys(("adaptation", "checkpoint_steps", "learning_rate", "max_length"), "auto")
"""What an empty field means."""
FRACTIONS = frozenset({"learning_rate", "validation_size", "test_size", "warmup", "weight_decay"})
SIZES = {BUILT_IN: "built in", **dict.fromkeys(ALIASES, "from the Hub")}
LEAST_ROWS, MOST_ROWS = 8, 256  # of a batch that is proposed
SPLITTING = ("validation_size", "test_size", "seed")  # settings that decide who trains and who judges
USUAL_LENGTH = 128  # tokens, where neither a person nor data says more


# --- the form ---


def form_html(settings: Settings) -> str:
    """All settings but the data: the common ones, and the others folded."""
    options = "".join(f'<option value="{name}">{name} ({SIZES[name]})</option>' for name in bases(settings))
    names = "".join(
        f'<option value="{escape(name)}">{escape(name)} (yours)</option>' for name in Store(settings).names()
    )
    common = "".join(_field(name) for name in COMMON)
    others = "".join(_field(name) for name in LABELS if name not in COMMON)
    return (
        '<label class="mx-knob"><span>Base model</span><select data-set="base">'
        f'{options}{names}<option value="?">Another</option></select></label>'
        '<input type="text" data-set="other" placeholder="OWNER/REPO of the Hub" aria-label="Base model" '
        'spellcheck="false" hidden><label class="mx-knob"><span>Name of the model</span>'
        '<input type="text" data-set="name" maxlength="63" spellcheck="false" autocomplete="off"></label>'
        f'<div class="mf-grid">{common}</div><p class="mf-why" data-why></p>'
        f'<details class="mf-more"><summary>More settings</summary><div class="mf-grid">{others}</div></details>'
    )


def _field(name: str) -> str:
    default, help_ = DEFAULTS[name], escape(HELP[name])
    if isinstance(default, bool):
        return (
            f'<label class="mx-check" title="{help_}"><input type="checkbox" data-set="{name}">{LABELS[name]}'
            f"<small>{help_}</small></label>"
        )
    if name in CHOICES:
        rows = "".join(f"<option{' selected' if v == default else ''}>{v}</option>" for v in CHOICES[name])
        inner = f'<select data-set="{name}">{rows}</select>'
    else:
        low, high = RANGES[name]
        value = "" if default is None else f"{default:g}"
        step = "any" if name in FRACTIONS else "1"
        inner = (
            f'<input type="number" data-set="{name}" value="{value}" min="{low:g}" max="{high:g}" step="{step}" '
            f'placeholder="{EMPTY.get(name, "")}" inputmode="decimal">'
        )
    return f'<label class="mx-knob" title="{help_}"><span>{LABELS[name]}</span>{inner}<small>{help_}</small></label>'


def why_html(recommended: Mapping[str, tuple[Any, str]]) -> str:
    """The recommended settings in one line, each with its reason."""
    said = {
        "epochs": "{} epochs",
        "batch_size": "batches of {}",
        "max_length": "{} tokens a text",
        "class_weights": "class weights",
    }
    parts = [f"{said[name].format(value)} ({escape(why)})" for name, (value, why) in recommended.items()]
    use = '<button type="button" class="mx-link" data-do="recommended">Use these</button>'
    return f"For this data: {'; '.join(parts)}. {use}"


# --- what it says ---


def settings_of(asked: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a page sent, as fields of TrainConfig. Raises InvalidParameter for what is no number."""
    given = asked.get("settings")
    values = given if isinstance(given, Mapping) else {}
    found: dict[str, Any] = {}
    for name in LABELS:
        value = values.get(name)
        if value is None or (value == "" and name not in EMPTY):
            continue
        found[name] = _value(name, value)
    return found


def _value(name: str, value: Any) -> Any:
    default = DEFAULTS[name]
    if isinstance(default, bool):
        return bool(value)
    if name in CHOICES:
        return str(value)
    if value == "":
        return None
    try:
        number = float(str(value)[:40])
        whole = number if name in FRACTIONS else int(number)
    except (ValueError, OverflowError):
        raise InvalidParameter(f"{LABELS[name]} is no number: {str(value)[:40]!r}.", hint="Write a number.") from None
    if whole != number:
        raise InvalidParameter(f"{LABELS[name]} is {number:g}.", hint="Write a whole number.")
    return whole


def config_of(values: Mapping[str, Any], **more: Any) -> TrainConfig:
    """The config with settings of a page. Raises InvalidParameter in the page's words."""
    try:
        return TrainConfig(**{**values, **more})
    except InvalidParameter as error:
        name, rest = str(error).partition(" ")[::2]
        raise InvalidParameter(f"{LABELS.get(name, name)} {rest}", hint=error.hint) from None


def base_of(asked: Mapping[str, Any], settings: Settings) -> str:
    """The base model that a page named. Raises InvalidParameter.

    A path on this machine's disk is taken only where nobody else can reach the page.
    """
    name = str(asked.get("base") or BUILT_IN).strip()[:300]
    if name == BUILT_IN or name in ALIASES or name in Store(settings).names():
        return name
    if settings.security.private or (ON_HUB.fullmatch(name) and not Path(name).expanduser().exists()):
        return name
    raise InvalidParameter(f"{name!r} cannot be the base model.", hint="Write OWNER/REPO, as the Hub calls it.")


# --- memory ---


def most_rows(training: Any) -> int:
    """Of a batch that is proposed for so many rows: an epoch is to have enough steps, or a model learns too rarely.

    >>> most_rows(320), most_rows(100_000), most_rows(None)
    (16, 256, 256)
    """
    return min(MOST_ROWS, max(LEAST_ROWS, rows_of_steps(training))) if isinstance(training, int) else MOST_ROWS


def memory_html(plan: MemoryPlan, verdict: Verdict, target: Target, largest: int) -> str:
    """What training takes, against the machine's line. `largest`: batch that is proposed; 0 where none fits."""
    words = {"fits": "Fits", "tight": "Tight", "no": "Does not fit"}[verdict.level]
    terms = "".join(
        f'<li title="{escape(term.source)}"><i class="mx-dot mx-t-{TERMS[term.name][1]}"></i>'
        f"{TERMS[term.name][0]} {size(term.size)}</li>"
        for term in plan.terms
        if term.size > 0
    )
    helps = "".join(f"<li>{escape(help.text)}</li>" for help in verdict.helps[:3]) if verdict.level == "no" else ""
    remedies = helps and f'<ul class="mx-helps">{helps}</ul>'
    return (
        f'<div class="mf-memory mx-{verdict.level}"><div class="mx-answer"><b>{words}</b>'
        f"<span>{escape(verdict.reason)}</span></div>{stack_html(plan, target)}"
        f'<ul class="mf-terms">{terms}</ul>{remedies}{_largest(plan, verdict, largest)}</div>'
    )


def _largest(plan: MemoryPlan, verdict: Verdict, largest: int) -> str:
    """The offer of another batch size, where it would help."""
    how = plan.request.training
    smaller = verdict.level == "no"
    if not largest or not how or (how.batch_size <= largest if smaller else how.batch_size >= largest):
        return ""
    use = f'<button type="button" class="mx-link" data-batch="{largest}">Use {largest}</button>'
    says = f"Only {largest} rows a batch fit." if smaller else f"{largest} rows a batch fit too: quicker epochs."
    return f'<p class="mf-why">{says} {use}</p>'
