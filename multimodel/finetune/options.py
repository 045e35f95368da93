"""The command line of fine-tuning: every setting of a run is an option, made of the tables that the page reads too."""

from __future__ import annotations

import argparse
from dataclasses import MISSING, Field, fields
from typing import Any, get_args, get_type_hints

from .types import CHOICES, HELP, RANGES, TrainConfig

EXAMPLES = """examples:
  python -m multimodel.finetune reviews.csv --name reviews --epochs 5
  python -m multimodel.finetune sentiment --name moods --report-only
  python -m multimodel.finetune --resume reviews --batch-size 16
  python -m multimodel.finetune --runs

Ctrl+C stops after the step and keeps the best model so far; a second one leaves at once, and the run can be resumed."""


def parser() -> argparse.ArgumentParser:
    """All options. What is not given is absent from the result, so that a resumed run keeps its settings."""
    found = argparse.ArgumentParser(
        prog="python -m multimodel.finetune",
        usage="%(prog)s DATA --name NAME [options]\n       %(prog)s --resume NAME [options]\n       %(prog)s --runs",
        description="Fine-tune a text classifier.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    largest = "use the largest batch that fits the memory and leaves an epoch 20 steps, at least the recommended one"
    found.add_argument("data", nargs="?", metavar="DATA", help=_text(HELP["data"]))
    found.add_argument("--resume", metavar="NAME", help="go on with a run; options given here change its settings")
    found.add_argument("--runs", action="store_true", help="list the runs, and end")
    found.add_argument("--report-only", action="store_true", help="show what there is to know of the data, and end")
    found.add_argument("--push", metavar="REPO", help="bring the finished model to the Hub: OWNER/NAME, private")
    found.add_argument("--job", metavar="FLAVOR", help="train on a machine of the Hub, such as t4-small, not here")
    found.add_argument("--largest-batch", action="store_true", help=largest)
    settings = found.add_argument_group("settings of the run")
    hints = get_type_hints(TrainConfig)
    for field in fields(TrainConfig):
        if field.name != "data":
            _add(settings, field, hints[field.name])
    return found


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """The settings of a run among the options that were given."""
    return {field.name: getattr(options, field.name) for field in fields(TrainConfig) if hasattr(options, field.name)}


def _add(group: Any, field: Field[Any], hint: Any) -> None:
    """The option of a setting."""
    more: dict[str, Any] = {"dest": field.name, "help": _text(HELP[field.name], field)}
    if field.type in ("bool", bool):
        more["action"] = argparse.BooleanOptionalAction
    elif field.name in CHOICES:
        more["choices"] = CHOICES[field.name]
    elif field.name in RANGES:
        more |= {"type": int if int in (hint, *get_args(hint)) else float, "metavar": "N"}
    elif field.name == "fixes":
        more |= {"nargs": "+", "metavar": "NAME"}
    else:
        more["metavar"] = field.name.split("_")[-1].upper()
    group.add_argument(_flag(field.name), **more)


def option(name: str, value: Any) -> str:
    """A setting as the command line has it.

    >>> option("max_length", 64), option("class_weights", True), option("class_weights", False)
    ('--max-length 64', '--class-weights', '--no-class-weights')
    """
    if isinstance(value, bool):
        return _flag(name if value else f"no_{name}")
    return f"{_flag(name)} {value}"


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _text(help: str, field: Field[Any] | None = None) -> str:
    """A line of help with the range and the default."""
    said = []
    if field and field.name in RANGES:
        said.append("{:g} to {:g}".format(*RANGES[field.name]))
    if field and field.default not in (MISSING, None, False, ()):
        said.append(f"default {field.default}")
    return (help + (f" ({', '.join(said)})" if said else "")).replace("%", "%%")
