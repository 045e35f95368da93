"""Quantisations of GGUF models by the names of their files: which there are, which is best, how large each will be."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

SHARD = re.compile(r"-(\d{5})-of-(\d{5})(?=\.gguf$)", re.IGNORECASE)
QUANT = re.compile(r"(?:UD-)?(?:I?Q\d|MXFP4|NVFP4|BF16|F16|F32|FP16|TQ\d)(?:_[A-Z0-9]+)*", re.IGNORECASE)
BESIDES = ("mmproj", "mtp-", "imatrix")  # GGUF files that are no language model by themselves
PREFERRED = (  # from the best trade of size for quality outwards
    *("Q4_K_M", "Q4_K_L", "Q4_K_S", "IQ4_NL", "IQ4_XS", "Q4_0", "Q4_1", "MXFP4", "Q5_K_M", "Q5_K_S", "Q5_0", "Q5_1"),
    *("Q6_K", "Q8_0", "Q3_K_L", "Q3_K_M", "IQ3_M", "Q3_K_S", "Q2_K", "F16", "FP16", "BF16", "F32"),
)

BITS: dict[str, float] = {
    **{"IQ1_S": 2.0, "IQ1_M": 2.15, "TQ1_0": 2.0, "TQ2_0": 2.4, "IQ2_XXS": 2.38, "IQ2_XS": 2.59, "IQ2_S": 2.74},
    **{"IQ2_M": 2.93, "Q2_K_S": 2.97, "Q2_K": 3.16, "Q2_K_L": 3.4, "IQ3_XXS": 3.25, "IQ3_XS": 3.5, "Q3_K_S": 3.64},
    **{"IQ3_S": 3.66, "IQ3_M": 3.76, "Q3_K_M": 4.0, "Q3_K_L": 4.3, "Q3_K_XL": 4.6, "IQ4_XS": 4.46, "IQ4_NL": 4.68},
    **{"Q4_0": 4.66, "Q4_K_S": 4.67, "Q4_K_M": 4.89, "Q4_K_L": 5.1, "Q4_1": 5.1, "MXFP4": 4.65, "NVFP4": 4.9},
    **{"Q5_0": 5.57, "Q5_K_S": 5.57, "Q5_K_M": 5.7, "Q5_K_L": 5.9, "Q5_1": 6.0, "Q6_K": 6.56, "Q6_K_L": 6.7},
    **{"Q8_0": 8.5, "BF16": 16.0, "F16": 16.0, "FP16": 16.0, "F32": 32.0},
}
"""Bits a weight takes in a whole file, the tensors kept at higher precision included.

As llama.cpp's documentation of `llama-quantize` gives them for Llama 3.1 8B; those it leaves out are by their share of
the larger types. Models with a large vocabulary and few layers take more.
"""


@dataclass(frozen=True, slots=True)
class Quant:
    """One GGUF model of a repository: a quantisation, in one file or several parts."""

    label: str  # Q4_K_M; "" where the name tells none
    files: tuple[str, ...]  # the first part first
    size: int | None = None  # bytes of all parts; None: not known
    whole: bool = True  # False: parts are missing

    @property
    def bits(self) -> float | None:
        """Bits a weight takes, by the label; None for a label that is not known."""
        return bits(self.label)


def quant_of(name: str) -> str:
    """The quantisation that a file name tells, in capitals; "" where it tells none.

    >>> quant_of("Llama-3.2-1B-Instruct-Q4_K_M.gguf"), quant_of("gemma.gguf"), quant_of("BF16/x.gguf")
    ('Q4_K_M', '', 'BF16')
    """
    found = [match.group().upper() for match in QUANT.finditer(name)]
    return found[-1] if found else ""


def bits(label: str) -> float | None:
    """Bits a weight takes in a file of that quantisation.

    >>> bits("Q4_K_M"), bits("UD-Q4_K_XL"), bits("Q9_X")
    (4.89, 4.89, None)
    """
    plain = label.upper().removeprefix("UD-")
    if plain in BITS:
        return BITS[plain]
    stem = plain.rpartition("_")[0]
    near = (f"{stem}_M", stem)
    return next((BITS[name] for name in near if name in BITS), None)


def size_of(label: str, parameters: int, embedding: int = 0, *, tied: bool = False, width: int = 256) -> int | None:
    """Bytes of a model of so many parameters in that quantisation, as `llama-quantize` mixes types; within a few
    percent. None for a label that is not known.

    `embedding`: parameters of the token embedding. Where it is `tied` it also makes the output, and keeps at least
    Q6_K. `width`: numbers in a row; rows that are no multiple of 256 cannot be K-quants and take the next larger type.

    >>> size_of("Q8_0", 8_030_261_248) // 10**7
    853
    """
    each = bits(label)
    if each is None:
        return None
    whole = width % 256 == 0 or not ("_K" in label or label.startswith("IQ"))
    each = each if whole else max(each, 5.6)
    shared = embedding if tied else 0
    return int((shared * max(each, 6.5625 if whole else 8.5) + (parameters - shared) * each) / 8)


def gather(names: Iterable[str]) -> dict[str, list[str]]:
    """The GGUF models among the files: the name without part numbers, and its files in order."""
    models: dict[str, list[str]] = {}
    for name in sorted(names):
        base = PurePosixPath(name).name.lower()
        if base.endswith(".gguf") and not base.startswith(BESIDES):
            models.setdefault(SHARD.sub("", name), []).append(name)
    return models


def quants(sizes: dict[str, int | None]) -> tuple[Quant, ...]:
    """The quantisations among files of these sizes in bytes, the smallest first.

    >>> [(q.label, q.size) for q in quants({"m-Q8_0.gguf": 9, "m-Q4_0-00001-of-00002.gguf": 3, "README.md": 1})]
    [('Q4_0', 3), ('Q8_0', 9)]
    """
    found = [_quant(model, files, sizes) for model, files in gather(sizes).items()]
    return tuple(sorted(found, key=lambda q: (q.size or 0, q.bits or 99.0, q.files)))


def _quant(model: str, files: list[str], sizes: dict[str, int | None]) -> Quant:
    known = [size for name in files if (size := sizes[name]) is not None]
    return Quant(quant_of(model), tuple(files), sum(known) if len(known) == len(files) else None, missing(files) == 0)


def missing(files: list[str]) -> int:
    """How many parts of a model in several parts are not there.

    >>> missing(["m-00001-of-00003.gguf"]), missing(["m.gguf"])
    (2, 0)
    """
    number = SHARD.search(files[0])
    return int(number[2]) - len(files) if number else 0


def rank(label: str) -> int:
    """The place of a quantisation in PREFERRED, the nearest one's where it is not there: less is better."""
    plain = label.removeprefix("UD-")
    exact = PREFERRED.index(plain) if plain in PREFERRED else None
    if exact is not None:
        return exact
    return next((i for i, known in enumerate(PREFERRED) if plain[:4] == known[:4]), len(PREFERRED))
