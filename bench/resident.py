"""What a process really takes: `python -m bench.resident save|generate|train ...` prints its peak in bytes.

A process of its own for each figure, with nothing of ours in it: the libraries alone, as anybody would use them. Each
imports only what it needs, for what is imported is part of the figure.
"""

# ruff: noqa: PLC0415
from __future__ import annotations

import json
import resource
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

STEPS = 2  # of training: after the second, everything that is ever kept has been made


def peak() -> int:
    """The most bytes that were resident in this process."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def save(folder: str, dtype: str, config: str) -> None:
    """A random model of a configuration, as files."""
    from transformers import AutoConfig, AutoModelForCausalLM

    own = json.loads(config)
    torch.set_default_dtype(getattr(torch, dtype))
    AutoModelForCausalLM.from_config(AutoConfig.for_model(own.pop("model_type"), **own)).save_pretrained(folder)


def generate(folder: str, dtype: str, prompt: int, tokens: int) -> None:
    """Load a model and continue a prompt of so many tokens by so many."""
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    ids = torch.randint(3, 1000, (1, prompt))
    with torch.inference_mode():
        model.generate(ids, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, pad_token_id=0)


def train(config: str, batch: int, length: int, checkpointing: bool) -> None:
    """A few steps of a classifier with two labels, in float32 with AdamW, by the library's own Trainer."""
    from transformers import AutoConfig, AutoModelForSequenceClassification, Trainer, TrainingArguments

    own = json.loads(config)
    model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(own.pop("model_type"), **own))
    rows = [{"input_ids": torch.randint(3, 1000, (length,)), "labels": i % 2} for i in range(STEPS * batch)]
    with tempfile.TemporaryDirectory() as folder:
        options = TrainingArguments(
            folder,
            max_steps=STEPS,
            per_device_train_batch_size=batch,
            gradient_checkpointing=checkpointing,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
        )
        Trainer(model, options, train_dataset=rows).train()


def main(what: str, *arguments: str) -> None:
    """Do it, then say what it took."""
    torch.set_num_threads(1)
    if what == "save":
        save(*arguments)
    elif what == "generate":
        generate(arguments[0], arguments[1], int(arguments[2]), int(arguments[3]))
    else:
        train(arguments[0], int(arguments[1]), int(arguments[2]), arguments[3] == "True")
    print(json.dumps({"peak": peak()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
