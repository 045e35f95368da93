"""What the model picker shows: what is here, what is worth a download, and what the services offer.

Every entry can be chosen by its id; the picker also takes any id typed by hand.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import chain
from pathlib import Path
from queue import SimpleQueue
from threading import Lock, Thread

from . import registry
from .backends.service import Service
from .download import snapshot
from .errors import AuthenticationFailure, ConnectionFailure, MissingKey, MultimodelError, TimedOut, Unexpected
from .folder import complete, repository_of
from .locate import GUIDE
from .quants import BESIDES, SHARD, quant_of
from .settings import Endpoint, Settings

MINUTE = 60.0
"""Seconds for which a service's list is kept."""

SUGGESTED: dict[str, tuple[tuple[str, str], ...]] = {  # as of November 2026: (name, detail)
    "transformers": (
        ("HuggingFaceTB/SmolLM2-135M-Instruct", "0.3 GB to download"),
        ("HuggingFaceTB/SmolLM2-360M-Instruct", "0.7 GB to download"),
        ("Qwen/Qwen2.5-0.5B-Instruct", "1 GB to download"),
        ("Qwen/Qwen3-0.6B", "1.5 GB to download; thinks first"),
        ("HuggingFaceTB/SmolLM2-1.7B-Instruct", "3.4 GB to download"),
        ("HuggingFaceTB/SmolLM3-3B", "6.2 GB to download; thinks first"),
    ),
    "gguf": (
        ("bartowski/SmolLM2-135M-Instruct-GGUF:Q4_K_M", "0.1 GB to download"),
        ("bartowski/SmolLM2-360M-Instruct-GGUF:Q4_K_M", "0.3 GB to download"),
        ("Qwen/Qwen3-0.6B-GGUF:Q8_0", "0.6 GB to download; thinks first"),
        ("bartowski/Llama-3.2-1B-Instruct-GGUF:Q4_K_M", "0.8 GB to download"),
        ("bartowski/google_gemma-3-1b-it-GGUF:Q4_K_M", "0.8 GB to download"),
        ("Qwen/Qwen3-1.7B-GGUF:Q8_0", "1.8 GB to download; thinks first"),
        ("bartowski/Qwen_Qwen3-4B-Instruct-2507-GGUF:Q4_K_M", "2.5 GB to download"),
    ),
    "openai": (
        ("gpt-6-luna", "fast and cheap"),
        ("gpt-6.1-sol", "the strong one"),
        ("gpt-5.4-mini", ""),
    ),
    "hf-inference": (
        ("openai/gpt-oss-20b", ""),
        ("openai/gpt-oss-120b", ""),
        ("meta-llama/Llama-3.3-70B-Instruct", ""),
    ),
}
PIP_NAMES = {"llama_cpp": "llama-cpp-python"}
DEFAULT_OPENAI = "api.openai.com"


@dataclass(frozen=True, slots=True)
class Entry:
    """A model that can be picked, or the reason why it cannot."""

    id: str
    group: str
    label: str
    detail: str = ""
    unavailable: str = ""  # empty: it can be picked


def catalog(settings: Settings) -> tuple[Entry, ...]:
    """All that is known without asking anyone; `discover` asks."""
    known = [*_local("transformers", settings), *_local("gguf", settings), *_openai(settings), *_hub(settings)]
    return (*known, *(_waiting(endpoint, settings) for endpoint in settings.api.endpoints))


def discover(settings: Settings) -> Generator[tuple[Entry, ...]]:
    """The catalogue with the lists of the services in it: once a list has arrived, again and whole, until all have.

    The services are asked at the same time, each with a few seconds to answer; their lists are kept for a minute.
    """
    entries = catalog(settings)
    backends = _askable(settings)
    arrivals: SimpleQueue[tuple[str, tuple[str, ...] | MultimodelError]] = SimpleQueue()
    for backend in backends:
        Thread(target=lambda b=backend: arrivals.put((b, _listed(b, settings))), name="list", daemon=True).start()
    for _ in backends:
        backend, found = arrivals.get()
        entries = _with_list(entries, backend, found)
        yield entries


def nearest(text: str, entries: Iterable[Entry]) -> tuple[str, ...]:
    """Up to three ids like what was typed.

    >>> nearest("smolm2", [Entry("gguf:o/SmolLM2-135M:Q4_K_M", "GGUF", "o/SmolLM2-135M:Q4_K_M")])
    ('gguf:o/SmolLM2-135M:Q4_K_M',)
    """
    forms: dict[str, str] = {}
    for entry in entries:
        name = entry.id.partition(":")[2]
        bare = name.rpartition("/")[2]
        for form in (entry.id, name, bare, bare.partition("-")[0]):
            forms.setdefault(form.lower(), entry.id)
    forms.pop("", None)
    near = get_close_matches(text.strip().lower(), forms, n=6, cutoff=0.55)
    return tuple(dict.fromkeys(forms[form] for form in near))[:3]


# on this machine


def _local(backend: str, settings: Settings) -> list[Entry]:
    """The built-in model, what is on the disk, and what is worth a download, each once."""
    row = registry.BACKENDS[backend]
    here = [(GUIDE, "built in"), *((name, "on this machine") for name in _on_disk(backend, settings))]
    names = dict(reversed([*here, *SUGGESTED[backend]]))  # the first of two stays
    order = dict.fromkeys(name for name, _ in (*here, *SUGGESTED[backend]))
    reason = f"needs the package {PIP_NAMES.get(row.package, row.package)}" if registry.missing(row) else ""
    return [Entry(f"{backend}:{name}", row.title, _label(name), names[name], reason) for name in order]


def _label(name: str) -> str:
    return "Guide" if name == GUIDE else Path(name).name if Path(name).is_absolute() else name


def _on_disk(backend: str, settings: Settings) -> list[str]:
    cache = settings.models.cache_dir
    if not cache.is_dir():
        return []
    names = chain.from_iterable(_in_cache(backend, folder, settings) for folder in sorted(cache.glob("models--*--*")))
    loose = [str(path.resolve()) for path in sorted(cache.glob("*.gguf"))] if backend == "gguf" else []
    return [*names, *_first_files(loose)]


def _in_cache(backend: str, folder: Path, settings: Settings) -> Iterator[str]:
    """The models of one repository in the cache, as the names that find them again."""
    repository = repository_of(folder.name)
    found = snapshot(repository, "main", settings)
    if not found:
        return
    if backend == "transformers":
        if complete(found):
            yield repository
        return
    files = _first_files(str(path.relative_to(found)) for path in sorted(found.rglob("*.gguf")) if path.exists())
    quants = [quant_of(file) for file in files]
    for file, quant in zip(files, quants, strict=True):
        yield f"{repository}:{quant if quant and quants.count(quant) == 1 else file}"


def _first_files(names: Iterable[str]) -> list[str]:
    """One file a model: the first of its parts, and none that only accompanies one."""
    shards = [(name, SHARD.search(name)) for name in names if not Path(name).name.lower().startswith(BESIDES)]
    return [name for name, shard in shards if not shard or int(shard[1]) == 1]


# services


def _openai(settings: Settings) -> list[Entry]:
    row, (here, host) = registry.BACKENDS["openai"], _where(settings.api.openai_base_url)
    reason = "" if settings.api.openai_key or here else "needs OPENAI_API_KEY"
    if host != DEFAULT_OPENAI:
        return [Entry("openai:", row.title, "Other models", "", reason or f"asking {host}")]
    return [Entry(f"openai:{name}", row.title, name, detail, reason) for name, detail in SUGGESTED["openai"]]


def _hub(settings: Settings) -> list[Entry]:
    row, (here, _) = registry.BACKENDS["hf-inference"], _where(settings.api.hf_inference_url)
    reason = "" if settings.api.hf_token or here else "needs HF_TOKEN"
    models = SUGGESTED["hf-inference"]
    return [Entry(f"hf-inference:{name}", row.title, name, detail, reason) for name, detail in models]


def _waiting(endpoint: Endpoint, settings: Settings) -> Entry:
    """What stands for an endpoint until its list arrives."""
    reason = _missing_key(endpoint, settings) or f"asking {_where(endpoint.base_url)[1]}"
    return Entry(f"{endpoint.name}:", endpoint.name, "Its models", "", reason)


def _missing_key(endpoint: Endpoint, settings: Settings) -> str:
    needed = endpoint.key_var and endpoint.key_var not in settings.environment
    return f"needs {endpoint.key_var}" if needed else ""


def _where(url: str) -> tuple[bool, str]:
    """Whether an address is on this machine, and its host."""
    service = Service("", "", url)
    return service.on_this_machine, service.host


def _askable(settings: Settings) -> list[str]:
    """The services that can be asked for a list. The Hub's would be thousands."""
    openai = settings.api.openai_key or _where(settings.api.openai_base_url)[0]
    named = [e.name for e in settings.api.endpoints if not _missing_key(e, settings)]
    return [*(["openai"] if openai else []), *named]


_lists: dict[tuple[str, str], tuple[float, tuple[str, ...] | MultimodelError]] = {}
_lists_lock = Lock()  # between the threads that ask


def _listed(backend: str, settings: Settings) -> tuple[str, ...] | MultimodelError:
    """A service's list, or why there is none; not older than a minute."""
    endpoint = settings.endpoint(backend)
    key = (backend, endpoint.base_url if endpoint else settings.api.openai_base_url)
    with _lists_lock:
        asked, known = _lists.get(key, (0.0, ()))
    if key in _lists and time.perf_counter() - asked < MINUTE:
        return known
    found: tuple[str, ...] | MultimodelError
    try:
        found = registry.listed(backend, settings)
    except MultimodelError as error:
        found = error
    except Exception as error:  # or the picker would wait for ever
        found = Unexpected(f"{type(error).__name__}: {error}")
    with _lists_lock:
        _lists[key] = (time.perf_counter(), found)
    return found


def _with_list(entries: Sequence[Entry], backend: str, found: tuple[str, ...] | MultimodelError) -> tuple[Entry, ...]:
    """The catalogue in which a service's list has taken the place of what stood for it."""
    mine = [entry for entry in entries if entry.id.startswith(f"{backend}:")]
    if isinstance(found, MultimodelError) or not found:
        reason = _reason(found) if isinstance(found, MultimodelError) else "has no models yet"
        for_all = isinstance(found, AuthenticationFailure)  # else a suggestion may still work
        listed = [replace(entry, unavailable=reason if for_all or entry.unavailable else "") for entry in mine]
    else:
        details = {entry.id: entry.detail for entry in mine}
        ids = [f"{backend}:{name}" for name in found]
        offered = [entry for entry in mine if entry.id in ids]  # the suggestions it really has come first
        rest = [id for id in ids if id not in details]
        listed = [*offered, *(Entry(id, mine[0].group, id.partition(":")[2]) for id in rest)]
    at = entries.index(mine[0])
    return (*entries[:at], *listed, *(entry for entry in entries[at:] if entry not in mine))


def _reason(error: MultimodelError) -> str:
    """Why there is no list, in a few words."""
    match error:
        case ConnectionFailure() | TimedOut():
            return "does not answer"
        case AuthenticationFailure():
            return "refused the key"
        case MissingKey():
            return "needs a key"
    return "gives no list of models; type its name"
