"""The saved models: values to HTML. Pure; every text of a person, a file or a model is escaped here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from html import escape
from typing import TYPE_CHECKING, Any

from multimodel.finetune.card import NAMES, public

from .explorer_list import ago
from .finetune_run import beside_text, known_text
from .format import part_of, seconds, size

if TYPE_CHECKING:
    from multimodel.finetune.store import SavedModel
    from multimodel.jobs import Progress

TASKS = {"single_label": "one label a text", "multi_label": "several labels a text", "regression": "a number"}
SPLITS = {"test": "test rows", "validation": "validation rows, which chose the best epoch"}
LOWER = ("rmse", "mae")  # figures of which less is better
HEAT = 24  # classes up to which the whole confusion matrix is shown
PAIRS = 20  # otherwise the pairs that are confused most
ERRORS = 50  # misclassified rows that are shown
PER_CLASS = 200


# the list


def models_html(saved: Sequence[SavedModel], today: date) -> str:
    """All saved models, the newest first."""
    if not saved:
        return (
            '<div class="mx-quiet">No model yet. Train one: it appears here with its figures, '
            "ready to be used, packed and shared.</div>"
        )
    return f'<ul class="mp-models">{"".join(_model(model, today) for model in saved)}</ul>'


def _model(model: SavedModel, today: date) -> str:
    name = escape(model.name)
    facts = [f"{len(model.classes)} classes" if model.classes else "", public(model.base), when(model.created, today)]
    facts.append(size(model.size))
    soft = "".join(f"<span>{escape(fact)}</span>" for fact in facts if fact)
    return (
        f'<li><button type="button" class="mx-row" data-open="{name}"><span class="mx-row-top">'
        f'<span class="mx-name">{name}</span><span class="mp-score">{escape(headline(model.metrics))}</span></span>'
        f'<span class="mx-row-figures">{soft}</span></button></li>'
    )


def headline(metrics: Mapping[str, Any]) -> str:
    """The figure by which a model is known.

    >>> headline({"f1": 0.91, "accuracy": 0.9321}), headline({"rmse": 3.25})
    ('Accuracy 93.2 %', 'RMSE 3.25')
    """
    for name in ("accuracy", "f1", "rmse"):
        if name in metrics:
            return f"{NAMES[name]} {figure(name, metrics[name])}"
    return "not judged"


def figure(name: str, value: float) -> str:
    """A figure as it is read: shares in percent, errors as they are."""
    return f"{value:.3g}" if name in (*LOWER, "r2") else f"{100 * value:.1f} %"


def when(created: str, today: date) -> str:
    """How long ago a model was made; empty where its record does not say."""
    try:
        return ago(datetime.fromisoformat(created).date(), today)
    except ValueError:
        return ""


# one model


def detail_html(model: SavedModel, record: Mapping[str, Any], frees: int, onnx: str, today: date) -> str:
    """A model's page. `record`: its metrics, errors and metadata; `onnx`: the button of that export."""
    metrics, data = record["metrics"], record["metadata"]
    parts = [
        _head(model, frees, onnx, today),
        _figures(metrics),
        _quality(metrics),
        _errors(record["errors"], metrics),
        _use(model, data),
        _made(data),
        "<details data-card-place><summary>Model card</summary><div data-card></div></details>",
    ]
    return f'<article class="mx-page mp-model-page" data-name="{escape(model.name)}">{"".join(parts)}</article>'


def _head(model: SavedModel, frees: int, onnx: str, today: date) -> str:
    facts = (TASKS.get(model.task, ""), f"from {public(model.base)}", when(model.created, today), size(model.size))
    soft = "".join(f"<span>{escape(fact)}</span>" for fact in facts if fact)
    return (
        '<header class="mx-page-head"><button type="button" class="mx-back" data-do="back">All models</button>'
        f'<h2 data-title>{escape(model.name)}</h2><p class="mx-row-figures">{soft}</p>'
        '<div class="mp-acts"><button type="button" class="mx-primary" data-do="predict">Predict with it</button>'
        '<button type="button" data-do="zip">Download zip</button>'
        '<button type="button" data-do="hub">Push to the Hub</button>'
        f'{onnx}<button type="button" data-do="rename">Rename</button>'
        f'<button type="button" data-do="delete" data-frees="{size(frees)}">Delete</button></div>'
        '<div class="mp-said-here" data-act-out role="status"></div></header>'
    )


def rename_html(name: str) -> str:
    """The field for a new name."""
    return (
        '<form class="mp-form" data-form="rename"><label><span>New name</span>'
        f'<input type="text" name="to" value="{escape(name)}" maxlength="63" autocomplete="off" spellcheck="false">'
        '</label><button type="submit" class="mx-primary">Rename</button>'
        '<button type="button" data-do="dismiss">Leave it</button><div data-form-out></div></form>'
    )


def push_html(name: str, has_token: bool, hub_url: str) -> str:
    """What is needed to bring a model to the Hub."""
    ask = (
        '<label><span>Access token</span><input type="password" name="secret" autocomplete="off" '
        'placeholder="hf_... with the right to write"></label>'
    )
    return (
        '<form class="mp-form" data-form="push"><label><span>Repository</span>'
        f'<input type="text" name="repo" value="{escape(name.replace(" ", "-"))}" placeholder="OWNER/NAME, or NAME" '
        'autocomplete="off" spellcheck="false"></label>'
        f"{'' if has_token else ask}"
        '<label class="mx-check"><input type="checkbox" name="private" checked>private</label>'
        '<label class="mx-check"><input type="checkbox" name="update">update it if it exists</label>'
        '<button type="submit" class="mx-primary">Push</button>'
        '<button type="button" data-do="dismiss">Leave it</button><p class="mx-soft">'
        f"Weights, tokenizer, figures and card go to {escape(hub_url)}. Texts of your data and paths of this machine "
        "stay here.</p><div data-form-out></div></form>"
    )


def pushing_html(progress: Progress) -> str:
    """How far the files of a model are on their way to the Hub."""
    share = f"{100 * (progress.fraction or 0):.0f}"
    left = f", {seconds(progress.seconds_left)} left" if progress.seconds_left else ""
    words = f"{share} %, {part_of(progress.done, progress.total)}{left}"
    if progress.done >= progress.total:
        words = f"{size(progress.total)} sent, the Hub is putting them in place"
    return (
        f'<div class="mp-progress" data-going><div role="status">{words}</div><div class="mm-bar" role="progressbar" '
        f'aria-valuenow="{share}" aria-label="Pushing"><i style="width:{share}%"></i></div>'
        '<button type="button" data-do="stop">Stop</button></div>'
    )


# how good it is


def _figures(metrics: Mapping[str, Any]) -> str:
    """The figures, each beside the simple baseline."""
    known = [name for name in NAMES if name in metrics]
    if not known:
        return '<p class="mx-soft">No rows were kept aside, so nothing is known of its quality.</p>'
    base = metrics.get("baseline") or {}
    cards = "".join(_figure(name, metrics[name], base.get(name)) for name in known)
    if found := metrics.get("calibration"):
        title = "Expected calibration error: how far the probabilities are from how often it is right"
        cards += f'<li title="{title}"><b>{100 * found["ece"]:.1f} %</b><span>Calibration error</span></li>'
    on = f"On {metrics['rows']:,} {SPLITS.get(str(metrics.get('split')), 'rows')}{known_text(metrics)}."
    against = " Compared with TF-IDF and logistic regression on the same rows." if base else ""
    return f'<ul class="mp-figures">{cards}</ul><p class="mx-soft">{on}{against}</p>'


def _figure(name: str, value: float, base: float | None) -> str:
    against = ""
    if base is not None:
        words = beside_text(name, value, base)
        tone = {"better than": "good", "worse than": "bad"}.get(words, "level")
        against = f'<em class="mp-{tone}">{words} {figure(name, base)}</em>'
    return f"<li><b>{figure(name, value)}</b><span>{NAMES[name]}</span>{against}</li>"


def _quality(metrics: Mapping[str, Any]) -> str:
    parts = [_confusion(metrics), _calibration(metrics.get("calibration")), _per_class(metrics.get("per_class", ()))]
    return f'<div class="mp-charts">{"".join(parts)}</div>'


def _per_class(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return ""
    body = "".join(
        f'<tr><th scope="row">{escape(str(row["label"]))}</th>{_share(row["precision"])}{_share(row["recall"])}'
        f"{_share(row['f1'])}<td>{row['support']:,}</td></tr>"
        for row in rows[:PER_CLASS]
    )
    return (
        '<section class="mp-wide"><h3>Class by class</h3><div class="mp-scroll"><table class="mp-classes"><thead><tr>'
        '<th scope="col">Class</th><th scope="col" title="Of those it calls so, how many are">Precision</th>'
        '<th scope="col" title="Of those that are so, how many it finds">Recall</th><th scope="col">F1</th>'
        f'<th scope="col">Rows</th></tr></thead><tbody>{body}</tbody></table></div></section>'
    )


def _share(value: float) -> str:
    meter = f'<span class="mp-meter"><i style="width:{100 * value:.1f}%"></i></span>'
    return f"<td>{meter}<em>{100 * value:.1f}</em></td>"


def _confusion(metrics: Mapping[str, Any]) -> str:
    """What is taken for what: a heat map with counts, or for many classes the pairs that are confused most."""
    counts = metrics.get("confusion")
    if not counts:
        return ""
    names = [str(row["label"]) for row in metrics.get("per_class", ())]
    if len(names) > HEAT:
        return _pairs(counts, names)
    head = "".join(f'<th scope="col"><span>{escape(name)}</span></th>' for name in names)
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>{_heat(row, index, names)}</tr>'
        for index, (name, row) in enumerate(zip(names, counts, strict=True))
    )
    return (
        f'<section><h3>What is taken for what</h3><div class="mp-scroll"><table class="mp-heat"><thead><tr>'
        f'<td class="mp-corner">is ↓ &nbsp; said →</td>{head}</tr></thead><tbody>{body}</tbody></table></div></section>'
    )


def _heat(row: Sequence[int], index: int, names: Sequence[str]) -> str:
    whole = max(1, sum(row))
    return "".join(
        f'<td class="{"mp-hit" if i == index else "mp-miss"}{" mp-strong" if n / whole > 0.55 else ""}" '
        f'style="--w:{n / whole:.3f}" '
        f'title="{n:,} of {sum(row):,} rows of {escape(names[index])} are called {escape(names[i])}">{n or ""}</td>'
        for i, n in enumerate(row)
    )


def _pairs(counts: Sequence[Sequence[int]], names: Sequence[str]) -> str:
    found = [(n, names[i], names[j]) for i, row in enumerate(counts) for j, n in enumerate(row) if i != j and n]
    found.sort(key=lambda pair: -pair[0])
    if not found:
        return ""
    rows = "".join(
        f"<tr><td>{n:,}</td><td>{escape(true)}</td><td>{escape(said)}</td></tr>" for n, true, said in found[:PAIRS]
    )
    return (
        '<section><h3>Taken for another most often</h3><div class="mp-scroll"><table><thead><tr><th>Rows</th>'
        f"<th>Is</th><th>Called</th></tr></thead><tbody>{rows}</tbody></table></div></section>"
    )


def _calibration(found: Mapping[str, Any] | None) -> str:
    """How sure against how often right: on the line, the probabilities can be taken at their word."""
    if not found or not found.get("bins"):
        return ""
    most = max(row[2] for row in found["bins"])
    dots = "".join(
        f'<circle cx="{40 + 240 * sure:.1f}" cy="{220 - 200 * right:.1f}" r="{3 + 7 * (n / most) ** 0.5:.1f}">'
        f"<title>{n:,} answers: said {100 * sure:.0f} %, right {100 * right:.0f} %</title></circle>"
        for sure, right, n in found["bins"]
    )
    ticks = "".join(
        f'<text x="{40 + 240 * t / 100}" y="238" text-anchor="middle">{t}</text>'
        f'<text x="32" y="{224 - 200 * t / 100}" text-anchor="end">{t}</text>'
        for t in (0, 50, 100)
    )
    says = f"Expected calibration error {100 * found['ece']:.1f} %"
    return (
        f'<section><h3>Can its probabilities be trusted</h3><svg class="mp-chart" viewBox="0 0 300 262" role="img" '
        f'aria-label="{says}"><rect x="40" y="20" width="240" height="200"/>'
        f'<line x1="40" y1="220" x2="280" y2="20"/>{dots}{ticks}'
        '<text x="160" y="256" text-anchor="middle">how sure it is, %</text>'
        '<text x="46" y="14">how often it is right, %</text></svg>'
        f'<p class="mx-soft">{says}. On the line, 80 % means right 80 times of 100.</p></section>'
    )


def _errors(errors: Sequence[Mapping[str, Any]], metrics: Mapping[str, Any]) -> str:
    if not errors:
        return ""
    body = "".join(
        f'<tr><td class="mp-cell">{escape(str(row.get("text", ""))[:400])}</td>'
        f"<td>{escape(_label(row.get('label')))}</td>"
        f"<td><b>{escape(str(row.get('predicted', '')))}</b></td><td>{float(row.get('score') or 0):.2f}</td></tr>"
        for row in errors[:ERRORS]
    )
    more = f", {ERRORS} of {len(errors)} shown" if len(errors) > ERRORS else ""
    return (
        f'<details open><summary>Where it errs, the surest first{more}</summary><div class="mp-scroll mp-errors">'
        '<table class="mp-rows"><thead><tr><th scope="col">Text</th><th scope="col">Is</th><th scope="col">It said</th>'
        f'<th scope="col">Sure</th></tr></thead><tbody>{body}</tbody></table></div></details>'
    )


def _label(label: Any) -> str:
    return ", ".join(map(str, label)) if isinstance(label, list) else str(label)


# how to use it, how it was made


WAYS = {
    "processor": ("on the processor", "Each process trains a whole copy on its share of the rows."),
    "gpus": ("a GPU each", "The same on GPUs, where the first training ran on one."),
    "split": (
        "the model split (FSDP)",
        "Each process holds a part of the weights, gradients and moments while it trains: for a model whose training "
        "does not fit on one GPU. On GPUs where the first training ran on one; the saved model is whole.",
    ),
}
"""How several processes train one model: {value: (name, what that means)}."""
WHERE = "Run it in the folder of MultiModel; the new model takes the place of this one when it is done."


def launch_html(command: str, way: str) -> str:
    """A command, and what it does."""
    return f'{code_html("Shell", command)}<p class="mx-soft">{escape(WAYS[way][1])} {WHERE}</p>'


def _use(model: SavedModel, data: Mapping[str, Any]) -> str:
    snippet = f'from multimodel import Predictor\nprint(Predictor("{model.path}")(["a text"]))'
    if data.get("name") == model.name:
        snippet = f'from multimodel import Predictor\nprint(Predictor("{model.name}")(["a text"]))'
    ways = "".join(f'<option value="{value}">{escape(name)}</option>' for value, (name, _) in WAYS.items())
    return (
        "<section><h3>Use it elsewhere</h3>"
        f"{code_html('Python', snippet)}{code_html('Folder', str(model.path))}"
        "<details data-launch><summary>Train it again with several processes</summary>"
        '<div class="mp-form"><label><span>Processes</span>'
        '<input type="number" data-processes value="2" min="2" max="64"></label>'
        f"<label><span>How</span><select data-how>{ways}</select></label></div>"
        "<div data-launch-out></div></details></section>"
    )


def onnx_html(folder: str, found: Mapping[str, Any]) -> str:
    """A model in 8 bits: where it lies, how much smaller it is, and how far its answers agree with the full one's."""
    said = "The 8-bit model is ready."
    if sizes := found.get("bytes"):
        said += f" {size(sizes['int8'])} instead of {size(sizes['float32'])}."
    if found.get("rows") and found.get("same_answer") is not None:
        said += (
            f" It gives the same answer on {100 * found['same_answer']:.1f} % of {found['rows']:,} {found['source']}."
        )
    exact, small = found.get("float32") or {}, found.get("int8") or {}
    both = [name for name in NAMES if name in exact and name in small]
    said += "".join(
        f" {NAMES[name]} {figure(name, small[name])} instead of {figure(name, exact[name])}." for name in both[:1]
    )
    return f"<p>{escape(said)}</p>{code_html('Folder', folder)}"


def code_html(title: str, text: str) -> str:
    """A piece of code that can be copied."""
    return (
        f'<div class="mm-code"><div class="mm-code-head"><span>{escape(title)}</span>'
        f'<button type="button" data-copy="code">Copy</button></div><pre><code>{escape(text)}</code></pre></div>'
    )


def _made(data: Mapping[str, Any]) -> str:
    """The record of its training as facts."""
    rows = [(name, value) for name, value in made(data) if value]
    cells = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in rows)
    return f'<details><summary>How it was made</summary><dl class="mx-facts">{cells}</dl></details>' if rows else ""


def made(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(name, value) of what went into a model; what its record does not say is empty."""
    source, asked, trained = data.get("data") or {}, data.get("parameters") or {}, data.get("training") or {}
    splits = ", ".join(f"{count:,} {name}" for name, count in (source.get("rows") or {}).items())
    weights, machine = data.get("weights") or {}, data.get("hardware") or {}
    took = sum(value for value in (data.get("seconds") or {}).values() if isinstance(value, int | float))
    memory = (data.get("memory") or {}).get("peak") or 0
    shown = ("epochs", "learning_rate", "schedule", "batch_size", "max_length", "precision", "seed")
    return [
        ("Data", public(str(source.get("source", "")))),
        ("Rows", splits),
        ("Base model", public(str(data.get("base", "")))),
        (
            "Weights",
            f"{weights['all']:,}, of which {weights.get('trained', 0):,} were trained" if weights.get("all") else "",
        ),
        ("Settings", ", ".join(f"{name.replace('_', ' ')} {asked[name]}" for name in shown if name in asked)),
        ("Steps", f"{trained['steps']:,} of {trained.get('total_steps', 0):,}" if trained.get("steps") else ""),
        ("Machine", ", ".join(str(machine[name]) for name in ("name", "device") if machine.get(name))),
        ("Time", seconds(took) if took else ""),
        ("Most memory", size(memory) if memory else ""),
        ("SHA-256 of the rows", str(source.get("sha256", ""))),
    ]
