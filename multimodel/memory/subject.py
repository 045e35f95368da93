"""From what a person calls a model to its headers: on this machine, in the cache, or by range requests on the Hub."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from .. import folder as files
from ..errors import BrokenFile, DownloadFailed, InvalidModelId, ModelNotFound
from ..hub import RemoteFile, Repository, config, repository
from ..hub.wire import get_json, part
from ..locate import GUIDE, files_of, locate, pick_gguf
from ..settings import Settings
from ..types import LoadOptions, ModelId, ModelSpec
from .gguf import read_header
from .gguf_plan import GgufModel
from .source import FileSource
from .torch_plan import TorchModel, model_of

Subject = GgufModel | TorchModel
LOCAL = ("gguf", "transformers")
TOGETHER = 8  # headers of shards asked for at once


@dataclass(frozen=True, slots=True)
class HubSource:
    """A file of a repository, read by range requests."""

    repo: Repository
    file: RemoteFile
    settings: Settings

    @property
    def name(self) -> str:
        """Its path in the repository."""
        return self.file.name

    @property
    def size(self) -> int:
        """Its length in bytes, as the Hub says."""
        return self.file.size

    def read(self, start: int, length: int) -> bytes:
        """See `source.Source`."""
        path = f"/{self.repo.name}/resolve/{self.repo.commit}/{quote(self.file.name)}"
        wanted = min(length, self.file.size - start)
        if wanted <= 0:
            return b""
        return part(path, self.settings, start, wanted, about=self.repo.name, revision=self.repo.commit)


def subject(model: str | Path | ModelId, settings: Settings, revision: str | None = None) -> Subject:
    """The model by its headers, wherever it is; of the Hub nothing else is fetched. Raises LoadError, ConfigError.

    `model`: an id such as gguf:OWNER/REPO:Q4_K_M, a repository, a GGUF file or a folder.
    """
    text = str(model)
    backend, colon, rest = text.partition(":")
    if colon and backend in LOCAL:
        id = ModelId(backend, rest)
        here = at_hand(id, settings, revision)
        return on_disk(here, text) if here else on_hub(id.name, settings, revision, gguf=backend == "gguf")
    for kind in _kinds(text):
        if here := at_hand(ModelId(kind, text), settings, revision):
            return on_disk(here, text)
    if "/" not in text or (colon and "/" in rest and "/" not in backend):
        message = f"{text!r} names no model whose memory can be told."
        raise InvalidModelId(message, hint="Write gguf:NAME, transformers:NAME, OWNER/REPO, or a path.")
    return on_hub(text, settings, revision, gguf=True if colon else None)


def _kinds(text: str) -> Sequence[str]:
    """The runtimes that a bare name may be meant for, the likelier first."""
    path = Path(text).expanduser()
    if path.is_dir():
        return ("transformers",) if (path / files.CONFIG).exists() else ("gguf",)
    if path.suffix == ".gguf" or ":" in text:
        return ("gguf",)
    return ("transformers", "gguf")


def at_hand(id: ModelId, settings: Settings, revision: str | None = None) -> Path | None:
    """Where a model lies on this machine, None where it does not. Raises LoadError where a path leads nowhere."""
    alone = settings.model_copy(update={"models": settings.models.model_copy(update={"offline": True})})
    search = locate(ModelSpec(id, LoadOptions(revision=revision)), alone)
    try:
        next(search)
    except StopIteration as found:
        return Path(found.value.path)
    except DownloadFailed:
        return None
    except ModelNotFound:
        if "/" in id.name or id.name == GUIDE:
            raise
        return None
    return None


def on_disk(path: Path, name: str) -> Subject:
    """The model of a GGUF file or a folder. Raises LoadError."""
    if path.is_dir():
        return _folder(path, name)
    return GgufModel(name, read_header([FileSource(file) for file in sorted(files_of(path))], files.mend(path)))


def _folder(path: Path, name: str) -> TorchModel:
    names = {file.name for file in path.iterdir()}
    found = [files.tensors(file) for file in files.weight_files(path)]
    if not found:
        files.check_names(sorted(names), name)
    tensors = {key: tensor for shard in found for key, tensor in shard.items()}
    return model_of(name, files.read_json(path / files.CONFIG), tensors, tokenizer=bool(files.VOCABULARY & names))


def on_hub(name: str, settings: Settings, revision: str | None = None, *, gguf: bool | None = None) -> Subject:
    """The model of a repository, "OWNER/REPO" or "OWNER/REPO:QUANT". `gguf`: None to see what there is.

    Raises LoadError.
    """
    place, _, wanted = name.partition(":")
    repo = repository(place, revision or "main", settings)
    names = [file.name for file in repo.files]
    if gguf is None:
        gguf = not any(map(files.WEIGHTS.fullmatch, names)) and any(n.endswith(".gguf") for n in names)
    return remote_gguf(repo, wanted, settings) if gguf else remote_folder(repo, settings)


def remote_gguf(repo: Repository, wanted: str, settings: Settings) -> GgufModel:
    """A quantisation, or a file by its name, of a repository. Raises LoadError."""
    chosen = pick_gguf([file.name for file in repo.files], wanted, repo.name)
    sources = [HubSource(repo, _file(repo, name), settings) for name in chosen]
    return GgufModel(f"{repo.name}:{wanted or chosen[0]}", read_header(sources))


def remote_folder(repo: Repository, settings: Settings) -> TorchModel:
    """The transformers model of a repository. Raises LoadError."""
    names = [file.name for file in repo.files]
    files.check_names(names, repo.name)
    sources = [HubSource(repo, _file(repo, name), settings) for name in _weights(repo, names, settings)]
    with ThreadPoolExecutor(min(TOGETHER, len(sources))) as together:
        found = together.map(lambda s: files.read_header(s.name, s.size, s.read), sources)
        tensors = {key: tensor for shard in found for key, tensor in shard.items()}
    tokenizer = bool(files.VOCABULARY & set(names))
    return model_of(repo.name, config(repo, settings), tensors, tokenizer=tokenizer)


def _weights(repo: Repository, names: Sequence[str], settings: Settings) -> list[str]:
    """The weight files of a repository: those of the index where there is one, so that no other set is counted too."""
    found = sorted(name for name in names if files.WEIGHTS.fullmatch(name))
    if "model.safetensors" in found:
        return ["model.safetensors"]
    if files.INDEX not in names:
        return found
    path = f"/{repo.name}/resolve/{repo.commit}/{files.INDEX}"
    index, _ = get_json(path, settings, about=repo.name, revision=repo.commit)
    shards = index.get("weight_map") if isinstance(index, dict) else None
    wanted = set(map(str, shards.values())) if isinstance(shards, dict) else set()
    if not wanted or wanted - set(found):
        raise BrokenFile(f"{files.INDEX} of {repo.name} does not fit its files.", hint="Choose another repository.")
    return sorted(wanted)


def _file(repo: Repository, name: str) -> RemoteFile:
    found = repo.file(name)
    if not found:
        raise ModelNotFound(f"{repo.name} has no file {name}.", hint="Choose another one.")
    return found
