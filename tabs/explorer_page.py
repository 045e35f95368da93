"""A model's page in the Explorer: values to HTML. Pure; every text of the Hub is escaped here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from html import escape
from typing import TYPE_CHECKING

from .explorer_list import WORDS, figures, linked, parameters, rating_html
from .format import size

if TYPE_CHECKING:
    from multimodel.hub import RemoteFile
    from multimodel.memory import MemoryPlan, Target, Verdict
    from multimodel.sheet import Offer, Sheet

TERMS = {  # the terms of a plan: what to call them, and which colour they have everywhere
    "weights": ("Weights", "w"),
    "kv_cache": ("KV cache", "k"),
    "recurrent": ("Recurrent state", "r"),
    "compute": ("Compute buffers", "c"),
    "output": ("Output", "o"),
    "gradients": ("Gradients", "g"),
    "optimizer": ("Optimizer state", "p"),
    "framework": ("Libraries and driver", "f"),
    "correction": ("Learnt from loads here", "x"),
}
PROVENANCE = {
    "exact": "Read or counted, not estimated",
    "formula": "Computed from the architecture",
    "assumed": "A constant measured elsewhere",
}
KV_TYPES = ("f16", "q8_0", "q4_0")
SEQUENCES = (1, 2, 4, 8, 16, 32)
SHORTEST = 512  # tokens: the beginning of the context slider
FILES_SHOWN = 200
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)  # texts: the positions of a slider
LENGTHS = (64, 128, 256, 512, 1024, 2048, 4096)  # tokens
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")  # what configurations call their number


@dataclass(frozen=True, slots=True)
class Knobs:
    """What a person has set."""

    label: str
    context_length: int
    sequences: int = 1
    kv_type: str = "f16"


def page_html(sheet: Sheet, knobs: Knobs, levels: Mapping[str, str], best: str, hub_url: str, today: date) -> str:
    """The whole page but for the plan and the card, which come later."""
    parts = [_head(sheet, hub_url, today), _refusal(sheet)]
    if sheet.offers:
        parts.append(_fit_section(sheet, knobs))
        parts.append(_offers(sheet, knobs.label, levels, best))
        parts.append(_training(sheet))
    else:
        parts.append(_nothing(sheet))
    parts += [_architecture(sheet), _files(sheet.files), '<section class="mx-card-place" data-card></section>']
    return f'<article class="mx-page" data-name="{escape(sheet.listing.name)}">{"".join(parts)}</article>'


def _head(sheet: Sheet, hub_url: str, today: date) -> str:
    row = sheet.listing
    owner, _, name = row.name.partition("/")
    address = escape(f"{hub_url}/{row.name}")
    dated = f"<span>From the shipped catalogue of {sheet.as_of:%d %B %Y}</span>" if sheet.as_of else ""
    return (
        '<header class="mx-page-head"><button type="button" class="mx-back" data-do="back">Results</button>'
        f"<h2><i>{escape(owner)}/</i>{escape(name)}</h2>"
        f'<p class="mx-row-figures">{figures(row, today)}{rating_html(sheet.rating)}{dated}'
        f'<a href="{address}" target="_blank" rel="noopener noreferrer">On the Hub</a></p>{_acts(sheet)}</header>'
    )


def _acts(sheet: Sheet) -> str:
    """What can be done with the chosen file. An encoder does not chat; it is what classifiers are made of."""
    if not sheet.offers:
        return ""
    use = '<button type="button" data-do="chat">Chat with it</button>'
    if sheet.encoder:
        use = '<button type="button" data-do="finetune">Fine-tune it</button>'
    return (
        '<div class="mx-act"><button type="button" class="mx-primary" data-do="download">Download</button>'
        f"{use}<div data-download></div></div>"
    )


def _refusal(sheet: Sheet) -> str:
    if not sheet.refusal:
        return ""
    said, hint = escape(str(sheet.refusal)), linked(sheet.refusal.hint)
    return f'<div class="mm-error mx-error" role="alert"><strong>{said}</strong><p>{hint}</p></div>'


def _nothing(sheet: Sheet) -> str:
    """Why there is no verdict, and what to do instead."""
    other = _quantised(sheet)
    return f'<div class="mx-quiet">Nothing here that this app can run: no GGUF and no safetensors files.{other}</div>'


def _quantised(sheet: Sheet) -> str:
    if not sheet.quantised:
        return ""
    name = escape(sheet.quantised)
    return f' <button type="button" class="mx-link" data-open="{name}">Quantised: {name}</button>'


def _fit_section(sheet: Sheet, knobs: Knobs) -> str:
    steps = context_steps(sheet.context_limit)
    at = min(range(len(steps)), key=lambda i: abs(steps[i] - knobs.context_length))
    options = "".join(f'<option value="{kind}">{kind}</option>' for kind in KV_TYPES)
    runs = "".join(f'<option value="{number}">{number}</option>' for number in SEQUENCES)
    quantised = f'<p class="mx-soft">{_quantised(sheet)}</p>' if sheet.quantised else ""
    return (
        '<section class="mx-fit-section"><div class="mx-verdict" data-answer aria-live="polite"></div>'
        '<div class="mx-knobs">'
        f'<label class="mx-knob mx-wide"><span>Context <output data-out="context">{steps[at]:,} tokens</output></span>'
        f'<input type="range" data-knob="context" min="0" max="{len(steps) - 1}" value="{at}" '
        f'data-steps="{",".join(map(str, steps))}" aria-label="Context length in tokens"></label>'
        f'<label class="mx-knob" title="Each has a KV cache of its own"><span>Conversations at once</span>'
        f'<select data-knob="sequences">{runs}</select></label>'
        f'<label class="mx-knob mx-only-gguf" title="A shorter number format takes less memory"><span>KV cache</span>'
        f'<select data-knob="kv_type">{options}</select></label></div><div class="mx-plan" data-plan></div>'
        f"{quantised}</section>"
    )


def context_steps(limit: int) -> list[int]:
    """The positions of the context slider: from 512 to what the model was trained for, three to a doubling.

    >>> context_steps(2048)
    [512, 768, 1024, 1280, 1536, 2048]
    """
    steps, base = [], SHORTEST
    while base < limit:
        steps += [base * part // 4 // 256 * 256 for part in (4, 5, 6)]
        base *= 2
    return sorted({step for step in steps if step < limit} | {limit})


def answer_html(plan: MemoryPlan, verdict: Verdict, target: Target) -> str:
    """Does it fit: the answer, and the stack against the machine's line. Of the same height whatever it says."""
    words = {"fits": "Fits", "tight": "Tight", "no": "Does not fit"}[verdict.level]
    return (
        f'<div class="mx-answer mx-{verdict.level}"><b>{words}</b><span>{escape(verdict.reason)}</span></div>'
        f"{stack_html(plan, target)}"
    )


def plan_html(plan: MemoryPlan, verdict: Verdict, longest: int, *, pending: bool = False, note: str = "") -> str:
    """Why: where each term comes from, the longest context that fits, what would help.

    `pending`: an exact one is on its way. `note`: why there is none.
    """
    training = plan.request.training is not None
    notes = [*plan.notes, *([note] if note else [])]
    return f"{_terms(plan, pending)}{'' if training else _longest(longest, plan)}{_helps(verdict)}{_notes(notes)}"


def stack_html(plan: MemoryPlan, target: Target) -> str:
    """The terms side by side, against the line of what the machine has."""
    whole = max(plan.safe_total, target.usable, 1) * 1.04
    parts = "".join(
        f'<i class="mx-t-{TERMS[term.name][1]}" style="width:{100 * term.size / whole:.3f}%"></i>'
        for term in plan.terms
        if term.size > 0
    )
    parts += f'<i class="mx-t-m" style="width:{100 * plan.margin / whole:.3f}%"></i>'
    line = 100 * target.usable / whole
    says = f"{size(plan.total)} of {size(target.usable)} usable on {target.name}"
    return (
        f'<div class="mx-stack" role="img" aria-label="{escape(says)}"><div class="mx-bars">{parts}</div>'
        f'<div class="mx-line{" mx-line-left" if line > 60 else ""}" style="left:{line:.3f}%">'
        f"<span>{escape(size(target.usable))} usable</span></div></div>"
    )


def _terms(plan: MemoryPlan, pending: bool) -> str:
    rows = "".join(
        f'<tr><th scope="row"><i class="mx-dot mx-t-{TERMS[term.name][1]}"></i>{TERMS[term.name][0]}</th>'
        f"<td>{size(term.size)}</td>"
        f'<td><span class="mx-from mx-{term.provenance}" title="{PROVENANCE[term.provenance]}">{term.provenance}</span>'
        f'</td><td class="mx-source">{escape(term.source)}</td></tr>'
        for term in plan.terms
        if term.size
    )
    margin = (
        f'<tr><th scope="row"><i class="mx-dot mx-t-m"></i>Margin</th><td>{size(plan.margin)}</td><td></td>'
        '<td class="mx-source">must stay free: what the estimate may be off by</td></tr>'
    )
    asking = ' <span class="mx-asking" role="status">asking llama.cpp</span>' if pending else ""
    return (
        f'<table class="mx-terms"><tbody>{rows}</tbody><tfoot><tr><th scope="row">Total{asking}</th>'
        f'<td>{size(plan.total)}</td><td></td><td class="mx-source"></td></tr>{margin}</tfoot></table>'
    )


def _longest(longest: int, plan: MemoryPlan) -> str:
    if not longest:
        return '<p class="mx-soft">No context fits here.</p>'
    if longest == plan.request.context_length:
        return '<p class="mx-soft">This is the longest context that fits.</p>'
    trained = " It was trained for no more." if longest == plan.context_limit else ""
    use = f'<button type="button" class="mx-link" data-set-context="{longest}">Use it</button>'
    return f'<p class="mx-soft">Longest context that fits: <b>{longest:,} tokens</b>.{trained} {use}</p>'


def _helps(verdict: Verdict) -> str:
    """What would make it fit; a button where one knob does it."""
    items = []
    for help in verdict.helps:
        after = f" Then it takes {size(help.total)}." if help.total and help.kind != "free" else ""
        knob = {"kv_type": "kv", "context_length": "context", "sequences": "sequences"}.get(help.kind)
        value = escape(str(help.value))
        button = f' <button type="button" class="mx-link" data-set-{knob}="{value}">Do it</button>' if knob else ""
        items.append(f"<li>{escape(help.text)}{after}{button}</li>")
    return f'<ul class="mx-helps">{"".join(items)}</ul>' if items else ""


def _notes(notes: Sequence[str]) -> str:
    return "".join(f'<div class="mm-note">{escape(note)}</div>' for note in notes)


def _offers(sheet: Sheet, chosen: str, levels: Mapping[str, str], best: str) -> str:
    rows = "".join(
        _offer(offer, offer.label == chosen, levels[offer.label], offer.label == best and len(sheet.offers) > 1)
        for offer in sheet.offers
    )
    return (
        '<section><h3>Files to choose from</h3><table class="mx-offers"><thead><tr><th scope="col">Which</th>'
        '<th scope="col">Download</th><th scope="col">Memory</th><th scope="col">Verdict</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></section>"
    )


def _offer(offer: Offer, chosen: bool, level: str, best: bool) -> str:
    label = escape(offer.label)
    about = "" if offer.read else "~"
    mark = '<span class="mx-best" title="The best answers that leave room for other things">recommended</span>'
    return (
        f'<tr data-offer="{label}" data-id="{escape(str(offer.id))}" data-bytes="{offer.size or 0}"'
        f'{" data-best" if best else ""}><th scope="row"><label>'
        f'<input type="radio" name="mx-offer" value="{label}"{" checked" if chosen else ""}>{label}</label>'
        f"{mark if best else ''}</th><td>{about}{size(offer.size) if offer.size else '–'}</td>"
        f'<td data-total="{label}"></td><td><span class="mx-fit mx-{level}"><b>{WORDS[level]}</b></span></td></tr>'
    )


def _training(sheet: Sheet) -> str:
    """Knobs for the memory of training; the plan is put in when it is opened."""
    if not any(offer.label == "safetensors" for offer in sheet.offers):
        return ""
    return (
        '<details class="mx-training" data-training><summary>Memory to train it</summary><div class="mx-knobs">'
        '<label class="mx-knob"><span>What is trained</span><select data-train="method">'
        '<option value="full">all weights</option><option value="lora">LoRA adapters</option></select></label>'
        f"{_train_slider('batch_size', 'Batch size', 'texts', BATCHES, 8)}"
        f"{_train_slider('sequence_length', 'Length of a text', 'tokens', LENGTHS, 128)}"
        '<label class="mx-knob"><span>Gradient checkpointing</span><select data-train="checkpointing">'
        '<option value="">off</option><option value="1">on</option></select></label></div>'
        '<div class="mx-plan" data-train-plan></div></details>'
    )


def _train_slider(name: str, label: str, unit: str, steps: Sequence[int], chosen: int) -> str:
    said = f'<output data-train-out="{name}">{chosen:,} {unit}</output>'
    return (
        f'<label class="mx-knob mx-wide"><span>{label} {said}</span>'
        f'<input type="range" data-train="{name}" min="0" max="{len(steps) - 1}" value="{steps.index(chosen)}" '
        f'data-steps="{",".join(map(str, steps))}" data-unit="{unit}" aria-label="{label} in {unit}"></label>'
    )


def _architecture(sheet: Sheet) -> str:
    rows = architecture(sheet)
    if not rows:
        return ""
    cells = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in rows)
    known = sheet.basis and sheet.basis.known
    note = "" if known else '<p class="mx-soft">Not read: taken from the well-known model most like it.</p>'
    return f'<details><summary>Architecture</summary><dl class="mx-facts">{cells}</dl>{note}</details>'


def architecture(sheet: Sheet) -> list[tuple[str, str]]:
    """(name, value) of the facts that decide memory and speed; unknown ones are left out."""
    if not sheet.basis:
        return []
    config, shape = sheet.basis.config, sheet.basis.llama
    experts = next((config[name] for name in EXPERTS if config.get(name)), 0)
    heads = config.get("num_key_value_heads") or config.get("num_attention_heads") or config.get("n_head")
    windows = ", ".join(f"{window:,}" for window in shape.windows)
    kept = sum(layer.key + layer.value for layer in shape.layers)
    rows = [
        ("Architecture", sheet.listing.architecture or shape.architecture),
        ("Parameters", parameters(sheet.basis.parameters) if sheet.basis.parameters else ""),
        ("Layers", str(len(shape.layers))),
        ("Embedding", f"{shape.embedding:,}"),
        ("Attention heads", f"{shape.heads}, KV heads {heads}" if heads else str(shape.heads)),
        ("Feed-forward", f"{shape.feed_forward:,}" if shape.feed_forward else ""),
        ("Experts", f"{experts}, of which each token uses {shape.experts_used}" if experts else ""),
        ("Vocabulary", f"{shape.vocabulary:,}"),
        ("Trained context", f"{sheet.context_limit:,} tokens"),
        ("Sliding window", f"{windows} tokens" if windows else ""),
        ("KV cache", f"{2 * kept / 1024:,.0f} KiB a token in f16" if kept else ""),
    ]
    return [(name, value) for name, value in rows if value and value != "0"]


def _files(files: Sequence[RemoteFile]) -> str:
    if not files:
        return ""
    rows = "".join(
        f"<li><span>{escape(file.name)}</span><span>{size(file.size)}</span></li>" for file in files[:FILES_SHOWN]
    )
    more = f"<li>and {len(files) - FILES_SHOWN:,} more</li>" if len(files) > FILES_SHOWN else ""
    total = size(sum(file.size for file in files))
    return (
        f"<details><summary>{len(files):,} {'file' if len(files) == 1 else 'files'}, {total}</summary>"
        f'<ul class="mx-files">{rows}{more}</ul></details>'
    )
