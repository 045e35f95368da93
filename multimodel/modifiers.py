"""Experiments with a model, as functions: each takes a ModelSpec, or SamplingParams, and returns a changed copy.

>>> longer = compose(with_context(16_384), stretched(4), with_kv_type("q8_0"))
>>> model = ModelId.parse("gguf:owner/model:Q8_0")
>>> variants = {"as it is": ModelSpec(model), "longer": longer(ModelSpec(model))}
>>> variants["longer"].load.rope_factor, variants["as it is"].load.rope_factor
(4, 1.0)

An engine is asked with a variant as with a model: `engine.ask(variants["longer"], messages, greedy(params))`. Two
variants of one model are two loaded models. What a backend or this machine cannot do is refused when it is connected.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import reduce
from math import isfinite
from typing import Any, TypeVar, get_args

from .errors import InvalidParameter
from .types import ON_HUB, DeviceName, DType, KVType, LoadOptions, ModelId, ModelSpec, RopeScaling, SamplingParams

Value = TypeVar("Value", ModelSpec, SamplingParams)
LoadModifier = Callable[[ModelSpec], ModelSpec]
SamplingModifier = Callable[[SamplingParams], SamplingParams]
CHOICES: dict[str, tuple[str, ...]] = {
    "device": get_args(DeviceName),
    "dtype": get_args(DType),
    "kv_type": get_args(KVType),
    "flash_attention": ("on", "off"),
    "rope_scaling": get_args(RopeScaling),
}
"""The words for a field of LoadOptions that is one of a few."""
NUMBERS: dict[str, type[int] | type[float]] = {
    "context_length": int,
    "gpu_layers": int,
    "sequences": int,
    "rope_factor": float,
    "adapter_scale": float,
}


def compose(*modifiers: Callable[[Value], Value]) -> Callable[[Value], Value]:
    """All of them, the first first; none of them changes nothing.

    >>> compose(with_dtype("float16"), with_dtype("bfloat16"))(ModelSpec(ModelId("transformers", "m"))).load.dtype
    'bfloat16'
    """
    return lambda value: reduce(lambda changed, modify: modify(changed), modifiers, value)


# How a model is loaded


def on_device(device: DeviceName) -> LoadModifier:
    """On another device: "cpu", "cuda", "mps", or "auto", the best there is."""
    return _loaded(device=device)


def with_dtype(dtype: DType) -> LoadModifier:
    """In another number format. Transformers only; a GGUF file is `quantised`."""
    return _loaded(dtype=dtype)


def quantised(name: str) -> LoadModifier:
    """From another file of its GGUF repository. The modifier raises InvalidParameter for any other model.

    >>> quantised("Q4_K_M")(ModelSpec(ModelId("gguf", "owner/model:Q8_0"))).id.name
    'owner/model:Q4_K_M'
    """

    def modify(spec: ModelSpec) -> ModelSpec:
        repository = spec.id.name.partition(":")[0]
        if spec.id.backend != "gguf" or not ON_HUB.fullmatch(repository):
            hint = "Name a GGUF repository, gguf:OWNER/REPO. For transformers choose a number format: with_dtype."
            raise InvalidParameter(f"{spec.id} has no other quantisations.", hint=hint)
        return replace(spec, id=ModelId("gguf", f"{repository}:{name}"))

    return modify


def with_context(tokens: int) -> LoadModifier:
    """With room for this many tokens, at most what the model was trained for: then a note says so. See `stretched`."""
    return _loaded(context_length=tokens)


def stretched(factor: float, scaling: RopeScaling = "yarn") -> LoadModifier:
    """With a context `factor` times as long as it was trained for, by scaled positions; `with_context` asks for it.

    "yarn": Peng et al., "YaRN: Efficient Context Window Extension of Large Language Models" (2023), which keeps near
    words apart. "linear": Chen et al., "Extending Context Window of Large Language Models via Positional
    Interpolation" (2023), for models that were fine-tuned with it.
    """
    return _loaded(rope_scaling=scaling, rope_factor=factor)


def with_kv_type(kv_type: KVType) -> LoadModifier:
    """With a KV cache of another number format. GGUF only."""
    return _loaded(kv_type=kv_type)


def with_sequences(count: int) -> LoadModifier:
    """With room for this many answers at once. GGUF only."""
    return _loaded(sequences=count)


def with_flash_attention(on: bool) -> LoadModifier:
    """Attention in one pass over the KV cache, or not; without this as is quicker on the machine. GGUF only."""
    return _loaded(flash_attention=on)


def with_gpu_layers(count: int) -> LoadModifier:
    """With this many layers on the GPU, the others on the processor. GGUF only, where llama.cpp is built with one."""
    return _loaded(gpu_layers=count)


def with_adapter(path: str, scale: float = 1.0) -> LoadModifier:
    """With a LoRA adapter: a GGUF file, or for transformers a folder in peft's format. `scale` 0 is without it.

    Raises InvalidParameter where the path is empty.
    """
    if not path:
        raise InvalidParameter(f"adapter_scale is {scale:g}, but there is no adapter.", hint="Name an adapter.")
    return _loaded(adapter=path, adapter_scale=scale)


def with_template(template: str) -> LoadModifier:
    """With another chat template, in Jinja, than the model's own."""
    return _loaded(chat_template=template)


def at_revision(revision: str) -> LoadModifier:
    """As it was at a branch, tag or commit on the Hub; a model that lies on this machine has none."""
    return _loaded(revision=revision)


def forced(spec: ModelSpec) -> ModelSpec:
    """Loaded even where the memory plan says that it does not fit."""
    return replace(spec, load=replace(spec.load, anyway=True))


def loading(values: Mapping[str, Any]) -> LoadModifier:
    """With fields of LoadOptions by their names, as a form, a link or a command gives them; the others as they are.

    A RoPE factor goes with its scaling, an adapter's scale with its adapter. This or the modifier raises
    InvalidParameter for what makes no sense.

    >>> longer = loading({"rope_factor": 4, "rope_scaling": "yarn"})
    >>> longer(ModelSpec(ModelId("gguf", "m"))).load.rope_factor
    4
    """
    alone = dict(values)
    made: list[LoadModifier] = []
    if {"rope_scaling", "rope_factor"} & alone.keys():
        made.append(stretched(alone.pop("rope_factor", 1.0), alone.pop("rope_scaling", None)))
    if {"adapter", "adapter_scale"} & alone.keys():
        made.append(with_adapter(alone.pop("adapter", ""), alone.pop("adapter_scale", 1.0)))
    return compose(*made, *(BY_NAME[name](value) for name, value in alone.items()))


def loaded_with(values: Mapping[str, Any], load: LoadOptions = LoadOptions()) -> LoadOptions:
    """The same for the options alone, whatever model they are for. Raises InvalidParameter."""
    return loading(values)(ModelSpec(ModelId("", ""), load)).load


BY_NAME: dict[str, Callable[[Any], LoadModifier]] = {
    "device": on_device,
    "dtype": with_dtype,
    "context_length": with_context,
    "kv_type": with_kv_type,
    "sequences": with_sequences,
    "flash_attention": with_flash_attention,
    "gpu_layers": with_gpu_layers,
    "chat_template": with_template,
    "revision": at_revision,
}


def written(name: str, text: str) -> Any:
    """A field of LoadOptions as a person writes it in a link or a command; empty is as usual. Raises InvalidParameter.

    >>> written("flash_attention", "off"), written("rope_factor", "4"), written("kv_type", "")
    (False, 4.0, None)
    """
    if not text:
        return getattr(LoadOptions(), name)
    if name in CHOICES:
        if text not in CHOICES[name]:
            raise InvalidParameter(f"There is no {text[:40]!r}.", hint=f"Choose one of {', '.join(CHOICES[name])}.")
        return text == "on" if name == "flash_attention" else text
    return _number(name, text) if name in NUMBERS else text


def _number(name: str, text: str) -> float:
    try:
        number = NUMBERS[name](text)
    except ValueError:
        number = float("nan")
    if not isfinite(number):
        raise InvalidParameter(f"{name} is {text[:40]!r}.", hint="Write a number.")
    return number


# How it is asked


def sampled(**params: Any) -> SamplingModifier:
    """With these sampling parameters, the others as they are.

    >>> sampled(temperature=0.7, seed=1)(SamplingParams(top_k=40)).asdict()
    {'temperature': 0.7, 'top_k': 40, 'seed': 1}
    """
    changes = SamplingParams(**params)
    return lambda before: before.merge(changes)


def without(*names: str) -> SamplingModifier:
    """With these sampling parameters not set.

    >>> without("seed")(SamplingParams(top_k=40, seed=1)).asdict()
    {'top_k': 40}
    """
    return lambda before: replace(before, **dict.fromkeys(names))


def greedy(params: SamplingParams) -> SamplingParams:
    """With the likeliest token each time."""
    return replace(params, temperature=0.0)


def _loaded(**changes: Any) -> LoadModifier:
    return lambda spec: replace(spec, load=replace(spec.load, **changes))
