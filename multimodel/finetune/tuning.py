"""What is chosen for a base model on this machine: number format, learning rate, which weights are trained and how."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from ..errors import MissingDependency, TrainingError
from .classifier import autocast, padded
from .fitting import check_frozen
from .tokens import SMALL

WEIGHTS = "model.safetensors"
ADAPTER = "adapter_model.safetensors"
TRIES = 3
TRIAL_ROWS = 8
WORTH = 0.9  # of the time of float32, from which on a shorter format is used


def choose_precision(model: Any, rows: Sequence[Sequence[int]], pad: int, wanted: str, device: str) -> tuple[str, str]:
    """(format, reason). Measured: forward and backward on some rows, in float32 and in the shorter format in turn."""
    if wanted != "auto":
        return wanted, f"{wanted}: you chose it"
    if device == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bfloat16", "bfloat16: the GPU multiplies it in hardware"
        return "float16", "float16: the GPU is older than bfloat16"
    if device != "cpu" or not _has_bfloat16():
        return "float32", "float32: no fast shorter format here"
    typical = sorted(rows, key=len)[len(rows) // 2 :][:TRIAL_ROWS]
    full, short = _seconds(model, padded(typical, pad))
    times = f"{full / short:.1f} times as fast as float32 on this machine"
    if short < WORTH * full:
        return "bfloat16", f"bfloat16: measured {times}"
    return "float32", f"float32: bfloat16 was measured {times}"


def _has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 itself; elsewhere it is imitated, slowly."""
    cpu: Any = torch.cpu
    return bool(cpu._is_avx512_bf16_supported() or cpu._is_amx_tile_supported())


def _seconds(model: Any, inputs: dict[str, torch.Tensor]) -> tuple[float, float]:
    """The least seconds of a step in float32 and in bfloat16. Weights, gradients and chance stay as they were."""
    state = torch.get_rng_state()
    model.train()
    found: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    for _ in range(1 + TRIES):
        for name, times in found.items():
            started = time.perf_counter()
            with autocast(torch.device("cpu"), name):
                output = model(**inputs).logits
            output.float().sum().backward()
            times.append(time.perf_counter() - started)
    model.zero_grad(set_to_none=True)
    torch.set_rng_state(state)
    return min(found["float32"][1:]), min(found["bfloat16"][1:])


def choose_learning_rate(parameters: int, wanted: float | None, lora: bool = False) -> tuple[float, str]:
    """(rate, reason): small encoders, and the few weights of LoRA, need larger steps."""
    if wanted is not None:
        return wanted, "you chose it"
    if lora:
        return 1e-3, "LoRA trains few weights"
    if parameters < SMALL:
        return 3e-4, f"the base model is small ({parameters / 1e6:.1f} million weights)"
    return 5e-5, f"usual for an encoder of {parameters / 1e6:.0f} million weights"


def freeze(model: Any, layers: int) -> None:
    """Leave the embeddings and the first `layers` layers as they are. Raises InvalidParameter."""
    if not layers:
        return
    stack = layers_of(model)
    check_frozen(layers, len(stack))
    frozen = [model.base_model.get_input_embeddings(), *stack[:layers]]
    frozen += [part for name, part in model.base_model.named_children() if name == "embeddings"]
    for part in frozen:
        part.requires_grad_(False)


def layers_of(model: Any) -> nn.ModuleList:
    """The stack of layers: the longest list of modules."""
    lists = [part for part in model.base_model.modules() if isinstance(part, nn.ModuleList)]
    return max(lists, key=len, default=nn.ModuleList())


def add_lora(model: Any, rank: int) -> Any:
    """The model with small trained matrices beside its frozen ones (Hu et al. 2021); the head is trained whole.

    Raises MissingDependency.
    """
    if not rank:
        return model
    try:
        import peft
    except ImportError as error:
        hint = "To add it: python -m pip install peft; or set lora_rank to 0."
        raise MissingDependency("LoRA needs the package peft.", hint=hint) from error
    inside = f"{model.base_model_prefix}."
    linear = [n for n, part in model.named_modules() if isinstance(part, nn.Linear) and n.startswith(inside)]
    head = [n for n, part in model.named_children() if n != model.base_model_prefix and list(part.parameters())]
    settings = peft.LoraConfig(
        task_type="SEQ_CLS",
        r=rank,
        lora_alpha=2 * rank,
        lora_dropout=0.05,
        target_modules=linear,
        modules_to_save=head,
    )
    return peft.get_peft_model(model, settings)


def load_weights(model: Any, checkpoint: Path) -> None:
    """Give the model the weights of a checkpoint; with LoRA those that it trains. Raises TrainingError."""
    adapted = hasattr(model, "merge_and_unload")
    weights = checkpoint / (ADAPTER if adapted else WEIGHTS)
    if not weights.exists():
        hint = "Resume: training goes on from the newest checkpoint that is whole."
        raise TrainingError(f"The best checkpoint, {checkpoint.name}, is gone.", hint=hint)
    if not adapted:
        tied = getattr(model, "all_tied_weights_keys", None)  # a weight that is in two places is saved once
        model.load_state_dict(load_file(weights), strict=not tied)
        return
    import peft

    peft.set_peft_model_state_dict(model, load_file(weights))


def merged(model: Any) -> Any:
    """The model without LoRA: its matrices are added to those that they stand beside."""
    return model.merge_and_unload() if hasattr(model, "merge_and_unload") else model


def counted(model: Any) -> tuple[int, int]:
    """(all parameters, those that are trained)."""
    sizes = [(part.numel(), part.requires_grad) for part in model.parameters()]
    return sum(n for n, _ in sizes), sum(n for n, trained in sizes if trained)
