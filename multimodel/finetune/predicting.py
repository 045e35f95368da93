"""A model that answers, in whichever process it is loaded."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForMaskedLM

from .. import folder as files
from ..errors import BadRequest, BrokenFile, ModelNotFound
from .classifier import (
    best_device,
    encode,
    labels_of,
    load_model,
    load_tokenizer,
    logits,
    longest,
    own_errors,
    padded,
    quiet,
    read_training,
    set_threads,
)
from .labels import LabelMap
from .onnx import exported as exported_in
from .onnx_session import Session
from .packed import pack
from .tokens import guesses
from .types import Precision

WORD = re.compile(r"\S+")
MOST_PIECES = 100  # of a text, left out one after another


class Model:
    """A folder's classifier, or its masked language model, each loaded when it is first asked."""

    def __init__(
        self,
        folder: Path,
        *,
        device: str = "auto",
        threads: int | None = None,
        precision: Precision = "float32",
        exported: Path | None = None,
    ) -> None:
        """`exported`: the 8-bit model; the folder's own where it is not given. Raises LoadError, MissingDependency."""
        quiet()
        if threads:
            set_threads(threads)
        self.folder = folder
        self._device = best_device(device)
        self._tokenizer = load_tokenizer(folder)
        asked = read_training(folder).get("parameters", {}).get("max_length")
        self.longest: int = asked or longest(folder, self._tokenizer)  # tokens read of a text
        self._session = self._in_8_bits(exported) if precision == "int8" else None

    @cached_property
    def labels(self) -> LabelMap:
        """What the outputs mean. Raises BrokenFile where the folder is no classifier."""
        return labels_of(self.folder)

    def _in_8_bits(self, exported: Path | None) -> Session:
        path = exported or exported_in(self.folder)
        if not path:
            raise ModelNotFound(f"{self.folder.name} has no 8-bit version.", hint="Export it first.")
        return Session(path, self._tokenizer.pad_token_id or 0, torch.get_num_threads())

    def set_threads(self, count: int) -> None:
        """Use so many processor threads from now on."""
        set_threads(count)
        if self._session:
            self._session.set_threads(count)

    @cached_property
    def classifier(self) -> Any:
        """The weights in memory. Raises BrokenFile where the folder has none, or not all, of a classifier."""
        model = load_model(self.folder, self.labels)
        saved = _saved(self.folder)
        for name, values in sorted(model.state_dict().items()):
            if name not in saved:
                raise BrokenFile(f"{self.folder.name} is no whole classifier: {name} is missing.", hint="Fine-tune it.")
            if values.numel() != saved[name]:
                raise self._unlike(len(self.labels.classes))
        return model.to(self._device).eval()

    @cached_property
    def _packed(self) -> Any:
        """The same model, packed: from then on it answers faster and does nothing else."""
        return pack(self.classifier)

    @cached_property
    def _filler(self) -> Any:
        config = files.read_json(self.folder / files.CONFIG)
        if not guesses(config):
            hint = "Choose a base model, such as the built-in encoder."
            raise BrokenFile(f"{self.folder.name} cannot fill gaps: it is no masked language model.", hint=hint)
        with own_errors(f"The model of {self.folder.name}"):
            model = AutoModelForMaskedLM.from_pretrained(
                self.folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
            )
        return model.to(self._device).eval()

    def logits(self, texts: Sequence[str]) -> list[list[float]]:
        """The outputs (rows, outputs) for texts, in their order."""
        if not self._session:
            _ = self.classifier  # what it lacks is said for no text too
        if not texts:
            return []
        rows = encode(self._tokenizer, texts, self.longest)
        if self._session:
            outputs = self._session.logits(rows)
            if outputs.shape[1] != self.labels.outputs:
                raise self._unlike(self.labels.outputs)
        else:
            outputs = logits(self._packed, rows, self._tokenizer.pad_token_id or 0)
        found: list[list[float]] = outputs.tolist()
        return found

    def _unlike(self, classes: int) -> BrokenFile:
        said = f"The label map of {self.folder.name} has {classes} classes; its weights were trained for others."
        return BrokenFile(said, hint="Restore the folder, or fine-tune it again.")

    def occluded(self, text: str) -> tuple[list[tuple[int, int]], list[list[float]]]:
        """The pieces of a text (start, end), and the outputs for the text and for each one's absence.

        Word by word; of a long text several words at once.
        """
        words = [match.span() for match in WORD.finditer(text)]
        step = -(-len(words) // MOST_PIECES) or 1
        pieces = [(words[i][0], words[min(i + step, len(words)) - 1][1]) for i in range(0, len(words), step)]
        return pieces, self.logits([text, *(text[:start] + text[end:] for start, end in pieces)])

    def fillings(self, text: str, top: int) -> list[tuple[str, float, str]]:
        """(token, probability, whole text) of the likeliest words for the first gap. Raises BadRequest without one."""
        mask = self._tokenizer.mask_token
        text = text.replace("[MASK]", mask or "[MASK]").replace("<mask>", mask or "<mask>")
        ids = encode(self._tokenizer, [text], self.longest)[0]
        gaps = [i for i, token in enumerate(ids) if token == self._tokenizer.mask_token_id]
        if not gaps:
            raise BadRequest("There is no gap in the text.", hint="Write [MASK] where a word is to be found.")
        with torch.inference_mode():
            inputs = {name: value.to(self._device) for name, value in padded([ids], 0).items()}
            shares = torch.softmax(self._filler(**inputs).logits[0, gaps[0]].float(), dim=-1)
            scores, found = (part.tolist() for part in shares.topk(min(top, len(shares))))
        words = [self._token(token) for token in found]
        return [(word, score, _filled(text, word, mask)) for word, score in zip(words, scores, strict=True)]

    def _token(self, token: int) -> str:
        return str(self._tokenizer.decode([token])).strip()


def _filled(text: str, word: str, mask: str) -> str:
    """The text with a word in its first gap; a piece of a word joins the word before it."""
    return text.replace(f" {mask}" if word.startswith("##") else mask, word.removeprefix("##"), 1)


def _saved(folder: Path) -> dict[str, int]:
    """The weights in a folder by name: how many numbers each has. Raises BrokenFile."""
    rows = (row for path in files.weight_files(folder) for row in files.tensors(path).items())
    return {name: tensor.elements for name, tensor in rows}
