"""Where a local model lies: the built-in one, a path, a fine-tuned one, the cache, or the Hub.

A name that is a path on this machine is that path; any other is `OWNER/REPO` on the Hub, for GGUF files
`OWNER/REPO:QUANT` or `OWNER/REPO:FILE`.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path

from . import folder as files
from .download import fetch, snapshot
from .errors import BrokenFile, DownloadFailed, LoadError, ModelNotFound
from .hub import RemoteFile, Repository, repository
from .jobs import Job, in_background
from .quants import SHARD, gather, missing, quant_of, rank
from .settings import Settings
from .types import ON_HUB, Chunk, Loaded, ModelSpec

GUIDE = "guide"


@dataclass(frozen=True, slots=True)
class Located:
    """Where a model lies, and what the person should know about the choice."""

    path: Path
    notes: tuple[str, ...] = ()


def locate(spec: ModelSpec, settings: Settings) -> Generator[Chunk, None, Located]:
    """Find a model, downloading what is missing: yields stages, returns where it lies. Raises LoadError.

    Closing it stops the download; the next one goes on where it stopped.
    """
    gguf = spec.id.backend == "gguf"
    if here := _here(spec.id.name, gguf, settings):
        return Located(_gguf_in(here) if gguf and here.is_dir() else here)
    name, _, wanted = spec.id.name.partition(":")
    if not ON_HUB.fullmatch(name):
        raise _not_found(spec.id.name, gguf, settings)
    revision = spec.load.revision or "main"
    if cached := _cached(name, wanted, gguf, revision, settings):
        return Located(cached)
    if settings.models.offline:
        raise DownloadFailed(
            f"{name} is not in {settings.models.cache_dir}, and the Hub is switched off.",
            hint="Unset HF_HUB_OFFLINE to download it.",
        )
    path = yield from in_background(partial(download, spec, settings))
    return Located(path)


def _here(name: str, gguf: bool, settings: Settings) -> Path | None:
    """The file or folder on this machine that `name` means; None where it means a repository."""
    if name == GUIDE:
        return _guide(gguf, settings)
    path = Path(name).expanduser()
    if path.exists():
        return path.resolve()
    if name.startswith((".", "/", "~")) or path.is_absolute() or (path.suffix == ".gguf" and ":" not in name):
        raise _not_found(name, gguf, settings)
    own = settings.models.fine_tuned_dir / name
    return own.resolve() if "/" not in name and own.is_dir() else None


def _guide(gguf: bool, settings: Settings) -> Path:
    folder = settings.models.assets_dir / GUIDE
    path = folder / "guide-q8_0.gguf" if gguf else folder / "hf"
    if not path.exists():
        hint = "Get the whole repository again, or train it: python -m guide.train."
        raise ModelNotFound(f"The built-in model is missing: {path} is not there.", hint=hint)
    return path.resolve()


def _not_found(name: str, gguf: bool, settings: Settings) -> ModelNotFound:
    """With the nearest names of what could be such a model: beside it, and of the models that are here."""
    folder = Path(name).expanduser().parent
    beside = [
        str(folder / entry) for entry in _names(folder) if (folder / entry).is_dir() or (gguf and _is_gguf(entry))
    ]
    own = [] if gguf else _names(settings.models.fine_tuned_dir)
    near = get_close_matches(name, [*beside, *own, GUIDE], n=2, cutoff=0.6)
    hint = f"Did you mean {' or '.join(near)}?" if near else "Write guide, OWNER/REPO from the Hub, or a path."
    return ModelNotFound(f"There is no model {name!r} here.", hint=hint)


def _is_gguf(name: str) -> bool:
    return name.lower().endswith(".gguf")


def _names(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    except OSError:
        return []


def _cached(name: str, wanted: str, gguf: bool, revision: str, settings: Settings) -> Path | None:
    """The model in the cache, if it is all there."""
    found = snapshot(name, revision, settings)
    if not found:
        return None
    if not gguf:
        return found if files.complete(found) else None
    here = [str(path.relative_to(found)) for path in found.rglob("*.gguf") if path.exists()]
    try:
        return found / pick_gguf(here, wanted, name)[0] if here else None
    except LoadError:
        return None


def _gguf_in(folder: Path) -> Path:
    names = [path.name for path in folder.iterdir()]
    return folder / pick_gguf(names, "", str(folder))[0]


def files_of(path: Path) -> list[Path]:
    """The weight files of a model that `locate` found: all shards of a GGUF file, or those of a folder."""
    if path.is_dir():
        return [file for file in path.iterdir() if files.WEIGHTS.fullmatch(file.name)]
    name = SHARD.sub("", path.name)
    return [file for file in path.parent.iterdir() if SHARD.sub("", file.name) == name]


def stamp(path: Path) -> Loaded:
    """Which files a model that lies here is, as far as can be told without reading them."""
    try:
        found = [file.stat() for file in files_of(path)]
    except OSError:
        return Loaded()
    newest = max((file.st_mtime_ns for file in found), default=0)
    return Loaded(file=path.name, size=sum(file.st_size for file in found), changed=newest)


def download(spec: ModelSpec, settings: Settings, job: Job) -> Path:
    """Bring what loading a model of the Hub takes into the cache; where it lies then. Raises LoadError, Cancelled."""
    name, _, wanted = spec.id.name.partition(":")
    revision = spec.load.revision or "main"
    repo = repository(name, revision, settings)
    names = [file.name for file in repo.files]
    if spec.id.backend == "gguf":
        chosen = pick_gguf(names, wanted, name)
        return fetch(repo, _named(repo, chosen), revision, settings, job) / chosen[0]
    files.check_names(names, name)
    chosen = files.needed(names)
    small = [file for file in _named(repo, chosen) if file.name in files.SMALL]
    files.check_safe(fetch(repo, small, revision, settings, job))  # before gigabytes of weights are
    return fetch(repo, _named(repo, chosen), revision, settings, job)


def _named(repo: Repository, names: Sequence[str]) -> list[RemoteFile]:
    by_name = {file.name: file for file in repo.files}
    return [by_name[name] for name in names]


def pick_gguf(names: Iterable[str], wanted: str, where: str) -> list[str]:
    """The files of one quantisation, the first shard first. `wanted`: a quantisation, a file name, or "" for the best.

    >>> pick_gguf(["m-Q8_0.gguf", "m-Q4_K_M.gguf", "mmproj-F16.gguf"], "", "o/r")
    ['m-Q4_K_M.gguf']
    >>> pick_gguf(["q8_0/m-00001-of-00002.gguf", "q8_0/m-00002-of-00002.gguf"], "Q8_0", "o/r")
    ['q8_0/m-00001-of-00002.gguf', 'q8_0/m-00002-of-00002.gguf']

    Raises ModelNotFound with what there is, BrokenFile where a shard is missing.
    """
    models = gather(names)
    if not models:
        hint = f"For safetensors use transformers:{where}."
        raise ModelNotFound(f"{where} holds no GGUF model.", hint=hint)
    matching = [model for model in models if _matches(model, wanted)] if wanted else list(models)
    if not matching:
        known = sorted({quant_of(model) or Path(model).name for model in models})
        near = get_close_matches(wanted.upper(), known, n=1, cutoff=0.5)
        did = f"Did you mean {near[0]}? " if near else ""
        raise ModelNotFound(f"{where} has no {wanted}.", hint=f"{did}It has {', '.join(known)}.")
    best = min(matching, key=lambda model: (rank(quant_of(model)), len(model), model))
    return _whole(models[best], where)


def _matches(model: str, wanted: str) -> bool:
    wanted, model = wanted.lower(), model.lower()
    plain = SHARD.sub("", wanted)
    return quant_of(model).lower() == wanted or plain in (model, Path(model).name, Path(model).stem)


def _whole(shards: list[str], where: str) -> list[str]:
    if gone := missing(shards):
        message = f"{where} has {len(shards)} of the {len(shards) + gone} parts of {shards[0]}."
        raise BrokenFile(message, hint="Choose another file.")
    return shards
