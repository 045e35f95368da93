"""What a folder of a transformers model holds, and whether it is safe and whole. Reads headers only, never weights."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from .errors import BrokenFile, ModelNotFound

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")
PICKLES = re.compile(r".*\.(bin|pt|pth|ckpt|pkl|pickle|msgpack|h5)")
VOCABULARY = frozenset({"tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json"})
SMALL = VOCABULARY | {
    CONFIG,
    INDEX,
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
}
HEADER_GUESS = 1 << 17  # bytes read at first: the header and the beginning of the weights, or most of the header
HEADER_LIMIT = 25_000_000  # bytes; a header of 63 MB takes the parser half a minute and a gigabyte
BITS = {"F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "I16": 16, "U16": 16}
CACHED = "models--"  # how the folder of a repository begins in the cache of downloads: models--OWNER--REPO
OTHER_MODEL = "Choose another model."


@dataclass(frozen=True, slots=True)
class Tensor:
    """One row of a safetensors header."""

    dtype: str  # as written there: F32, BF16, I8 ...
    elements: int
    size: int  # bytes in the file


def mend(path: Path) -> str:
    """What to do about a damaged file or folder: only what was downloaded here can be so again.

    >>> mend(Path("model_cache/models--o--r/snapshots/1/config.json"))
    'Delete o/r in the Explorer, then ask again: it is downloaded anew.'
    >>> mend(Path("/home/me/model/config.json"))
    'Get it again from where it came, or choose another model.'
    """
    for part in path.parts:
        if part.startswith(CACHED):
            return f"Delete {repository_of(part)} in the Explorer, then ask again: it is downloaded anew."
    return "Get it again from where it came, or choose another model."


def repository_of(name: str) -> str:
    """The repository of a folder in the cache of downloads.

    >>> repository_of("models--owner--my--repo")
    'owner/my--repo'
    """
    return name.removeprefix(CACHED).replace("--", "/", 1)


def needed(names: Iterable[str]) -> list[str]:
    """Of a repository's files, those that loading takes: configuration and tokenizer first, weights last.

    >>> needed(["model.safetensors", "README.md", "config.json", "evil.py", "pytorch_model.bin"])
    ['config.json', 'model.safetensors']
    """
    names = sorted(names)
    return [n for n in names if n in SMALL] + [n for n in names if WEIGHTS.fullmatch(n)]


def check_names(names: Sequence[str], where: str) -> None:
    """Refuse a folder or repository that can be seen from its file names to be no safe, whole model.

    Raises BrokenFile or ModelNotFound. `where` is what the person called it.
    """
    if any(WEIGHTS.fullmatch(name) for name in names):
        if CONFIG not in names:
            raise BrokenFile(f"{where} has weights but no {CONFIG}.", hint="Choose a complete model.")
        if not VOCABULARY & set(names):
            raise BrokenFile(f"{where} has no tokenizer.", hint="Add tokenizer.json from the model it was made of.")
    elif any(name.endswith(".gguf") for name in names):
        raise ModelNotFound(f"{where} holds GGUF files.", hint=f"Use gguf:{where} instead.")
    elif any(name.startswith("adapter_model.") for name in names):
        raise ModelNotFound(f"{where} holds an adapter, not a model.", hint="Merge it into its base model first.")
    elif any(PICKLES.fullmatch(name) for name in names):
        raise BrokenFile(
            f"{where} has its weights only as pickle files, which can run any code when they are opened.",
            hint="Choose a version in safetensors format, or a GGUF file.",
        )
    else:
        raise ModelNotFound(f"{where} holds no model weights.", hint="Choose a repository with safetensors files.")


def read_json(path: Path) -> dict[str, Any]:
    """A small JSON object. Raises BrokenFile."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BrokenFile(f"{path.parent.name} has no {path.name}.", hint=mend(path)) from error
    except (OSError, ValueError, RecursionError) as error:
        raise BrokenFile(f"{path.name} cannot be read: {error}", hint=mend(path)) from error
    if not isinstance(value, dict):
        raise BrokenFile(f"{path.name} is not a JSON object.", hint=mend(path))
    return value


def check_config(config: dict[str, Any]) -> None:
    """Refuse a configuration that asks for code from outside the library. Raises BrokenFile."""
    for key, value in _entries(config):
        # The names of an attention or experts implementation may be repositories, whose kernels would be run.
        from_hub = key.lstrip("_").endswith("_implementation") and "/" in str(value)
        if (key == "auto_map" and value) or from_hub:
            raise BrokenFile(
                "This model needs program code from its repository, which is not run here.",
                hint="Choose a model of an architecture that the transformers library knows, or a GGUF file.",
            )


def check_safe(folder: Path) -> None:
    """`check_config` for every configuration file in the folder. Raises BrokenFile."""
    for name in (CONFIG, "tokenizer_config.json", "generation_config.json"):
        if (folder / name).exists():
            check_config(read_json(folder / name))


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield str(key), inner
            yield from _entries(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _entries(inner)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that make up the model. Raises BrokenFile where one is missing."""
    names = {path.name for path in folder.iterdir() if path.exists()}
    wanted = {name for name in names if WEIGHTS.fullmatch(name)}
    if INDEX in names and "model.safetensors" not in names:
        shards = read_json(folder / INDEX).get("weight_map")
        wanted = set(map(str, shards.values())) if isinstance(shards, dict) else set()
        if not wanted or not all(map(WEIGHTS.fullmatch, wanted)):  # a shard called ../x must not be followed
            raise BrokenFile(f"{INDEX} does not list the weight files.", hint=mend(folder))
    if gone := sorted(wanted - names):
        raise BrokenFile(f"{len(gone)} weight files are missing, {gone[0]} first.", hint=mend(folder))
    return [folder / name for name in sorted(wanted)]


def check_loaded(
    missing: Iterable[str], mismatched: Iterable[tuple[str, Sequence[int], Sequence[int]]], hint: str
) -> None:
    """Refuse a model whose weights are missing or of another shape: the library fills them with random numbers.

    `missing` and `mismatched` are what it says it found: names, and names with the shape in the file and that wanted.
    Raises BrokenFile, which names the first and says how many more there are.
    """
    if wrong := sorted(mismatched):
        name, held, wanted = wrong[0]
        sizes = f"{tuple(held)} in the file, {tuple(wanted)} by {CONFIG}"
        more = f"; {len(wrong) - 1} more do not fit" if len(wrong) > 1 else ""
        raise BrokenFile(f"The model does not fit together: {name} is {sizes}{more}.", hint=hint)
    if gone := sorted(missing):
        more = f" and {len(gone) - 1} more" if len(gone) > 1 else ""
        raise BrokenFile(f"The weights of {gone[0]}{more} are missing.", hint=hint)


def complete(folder: Path) -> bool:
    """Whether everything is there that loading takes."""
    names = [path.name for path in folder.iterdir() if path.exists()] if folder.is_dir() else []
    try:
        check_names(names, folder.name)
        return bool(weight_files(folder))
    except (BrokenFile, ModelNotFound):
        return False


def tensors(path: Path) -> dict[str, Tensor]:
    """The header of a safetensors file. Raises BrokenFile where it is damaged or the file is cut short."""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            return read_header(path.name, size, lambda start, length: _at(file, start, length), mend(path))
    except OSError as error:
        raise BrokenFile(f"{path.name} cannot be read: {error}", hint=mend(path)) from error


def read_header(name: str, size: int, read: Callable[[int, int], bytes], hint: str = OTHER_MODEL) -> dict[str, Tensor]:
    """The header of a safetensors file of `size` bytes, of which `read` gets a part: from, how many.

    Raises BrokenFile where it is damaged or the file is cut short, and what `read` raises.
    """
    first = read(0, HEADER_GUESS)
    length = int.from_bytes(first[:8], "little")
    try:
        if not 2 <= length <= min(HEADER_LIMIT, size - 8):
            raise ValueError(f"a header of {length} bytes")
        more = read(len(first), 8 + length - len(first)) if 8 + length > len(first) else b""
        rows = json.loads((first + more)[8 : 8 + length])
        rows.pop("__metadata__", None)
        found = {name: _tensor(row) for name, row in rows.items()}
        end = 8 + length + max((row["data_offsets"][1] for row in rows.values()), default=0)
        if end != size:
            raise ValueError(f"{size:,} bytes instead of {end:,}")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BrokenFile(f"{name} is damaged or incomplete ({error}).", hint=hint) from error
    return found


def _at(file: BinaryIO, start: int, length: int) -> bytes:
    file.seek(start)
    return file.read(length)


def _tensor(row: dict[str, Any]) -> Tensor:
    start, end = row["data_offsets"]
    elements = math.prod(row["shape"])
    bits = BITS.get(row["dtype"])  # None: a packed format
    if not 0 <= start <= end or (bits and end - start != elements * bits // 8):
        raise ValueError("a tensor whose shape and size disagree")
    return Tensor(row["dtype"], elements, end - start)
