"""A set-up as a link: `?models=gguf:guide,echo:any&temperature=0,1&q=Hello`, read and written.

models       ids, separated by commas; `model=ID`, once for each, where an id holds a comma
preset       the name of a preset; what else the link says comes on top of it
q            a question; it is filled in, and asked only where `send=1` and asking takes nothing from anybody
system       the shared system prompt
temperature  and every other number of SamplingParams, and how models are loaded (dtype, kv_type, context_length,
             device, gpu_layers, flash_attention=off, rope=yarn:4): one value, or one for each column ("int8,auto"),
             where an empty one is as usual. A chat template is too long for an address and does not travel.
stop         a stop sequence; once for each
json_schema  JSON text; `tools` and `tool_choice` likewise
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qsl, urlencode

from .board import Column
from .conversation import LOADING, MAX_COLUMNS, Options
from .errors import MultimodelError
from .habits import Pane, Preset
from .modifiers import loaded_with, written
from .types import RANGES, ModelId, whole

LONGEST = 20_000  # characters of a question or system prompt in a link
MOST = 200  # parts of a link
STOPS = 16  # stop sequences of a link
ROPE = ("rope_scaling", "rope_factor")  # one option of a link: neither makes sense alone
WAYS = (*(name for name in LOADING if name not in (*ROPE, "chat_template")), "rope")
"""How a link calls what it says of loading."""
EACH = (*RANGES, *WAYS)
"""The options that may be another in each column."""
WHOLE = frozenset({"max_tokens", "top_k", "seed", "top_logprobs"})
TEXTS = frozenset({"json_schema", "tools", "tool_choice"})
WORDS = {
    "stop": "stop sequences",
    "json_schema": "the JSON schema",
    "tools": "tools",
    "tool_choice": "the choice of tools",
    "grammar": "the grammar",
    "logit_bias": "the bias of tokens",
}
"""What of SamplingParams a link may have to leave out, in a person's words."""


@dataclass(frozen=True, slots=True)
class Link:
    """What a link asks for. `problems`: sentences on what of it could not be used."""

    preset: Preset
    prompt: str = ""
    send: bool = False
    problems: tuple[str, ...] = ()


def read(query: str, presets: Sequence[Preset], usual: Preset, model: Callable[[str], ModelId]) -> Link:
    """What a link says; whatever of it cannot be used is left out and told.

    `usual`: the columns and settings of a new chat. `model`: the model of an id, or an error of ours.
    """
    problems: list[str] = []
    pairs = parse_qsl("&".join(query.lstrip("?").split("&")[:MOST]), errors="replace")
    said = dict(reversed(pairs))  # of two, the first
    preset = _preset(said.get("preset", ""), presets, usual, problems)
    if models := _models(pairs, model, problems):
        preset = preset.model_copy(update={"columns": tuple(Pane(model=id) for id in models)})
    if "system" in said:
        shared = replace(preset.shared, system=_text(said["system"], "system prompt", problems))
        preset = preset.model_copy(update={"shared": shared})
    preset = _written(preset, pairs, problems)
    for name in EACH:
        if said.get(name, ""):
            preset = _each(preset, name, said[name], problems)
    prompt = _text(said.get("q", ""), "question", problems)
    return Link(preset, prompt, said.get("send") == "1" and bool(prompt.strip()), tuple(problems))


def _preset(name: str, presets: Sequence[Preset], usual: Preset, problems: list[str]) -> Preset:
    if not name:
        return usual
    found = next((preset for preset in presets if preset.name == name), None)
    if not found:
        problems.append(f"The link names a preset {name[:80]!r}, which is not among yours.")
    return found or usual


def _models(pairs: Sequence[tuple[str, str]], model: Callable[[str], ModelId], problems: list[str]) -> list[ModelId]:
    texts = [text for key, text in pairs if key == "model"]
    texts += [part for key, text in pairs if key == "models" for part in text.split(",")]
    found: list[ModelId] = []
    for text in filter(None, (text.strip()[:500] for text in texts[:50])):
        try:
            found.append(model(text))
        except MultimodelError as error:
            problems.append(f"{error} {error.hint}")
    if len(found) > MAX_COLUMNS:
        problems.append(f"The link names {len(found)} models; these are the first {MAX_COLUMNS}.")
    return found[:MAX_COLUMNS]


def _text(text: str, what: str, problems: list[str]) -> str:
    if len(text) > LONGEST:
        problems.append(f"The {what} of the link is longer than {LONGEST:,} characters and was cut.")
    return whole(text[:LONGEST])


def _written(preset: Preset, pairs: Sequence[tuple[str, str]], problems: list[str]) -> Preset:
    """The preset with the stop sequences and the texts of the link."""
    found: dict[str, Any] = {key: whole(text) for key, text in reversed(pairs) if key in TEXTS and text}
    for name in [name for name, text in found.items() if len(text) > LONGEST]:
        problems.append(f"The {name} of the link was left out. It is longer than {LONGEST:,} characters.")
        del found[name]
    if stop := tuple(whole(text[:200]) for key, text in pairs if key == "stop" and text)[:STOPS]:
        found["stop"] = stop
    try:
        shared = replace(preset.shared, params=replace(preset.shared.params, **found))
    except MultimodelError as error:
        problems.append(f"{', '.join(found)} of the link: left out. {error} {error.hint}")
        return preset
    return preset.model_copy(update={"shared": shared})


def _each(preset: Preset, name: str, text: str, problems: list[str]) -> Preset:
    """The preset with one option: shared, or where several values are given each column's own."""
    try:
        texts = text[:200].split(",")[:MAX_COLUMNS]
        if len(texts) == 1:
            return preset.model_copy(update={"shared": _with(preset.shared, name, texts[0])})
        own = [_with(pane.own or preset.shared, name, t) for pane, t in zip(preset.columns, texts, strict=False)]
    except (ValueError, MultimodelError) as error:
        why = f"{error} {error.hint}" if isinstance(error, MultimodelError) else f"{text[:40]!r} is no number."
        problems.append(f"The {name} of the link was left out. {why}")
        return preset
    panes = [pane.model_copy(update={"own": options}) for pane, options in zip(preset.columns, own, strict=False)]
    return preset.model_copy(update={"columns": (*panes, *preset.columns[len(panes) :])})


def _with(options: Options, name: str, text: str) -> Options:
    """The options with one of them as a part of a link says; an empty one is as usual."""
    if name not in WAYS:
        value: Any = None if not text else int(text) if name in WHOLE else float(text)
        return replace(options, params=replace(options.params, **{name: value}))
    fields = dict(zip(ROPE, text.split(":"), strict=False)) if name == "rope" else {name: text}
    values = {field: written(field, part) for field, part in fields.items()}
    return replace(options, load=loaded_with(values, options.load))


def write(columns: Sequence[Column], shared: Options, prompt: str = "") -> tuple[str, tuple[str, ...]]:
    """The query of a link that leads to these columns; and what of them a link does not carry, in words."""
    ids = [str(column.model) for column in columns]
    pairs = [("model", id) for id in ids] if any("," in id for id in ids) else [("models", ",".join(ids))]
    asked = [column.own or shared for column in columns]
    for name in EACH:
        parts = [_part(options, name) for options in asked]
        if set(parts) != {USUAL[name]}:
            pairs.append((name, ",".join(parts[:1] if len(set(parts)) == 1 else parts)))
    for name in sorted(TEXTS):
        if text := _same(asked, name):
            pairs.append((name, text))
    pairs += [("stop", text) for text in _same(asked, "stop") or ()]
    if shared.system:
        pairs.append(("system", shared.system))
    if prompt.strip():
        pairs.append(("q", prompt))
    return urlencode(pairs, safe=",:/"), _left_out(asked, shared)


def _part(options: Options, name: str) -> str:
    """One of the options as a part of a link: the inverse of `_with`."""
    if name == "rope":
        return f"{options.load.rope_scaling}:{options.load.rope_factor:g}" if options.load.rope_scaling else ""
    value = getattr(options.load if name in WAYS else options.params, name)
    if isinstance(value, bool):
        return "on" if value else "off"
    return "" if value is None else str(value).removesuffix(".0")


USUAL = {name: _part(Options(), name) for name in EACH}


def _same(asked: Sequence[Options], name: str) -> Any:
    """What all columns are asked with, where that is the same and fits a link."""
    first, *others = [getattr(options.params, name) for options in asked]
    parts = first if name == "stop" else (first,)
    fits = first and len(parts) <= STOPS and all(len(part) <= LONGEST for part in parts)
    return first if fits and all(other == first for other in others) else None


def _left_out(asked: Sequence[Options], shared: Options) -> tuple[str, ...]:
    words = []
    if any(options.system != shared.system for options in asked):
        words.append("system prompts of single columns")
    for name, word in WORDS.items():
        known = name == "stop" or name in TEXTS
        if any(getattr(options.params, name) for options in asked) and not (known and _same(asked, name)):
            words.append(word)
    if any(options.load.chat_template is not None for options in asked):
        words.append("the chat template")
    return tuple(words)
