"""A LoRA adapter in peft's format, added to the weights of a model once it is loaded: W + scale * alpha / r * B A.

The formula is equation 3 of Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (2021); with `use_rslora`
the divisor is the root of r (Kalajdzievski, 2023). Added once, it costs nothing a token and takes no memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import sqrt
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..errors import BrokenFile
from ..folder import read_json

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PART = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
WRONG_MODEL = "Choose the adapter that was made for this model."


def add(model: Any, folder: Path, scale: float) -> None:
    """Add the adapter in `folder`, `scale` times, to the weights of `model`. Raises BrokenFile."""
    config = _config(folder)
    modules = dict(model.named_modules())
    with torch.no_grad():
        for name, down, up in _pairs(folder):
            weight = getattr(modules.get(name), "weight", None)
            change = _change(config, down, up, scale)
            if weight is not None and not weight.is_floating_point():
                raise BrokenFile("An adapter cannot be added to packed weights.", hint="Load it as bfloat16.")
            if weight is None or weight.shape != change.shape:
                raise BrokenFile(f"The adapter changes {name}, which this model has not, or not so.", hint=WRONG_MODEL)
            weight.copy_((weight.float() + change.to(weight.device)).to(weight.dtype))


def _config(folder: Path) -> dict[str, Any]:
    """What the adapter says of itself. Raises BrokenFile for a kind that is not a plain LoRA."""
    if not (folder / CONFIG).is_file():
        raise BrokenFile(f"{folder} holds no {CONFIG}.", hint="Choose the folder of an adapter in peft's format.")
    if not (folder / WEIGHTS).is_file():
        raise BrokenFile(f"{folder} holds no {WEIGHTS}.", hint="Save the adapter in safetensors format.")
    config = read_json(folder / CONFIG)
    special = [key for key in ("use_dora", "alpha_pattern", "modules_to_save", "lora_bias") if config.get(key)]
    if config.get("peft_type") != "LORA" or special or config.get("bias", "none") != "none":
        what = ", ".join([str(config.get("peft_type")), *special])
        raise BrokenFile(f"The adapter is no plain LoRA ({what}).", hint="Merge it into its model with peft first.")
    return config


def _pairs(folder: Path) -> Iterator[tuple[str, Tensor, Tensor]]:
    """(module, A of shape (r, in), B of shape (out, r)) of each changed weight."""
    try:
        tensors = load_file(folder / WEIGHTS)
    except (SafetensorError, OSError, ValueError) as error:
        raise BrokenFile(f"{WEIGHTS} cannot be read: {error}", hint="Download the adapter again.") from error
    halves: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if not (part := PART.fullmatch(key)):
            raise BrokenFile(f"The adapter holds {key}, which is no part of a plain LoRA.", hint=WRONG_MODEL)
        halves.setdefault(part[1], {})[part[2]] = tensor.float()
    for name, half in halves.items():
        if set(half) != {"A", "B"} or half["A"].shape[0] != half["B"].shape[-1]:
            raise BrokenFile(f"The adapter is incomplete at {name}.", hint="Download the adapter again.")
        yield name, half["A"], half["B"]


def _change(config: dict[str, Any], down: Tensor, up: Tensor, scale: float) -> Tensor:
    """What is added to a weight, in its shape."""
    rank = down.shape[0]
    divisor = sqrt(rank) if config.get("use_rslora") else rank
    change = (up @ down) * (scale * float(config["lora_alpha"]) / divisor)
    return change.T if config.get("fan_in_fan_out") else change
