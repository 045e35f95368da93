"""Widgets for how a model is asked and loaded. The keys are field names of SamplingParams and LoadOptions."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from typing import Any, get_args

import gradio as gr
from gradio.components import Component

from multimodel.board import Options
from multimodel.hardware import llama_on_gpu
from multimodel.modifiers import loaded_with
from multimodel.types import RANGES, DType, LoadOptions, SamplingParams, whole

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
    "device": ("Device", "Where it computes; automatic is the best of this machine"),
    "gpu_layers": ("GPU layers", "GGUF models: so many layers on the GPU, the others on the processor; empty is all"),
    "flash_attention": ("Flash attention", "GGUF models: attention in one pass; automatic is as it is quicker here"),
    "rope_scaling": (
        "RoPE scaling",
        "Makes room for a context longer than trained for; linear needs a model made for it",
    ),
    "rope_factor": (
        "RoPE factor",
        "Times the trained context, where there is RoPE scaling; set the context length too",
    ),
    "chat_template": ("Chat template", "Jinja that makes the prompt of the messages; empty is the model's own"),
}
"""How local models are loaded: the fields of `multimodel.conversation.LOADING`."""
DTYPES: list[str | tuple[str, str]] = [("Automatic", "auto"), *((name, name) for name in get_args(DType)[1:])]
KV_TYPES: list[str | tuple[str, str]] = [("f16, the usual", "f16"), "q8_0", "q5_1", "q4_0"]
DEVICES = {"auto": "Automatic", "cpu": "Processor", "cuda": "NVIDIA or AMD GPU", "mps": "Apple GPU"}
FLASH = {"auto": None, "on": True, "off": False}
FLASHES: list[str | tuple[str, str]] = [("Automatic", "auto"), ("On", "on"), ("Off", "off")]
SCALINGS: list[str | tuple[str, str]] = [("None", "none"), ("Linear", "linear"), ("YaRN", "yarn")]
STRETCH = 2.0  # the RoPE factor that is offered
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
TEXTS = {"stop": 2000, "json_schema": 20_000, "tools": 100_000, "chat_template": 100_000}
"""The most characters of what is written."""
NUMBERS: dict[str, tuple[float, float]] = {
    "seed": RANGES["seed"],
    "context_length": (1, 10_000_000),
    "gpu_layers": (0, 10_000),
    "rope_factor": (1.1, 1_000),
}
"""The limits of the boxes for a number. Gradio is not told: it would end the event, and the page would say nothing."""
TOP = {"max_tokens": 8192, "top_k": 200}
"""Where a slider ends before the range does: finer steps where people work."""


def sampling_controls() -> dict[str, Component]:
    """The widgets, in the order people reach for them."""
    widgets: dict[str, Component] = {}
    for name, (label, info) in LABELS.items():
        if name in TEXTS:
            widgets[name] = _text(name, label, info)
        elif name == "tool_choice":
            widgets[name] = gr.Dropdown(TOOL_CHOICES, value="auto", label=label, info=info)
        elif name == "seed":
            widgets[name] = _number_box(name)
        else:
            widgets[name] = _slider(name, label, info)
    return widgets


def loading_controls() -> dict[str, Component]:
    """The widgets of how local models are loaded that people reach for."""
    return {
        "dtype": _choice("dtype", DTYPES, "auto"),
        "kv_type": _choice("kv_type", KV_TYPES, "f16"),
        "context_length": _number_box("context_length"),
    }


def more_loading_controls() -> dict[str, Component]:
    """Those for experiments."""
    return {
        "device": _choice("device", _devices(DEVICES), "auto"),
        "gpu_layers": _number_box("gpu_layers"),
        "flash_attention": _choice("flash_attention", FLASHES, "auto"),
        "rope_scaling": _choice("rope_scaling", SCALINGS, "none"),
        "rope_factor": _number_box("rope_factor", STRETCH, precision=None, step=0.5),
        "chat_template": _text("chat_template", *LOADING_LABELS["chat_template"]),
    }


def _choice(name: str, choices: list[str | tuple[str, str]], value: str) -> gr.Dropdown:
    label, info = LOADING_LABELS[name]
    return gr.Dropdown(choices, value=value, label=label, info=info)


def _number_box(name: str, value: float | None = None, precision: int | None = 0, step: float = 1) -> gr.Number:
    label, info = (LABELS | LOADING_LABELS)[name]
    return gr.Number(value, label=label, info=info, precision=precision, step=step)


def _text(name: str, label: str, info: str) -> gr.Textbox:
    return gr.Textbox(label=label, info=info, lines=2, max_lines=4, max_length=TEXTS[name])


def _devices(kinds: Collection[str]) -> list[str | tuple[str, str]]:
    return [(words, name) for name, words in DEVICES.items() if name in kinds]


def _slider(name: str, label: str, info: str) -> gr.Slider:
    low, high = RANGES[name]
    value = OFF.get(name, low)
    return gr.Slider(low, TOP.get(name, high), value, step=STEPS.get(name, 1), label=label, info=info, buttons=[])


def within_sliders(widgets: Iterable[Component]) -> str:
    """A script that what these widgets say goes through: what is typed beside a slider beyond its ends becomes the end,
    as on the page once it is left. Gradio would end the event, and the page would say nothing."""
    ends = [[widget.minimum, widget.maximum] if isinstance(widget, gr.Slider) else None for widget in widgets]
    return (
        "(...said) => said.map((value, i) => ENDS[i] ? Math.min(Math.max(value, ENDS[i][0]), ENDS[i][1]) : value)"
    ).replace("ENDS", json.dumps(ends))


def options_from(system: str, values: dict[str, Any]) -> Options:
    """What the widgets say. A slider at its off position is a parameter that is not sent. Raises InvalidParameter; of
    the boxes for numbers `refused` tells why.

    >>> options_from("", {"temperature": 0.0, "top_p": 1.0, "seed": None, "stop": "a\\n"}).params.asdict()
    {'temperature': 0.0, 'stop': ('a',)}
    """
    chosen = {k: v for k, v in values.items() if v is not None and OFF.get(k) != v and k in LABELS and k not in TEXTS}
    stop = tuple(line for line in str(values.get("stop") or "").splitlines() if line)
    integers = {k: int(v) for k, v in chosen.items() if k in ("max_tokens", "top_k", "seed", "top_logprobs")}
    schema, tools = (str(values.get(name) or "").strip() or None for name in ("json_schema", "tools"))
    texts = {"stop": stop or None, "json_schema": schema, "tools": tools}
    return Options(SamplingParams(**{**chosen, **integers, **texts}), system, _load(values))


def refused(values: dict[str, Any]) -> dict[str, str]:
    """What is wrong in the boxes for numbers, by their names. An empty one is never wrong.

    >>> refused({"seed": 5.0, "context_length": 0, "gpu_layers": None})
    {'context_length': 'Context length is 0. Choose 1 to 10,000,000.'}
    """
    typed = {name: value for name in NUMBERS if (value := values.get(name)) is not None}
    return {
        name: f"{(LABELS | LOADING_LABELS)[name][0]} is {typed[name]:,.10g}. Choose {low:,} to {high:,}."
        for name, (low, high) in NUMBERS.items()
        if name in typed and not low <= typed[name] <= high
    }


def _load(values: dict[str, Any]) -> LoadOptions:
    """How the widgets say a model is to be loaded."""
    kv_type, template = values.get("kv_type"), str(values.get("chat_template") or "")
    context, layers = (None if (n := values.get(name)) is None else int(n) for name in ("context_length", "gpu_layers"))
    changes: dict[str, Any] = {
        "dtype": values.get("dtype") or "auto",
        "kv_type": None if kv_type == "f16" else kv_type,
        "context_length": context,
        "device": values.get("device") or "auto",
        "gpu_layers": layers,
        "flash_attention": FLASH[values.get("flash_attention") or "auto"],
        "chat_template": whole(template) if template.strip() else None,
    }
    if (scaling := values.get("rope_scaling") or "none") != "none":
        changes |= {"rope_scaling": scaling, "rope_factor": values.get("rope_factor") or STRETCH}
    return loaded_with(changes)


def values_of(options: Options) -> dict[str, Any]:
    """The widget positions of some options: the inverse of `options_from`."""
    params = options.params
    values: dict[str, Any] = {name: getattr(params, name) for name in LABELS}
    values = {name: OFF.get(name, RANGES.get(name, (None,))[0]) if v is None else v for name, v in values.items()}
    load = {name: getattr(options.load, name) for name in LOADING_LABELS}
    load |= {"kv_type": options.load.kv_type or "f16", "chat_template": options.load.chat_template or ""}
    load["flash_attention"] = next(word for word, on in FLASH.items() if on is options.load.flash_attention)
    scaling = options.load.rope_scaling
    load |= {"rope_scaling": scaling or "none", "rope_factor": options.load.rope_factor if scaling else STRETCH}
    texts = {"stop": "\n".join(params.stop or ()), "json_schema": params.json_schema or "", "tools": params.tools or ""}
    return values | {"seed": params.seed} | texts | load


def updates(
    widgets: dict[str, Component],
    options: Options,
    refusals: dict[str, list[str]],
    *,
    columns: int,
    linked: bool,
    devices: Collection[str] = tuple(DEVICES),
) -> dict[Component, Any]:
    """Gradio updates that show `options`. `refusals` names, for a parameter, the models that do not take it: it is
    greyed where that is all of the `columns`, and all are greyed while a column is `linked` to the shared settings.
    `devices`: those of this machine; what is chosen already is offered too.
    """
    values = values_of(options)
    shown: dict[Component, Any] = {}
    for name, widget in widgets.items():
        idle = _idle(name, values[name])
        more: dict[str, Any] = {"choices": _devices({"auto", *devices, values[name]})} if name == "device" else {}
        shown[widget] = gr.update(
            value=values[name],
            interactive=not linked and not idle and len(refusals.get(name, ())) < columns,
            info=_info(name, refusals.get(name, []), idle),
            **more,
        )
    return shown


def _idle(name: str, value: Any) -> str:
    """Why an option can change nothing on this machine; what is set already can be taken back."""
    no_gpu = name == "gpu_layers" and value is None and not llama_on_gpu()
    return "llama.cpp is built without a GPU here" if no_gpu else ""


def _info(name: str, refusing: list[str], idle: str) -> str:
    parts = [(LABELS | LOADING_LABELS)[name][1]]
    parts += [f"Not taken by {', '.join(refusing)}, so not sent there"] if refusing else []
    return ". ".join([*parts, *([f"No effect: {idle}"] if idle else [])])
