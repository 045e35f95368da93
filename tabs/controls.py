"""Widgets for sampling parameters. The keys are field names of SamplingParams; the limits are its RANGES."""

from __future__ import annotations

from typing import Any, get_args

import gradio as gr
from gradio.components import Component

from multimodel.board import Options
from multimodel.types import RANGES, DType, LoadOptions, SamplingParams

STEPS = {
    "temperature": 0.05,
    "top_p": 0.01,
    "top_k": 1,
    "min_p": 0.01,
    "repetition_penalty": 0.01,
    "presence_penalty": 0.05,
    "frequency_penalty": 0.05,
}
LABELS = {
    "temperature": ("Temperature", "0 takes the likeliest token; higher is more varied"),
    "max_tokens": ("Max tokens", "The longest answer, in tokens"),
    "top_p": ("Top-p", "Only the likeliest tokens that sum to this share; 1 is off"),
    "top_k": ("Top-k", "Only this many of the likeliest tokens; 0 is off"),
    "min_p": ("Min-p", "Drops tokens below this share of the likeliest; 0 is off"),
    "repetition_penalty": ("Repetition penalty", "Above 1 makes repeated tokens less likely"),
    "presence_penalty": ("Presence penalty", "Above 0 makes what was already said less likely; 0 is off"),
    "frequency_penalty": ("Frequency penalty", "The same, more the more often it was said; 0 is off"),
    "top_logprobs": (
        "Token probabilities",
        "Keeps how likely each token was, and this many likely ones in its place; 0 is off",
    ),
    "seed": ("Seed", "The same number gives the same answer; empty is random"),
    "stop": ("Stop sequences", "The answer ends before any of these, one a line"),
    "json_schema": ("JSON schema", 'The answer is JSON that follows it, as {"type": "object"}; empty is off'),
    "tool_choice": ("Tool choice", "Whether it may, or must, call one of the tools"),
    "tools": ("Tools", 'Functions that it may ask you to call, as [{"name": "now", "parameters": {}}]; empty is off'),
}
LOADING_LABELS = {
    "dtype": ("Number format", "Transformers models: fewer bits take less memory; 4 bits answer a little worse"),
    "kv_type": ("KV cache", "GGUF models: fewer bits make room for a longer context"),
    "context_length": ("Context length", "Tokens of prompt and answer; empty is as in the settings of the app"),
}
"""How local models are loaded: the fields of `multimodel.conversation.LOADING`."""
DTYPES: list[str | tuple[str, str]] = [("Automatic", "auto"), *((name, name) for name in get_args(DType)[1:])]
KV_TYPES: list[str | tuple[str, str]] = [("f16, the usual", "f16"), "q8_0", "q5_1", "q4_0"]
TOOL_CHOICES: list[str | tuple[str, str]] = [
    ("It decides", "auto"),
    ("It must call one", "required"),
    ("It may call none", "none"),
]
OFF: dict[str, Any] = {
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "top_logprobs": 0,
    "tool_choice": "auto",
}
"""Slider positions that mean "not set"."""
TEXTS = {"stop": 2000, "json_schema": 20_000, "tools": 100_000}
"""The most characters of what is written."""
TOP = {"max_tokens": 8192, "top_k": 200}
"""Where a slider ends before the range does: finer steps where people work."""


def sampling_controls() -> dict[str, Component]:
    """The widgets, in the order people reach for them."""
    widgets: dict[str, Component] = {}
    for name, (label, info) in LABELS.items():
        if name in TEXTS:
            widgets[name] = gr.Textbox(label=label, info=info, lines=2, max_lines=4, max_length=TEXTS[name])
        elif name == "tool_choice":
            widgets[name] = gr.Dropdown(TOOL_CHOICES, value="auto", label=label, info=info)
        elif name == "seed":
            widgets[name] = gr.Number(None, label=label, info=info, precision=0, minimum=0, maximum=RANGES[name][1])
        else:
            widgets[name] = _slider(name, label, info)
    return widgets


def loading_controls() -> dict[str, Component]:
    """The widgets of how local models are loaded."""
    (dtype, why_dtype), (kv_type, why_kv), (context, why_context) = LOADING_LABELS.values()
    return {
        "dtype": gr.Dropdown(DTYPES, value="auto", label=dtype, info=why_dtype),
        "kv_type": gr.Dropdown(KV_TYPES, value="f16", label=kv_type, info=why_kv),
        "context_length": gr.Number(None, precision=0, minimum=1, maximum=10_000_000, label=context, info=why_context),
    }


def _slider(name: str, label: str, info: str) -> gr.Slider:
    low, high = RANGES[name]
    value = OFF.get(name, low)
    return gr.Slider(low, TOP.get(name, high), value, step=STEPS.get(name, 1), label=label, info=info, buttons=[])


def options_from(system: str, values: dict[str, Any]) -> Options:
    """What the widgets say. A slider at its off position is a parameter that is not sent.

    >>> options_from("", {"temperature": 0.0, "top_p": 1.0, "seed": None, "stop": "a\\n"}).params.asdict()
    {'temperature': 0.0, 'stop': ('a',)}
    """
    load = _load(values)
    chosen = {k: v for k, v in values.items() if v is not None and OFF.get(k) != v and k in LABELS and k not in TEXTS}
    stop = tuple(line for line in str(values.get("stop") or "").splitlines() if line)
    integers = {k: int(v) for k, v in chosen.items() if k in ("max_tokens", "top_k", "seed", "top_logprobs")}
    schema, tools = (str(values.get(name) or "").strip() or None for name in ("json_schema", "tools"))
    texts = {"stop": stop or None, "json_schema": schema, "tools": tools}
    return Options(SamplingParams(**{**chosen, **integers, **texts}), system, load)


def _load(values: dict[str, Any]) -> LoadOptions:
    context, kv_type = values.get("context_length"), values.get("kv_type")
    return LoadOptions(
        dtype=values.get("dtype") or "auto",
        kv_type=None if kv_type == "f16" else kv_type,
        context_length=int(context) if context else None,
    )


def values_of(options: Options) -> dict[str, Any]:
    """The widget positions of some options: the inverse of `options_from`."""
    params = options.params
    values: dict[str, Any] = {name: getattr(params, name) for name in LABELS}
    values = {name: OFF.get(name, RANGES.get(name, (None,))[0]) if v is None else v for name, v in values.items()}
    load: dict[str, Any] = {"dtype": options.load.dtype, "kv_type": options.load.kv_type or "f16"}
    load["context_length"] = options.load.context_length
    texts = {"stop": "\n".join(params.stop or ()), "json_schema": params.json_schema or "", "tools": params.tools or ""}
    return values | {"seed": params.seed} | texts | load


def updates(
    widgets: dict[str, Component], options: Options, refusals: dict[str, list[str]], *, columns: int, linked: bool
) -> dict[Component, Any]:
    """Gradio updates that show `options`. `refusals` names, for a parameter, the models that do not take it: it is
    greyed where that is all of the `columns`, and all are greyed while a column is `linked` to the shared settings."""
    values = values_of(options)
    return {
        widget: gr.update(
            value=values[name],
            interactive=not linked and len(refusals.get(name, ())) < columns,
            info=_info(name, refusals.get(name, [])),
        )
        for name, widget in widgets.items()
    }


def _info(name: str, refusing: list[str]) -> str:
    text = (LABELS | LOADING_LABELS)[name][1]
    return f"{text}. Not taken by {', '.join(refusing)}, so not sent there" if refusing else text
