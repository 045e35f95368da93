"""An encoder with a classification head, in memory: loading, reading texts, and the answers for many of them."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from .. import folder as files
from ..errors import BrokenFile, DataError, MultimodelError
from . import tokens
from .forward import answers
from .labels import LabelMap
from .order import batches_of

TOKENS = 1024  # in a batch of predictions, padded; more only falls out of the processor's cache
ROWS = 128
GPU_TOKENS, GPU_ROWS = 65_536, 1024

Progress = Callable[[float], None]
"""Is told the fraction that is done, 0..1."""
Outputs = np.ndarray[Any, np.dtype[np.float32]]
"""What a classifier gives for texts: (rows, outputs)."""


@contextmanager
def own_errors(what: str) -> Iterator[None]:
    """The library's many ways to say that a model cannot be loaded, as ours."""
    try:
        yield
    except (MultimodelError, MemoryError, torch.OutOfMemoryError):
        raise
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
        said = str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
        hint = "Choose an encoder such as DistilBERT, BERT, RoBERTa, DeBERTa or ModernBERT, in safetensors format."
        raise BrokenFile(f"{what} cannot be loaded: {said}", hint=hint) from error


def quiet() -> None:
    """No bars and no notices of the libraries: what matters is an event."""
    notices: Any = transformers.logging
    notices.set_verbosity_error()
    notices.disable_progress_bar()
    logging.getLogger("accelerate").setLevel(logging.ERROR)


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a folder. Raises BrokenFile."""
    files.check_safe(folder)
    with own_errors(f"The tokenizer of {folder.name}"):
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return tokenizer


def longest(folder: Path, tokenizer: Any) -> int:
    """Tokens that the model of a folder reads at most."""
    return tokens.longest(folder, tokenizer.model_max_length)


def load_model(folder: Path, labels: LabelMap) -> Any:
    """The encoder of a folder in float32, with a head for these labels: its own where it fits. Raises BrokenFile."""
    files.check_safe(folder)
    problem = {"single_label": "single_label_classification", "multi_label": "multi_label_classification"}
    with own_errors(f"The model of {folder.name}"):
        config = AutoConfig.from_pretrained(
            folder,
            local_files_only=True,
            num_labels=labels.outputs,
            id2label=dict(enumerate(labels.classes)),
            label2id={name: i for i, name in enumerate(labels.classes)},
            problem_type=problem.get(labels.task, "regression"),
        )
        model, info = AutoModelForSequenceClassification.from_pretrained(
            folder,
            config=config,
            local_files_only=True,
            use_safetensors=True,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    _check_encoder(folder, model.base_model_prefix, info)
    return model


def _check_encoder(folder: Path, name: str, info: Mapping[str, Any]) -> None:
    """Raise BrokenFile where weights of the encoder, the part called `name`, are missing or of another shape.

    A head is new for each task; models that only guessed masked words have no pooler, which is part of the head.
    """

    def its(weight: str) -> bool:
        return weight.startswith(f"{name}.") and not weight.startswith(f"{name}.pooler.")

    missing = filter(its, info["missing_keys"])
    mismatched = (row for row in info["mismatched_keys"] if its(row[0]))
    files.check_loaded(missing, mismatched, files.mend(folder))


def encode(
    tokenizer: Any, texts: Sequence[str], max_length: int, progress: Progress = lambda _: None
) -> list[list[int]]:
    """The token ids of each text, cut to `max_length`."""
    found: list[list[int]] = []
    for start in range(0, len(texts), 2000):
        part = list(texts[start : start + 2000])
        found += tokenizer(
            part, truncation=True, max_length=max_length, return_attention_mask=False, return_token_type_ids=False
        )["input_ids"]
        progress(min(1.0, (start + 2000) / len(texts)))
    if not all(found):
        raise DataError("The tokenizer makes nothing of some texts.", hint="Choose another base model.")
    return found


def rectangle(rows: Sequence[Sequence[int]], pad: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Token ids as one array (rows, tokens), and the mask that says which are real."""
    width = max(map(len, rows))
    ids = np.full((len(rows), width), pad, dtype=np.int64)
    mask = np.zeros((len(rows), width), dtype=np.int64)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
        mask[index, : len(row)] = 1
    return ids, mask


def padded(rows: Sequence[Sequence[int]], pad: int) -> dict[str, torch.Tensor]:
    """The same as a model takes it."""
    ids, mask = rectangle(rows, pad)
    return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """The number format of the matrix products while it lasts."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=getattr(torch, precision))


def logits(
    model: Any,
    rows: Sequence[Sequence[int]],
    pad: int,
    *,
    precision: str = "float32",
    progress: Progress = lambda _: None,
) -> Outputs:
    """The outputs for many texts, in their order."""
    device = model.device
    forward = answers(model.eval())

    def ask(batch: Sequence[Sequence[int]]) -> Outputs:
        inputs = {name: value.to(device) for name, value in padded(batch, pad).items()}
        found: Outputs = forward(**inputs).float().cpu().numpy()
        return found

    bounds = (TOKENS, ROWS) if device.type == "cpu" else (GPU_TOKENS, GPU_ROWS)
    with torch.inference_mode(), autocast(device, precision):
        return in_batches(rows, ask, *bounds, progress=progress)


def in_batches(
    rows: Sequence[Sequence[int]],
    ask: Callable[[Sequence[Sequence[int]]], Outputs],
    most_tokens: int,
    most_rows: int,
    *,
    progress: Progress = lambda _: None,
) -> Outputs:
    """What `ask` says of each row, in their order; equal rows are asked once, long ones together.

    A batch has at most `most_rows` rows and, padded, `most_tokens` tokens.
    """
    unique: dict[tuple[int, ...], int] = {}
    which = [unique.setdefault(tuple(row), len(unique)) for row in rows]
    different = list(unique)
    batches = batches_of([len(row) for row in different], most_tokens, most_rows)
    parts = []
    for number, batch in enumerate(batches, 1):
        parts.append(ask([different[i] for i in batch]))
        progress(number / len(batches))
    found = np.empty((len(different), parts[0].shape[1]), dtype=np.float32)
    found[np.concatenate([np.array(batch) for batch in batches])] = np.concatenate(parts)
    return found[np.array(which, dtype=np.int64)]


def best_device(wanted: str) -> torch.device:
    """The device of a name; "auto" is a GPU where there is one."""
    if wanted != "auto":
        return torch.device(wanted)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def read_training(folder: Path) -> dict[str, Any]:
    """The training record of a model's folder; empty for a model from elsewhere."""
    try:
        found = json.loads((folder / "training_metadata.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def labels_of(folder: Path) -> LabelMap:
    """What a folder's outputs mean: our label map, or what its configuration says. Raises BrokenFile."""
    if (folder / "label_map.json").exists():
        return LabelMap.load(folder)
    config = files.read_json(folder / files.CONFIG)
    names = config.get("id2label") or {}
    if not any("Classification" in str(name) for name in config.get("architectures") or ()):
        raise BrokenFile(f"{folder.name} is no classifier.", hint="Fine-tune it first, or choose one that is.")
    count = len(names) or int(config.get("num_labels", 2))
    classes = tuple(str(names.get(str(i), f"LABEL_{i}")) for i in range(count))
    task = {"regression": "regression", "multi_label_classification": "multi_label"}.get(
        str(config.get("problem_type")), "regression" if count == 1 else "single_label"
    )
    return LabelMap(task, classes)  # type: ignore[arg-type]


def set_threads(count: int) -> None:
    """Use so many processor threads from now on."""
    torch.set_num_threads(max(1, count))
