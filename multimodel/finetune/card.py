"""The model card: what the model is for, on what and how it was trained, how good it is, and where its limits are."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

TASKS = {
    "single_label": "says which of {n} classes a text belongs to",
    "multi_label": "says which of {n} labels a text has",
    "regression": "gives a number for a text",
}
NAMES = {"accuracy": "Accuracy", "f1": "Macro F1", "micro_f1": "Micro F1", "rmse": "RMSE", "mae": "MAE", "r2": "R²"}
MOST_CLASSES = 100  # rows of the table
TEMPERED = """
Other programs do not divide by the temperature, and show other probabilities; with transformers they become these so:

```python
from transformers import pipeline

classify = pipeline("text-classification", model="the path of this folder")
classify.model.register_forward_hook(lambda model, asked, said: type(said)(logits=said.logits / {temperature}))
```"""


def card(data: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    """The card in Markdown, from the training record and the metrics."""
    parts = [
        "---\nlibrary_name: transformers\npipeline_tag: text-classification\n---",
        f"# {data['name']}",
        f"This model {TASKS[data['task']].format(n=len(data['classes']))}. Fine-tuned with MultiModel from "
        f"`{public(data['base'])}`.",
        _figures(metrics),
        _classes(metrics.get("per_class", ())),
        _data(data["data"]),
        _training(data),
        _limits(metrics),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def public(source: str) -> str:
    """A name as others may see it: of a path on this machine only its last part.

    >>> public("/home/ada/reviews.csv"), public("distilbert/distilbert-base-uncased")
    ('reviews.csv', 'distilbert/distilbert-base-uncased')
    """
    parts = re.split(r"[\\/]", source)
    is_path = len(parts) > 2 or not parts[0] or parts[0] in (".", "..", "~") or ":" in parts[0]
    return parts[-1] if is_path else source


def _figures(metrics: Mapping[str, Any]) -> str:
    found = [(NAMES[name], metrics[name], metrics["baseline"].get(name)) for name in NAMES if name in metrics]
    if not found:
        return "## Figures\n\nNo rows were kept aside, so nothing is known of its quality."
    rows = [f"| {name} | {value:.4f} | {f'{base:.4f}' if base is not None else ''} |" for name, value, base in found]
    head = f"On {metrics['rows']:,} rows of the {metrics['split']} split, which training did not see:"
    if metrics["split"] == "validation":
        head = f"On {metrics['rows']:,} validation rows; the best epoch was chosen on them, so they flatter a little:"
    table = ["| | this model | TF-IDF and logistic regression |", "| :-- | --: | --: |", *rows]
    return "\n".join(["## Figures", "", head, "", *table, *_calibration(metrics.get("calibration"))])


def _calibration(found: Mapping[str, Any] | None) -> list[str]:
    if not found:
        return []
    before = f" (before it {found['ece_before']:.3f})" if "ece_before" in found else ""
    temperature = found.get("temperature", 1.0)
    degree = f" after temperature {temperature:.2f}" if "temperature" in found else ""
    how = [TEMPERED.format(temperature=temperature)] if temperature != 1.0 else []
    return ["", f"Expected calibration error{degree}: {found['ece']:.3f}{before}.", *how]


def _classes(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return ""
    lines = [
        f"| {_cell(row['label'])} | {row['precision']:.3f} | {row['recall']:.3f} | {row['f1']:.3f} | {row['support']} |"
        for row in rows[:MOST_CLASSES]
    ]
    return "\n".join(["| class | precision | recall | F1 | rows |", "| :-- | --: | --: | --: | --: |", *lines])


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")[:80]


def _data(data: Mapping[str, Any]) -> str:
    rows = ", ".join(f"{count:,} {name}" for name, count in data["rows"].items())
    return f"## Data\n\n`{public(data['source'])}`: {rows} rows. SHA-256 of the rows: `{data['sha256']}`."


def _training(data: Mapping[str, Any]) -> str:
    asked, trained = data["parameters"], data["training"]
    shown = ("epochs", "learning_rate", "schedule", "batch_size", "gradient_accumulation", "max_length", "precision")
    settings = ", ".join(f"{name.replace('_', ' ')} {asked[name]}" for name in (*shown, "seed"))
    used = ", ".join(f"{name} {number}" for name, number in data["versions"].items())
    end = "stopped by hand" if trained["phase"] == "stopped" else "stopped early" if trained["early"] else "to the end"
    return (
        f"## Training\n\n{settings}. {trained['steps']:,} of {trained['total_steps']:,} steps ({end}); "
        f"the weights are those of step {trained['step']:,}. {used}."
    )


def _limits(metrics: Mapping[str, Any]) -> str:
    worst = min(metrics.get("per_class", ()), key=lambda row: row["f1"], default=None)
    weak = f" It is weakest on {_cell(worst['label'])!r} (F1 {worst['f1']:.2f})." if worst and worst["f1"] < 1 else ""
    return (
        "## Limits\n\nIt knows texts like those it was trained on, and always gives one of its answers, for texts "
        f"of another kind too.{weak} Probabilities hold for data like the test rows."
    )
