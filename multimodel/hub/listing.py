"""Searching the Hub: a page of repositories, each with the facts that a verdict needs, in one request."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

from ..quants import Quant, quants
from ..settings import Settings
from .faults import not_data
from .wire import get_json

PER_PAGE = 30
SORTS: dict[str, str] = {  # ours, and the Hub's word
    "trending": "trendingScore",
    "downloads": "downloads",
    "likes": "likes",
    "updated": "lastModified",
    "created": "createdAt",
}
Sort = Literal["trending", "downloads", "likes", "updated", "created"]
Gate = Literal["", "auto", "manual"]
"""Who may download: everybody; whoever accepts the licence; whoever the authors let in."""

NAME = re.compile(r"(?!.*(?:--|\.\.))[\w][\w.-]{0,95}/[\w][\w.-]{0,95}", re.ASCII)
NEXT = re.compile(r'<([^>]*)>\s*;[^,]*\brel="?next"?')
FACTS = (
    *("author", "createdAt", "downloads", "gated", "gguf", "lastModified", "library_name", "likes", "pipeline_tag"),
    *("private", "safetensors", "siblings", "tags", "trendingScore"),
)
DTYPE_BITS: dict[str, float] = {
    **{"F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "I16": 16, "U16": 16},
    **{"I8": 8, "U8": 8, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4},
}
PACKED = frozenset({"I32", "U32", "I8", "U8", "F4", "I64"})  # may hold several weights an element
COUNT_LIMIT = 1 << 60  # what is larger is no count of anything
FILES_LIMIT = 5_000  # of one repository


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What to look for; what is left empty does not narrow it."""

    text: str = ""  # words of the name
    task: str = ""  # as the Hub names it: text-generation, text-classification ...
    library: str = ""  # transformers, gguf, ...
    author: str = ""
    licence: str = ""  # apache-2.0, mit, ...
    smallest: float | None = None  # billions of parameters
    largest: float | None = None
    gated: bool | None = None
    sort: Sort = "trending"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A repository in a list of results. None: the Hub does not say."""

    name: str
    task: str = ""
    library: str = ""
    licence: str = ""
    architecture: str = ""
    base: str = ""  # the repository this one was made of by quantising or training on
    gate: Gate = ""
    private: bool = False
    downloads: int | None = None  # in the last 30 days
    likes: int | None = None
    created: date | None = None
    updated: date | None = None
    parameters: int | None = None
    stored: tuple[tuple[str, int], ...] = ()  # elements of the safetensors files by number format
    context_length: int | None = None  # tokens the model was trained for
    quants: tuple[Quant, ...] = ()  # GGUF models among the files

    @property
    def author(self) -> str:
        return self.name.partition("/")[0]

    @property
    def stored_bytes(self) -> int | None:
        """Bytes of the safetensors files; None where there are none, or where a format is not known."""
        if not self.stored or any(dtype not in DTYPE_BITS for dtype, _ in self.stored):
            return None
        return int(sum(DTYPE_BITS[dtype] * count for dtype, count in self.stored)) // 8


@dataclass(frozen=True, slots=True)
class Page:
    """One page of results. `cursor`: where the next one begins; "" after the last."""

    rows: tuple[Listing, ...]
    cursor: str = ""


def search(query: Query, settings: Settings, cursor: str = "", limit: int = PER_PAGE) -> Page:
    """A page of the Hub's models, by one request. Raises LoadError."""
    params = [*_params(query), ("limit", str(limit)), *(("expand", fact) for fact in FACTS)]
    params += [("cursor", cursor)] if cursor else []
    rows, headers = get_json("/api/models", settings, params=params)
    if not isinstance(rows, list):
        raise not_data(settings, "something else")
    found = (listing(row) for row in rows[: 10 * limit])
    return Page(tuple(row for row in found if row), _cursor(headers))


def _params(query: Query) -> Iterator[tuple[str, str]]:
    filters = [query.library, f"license:{query.licence}" if query.licence else ""]
    named = {"search": query.text.strip(), "author": query.author.strip(), "pipeline_tag": query.task}
    yield from (("filter", value) for value in filters if value)
    yield from ((name, value) for name, value in named.items() if value)
    bounds = (("min", query.smallest), ("max", query.largest))
    if sizes := ",".join(f"{name}:{billions:g}B" for name, billions in bounds if billions):
        yield "num_parameters", sizes
    if query.gated is not None:
        yield "gated", str(query.gated).lower()
    yield "sort", SORTS[query.sort]


def _cursor(headers: Mapping[str, str]) -> str:
    """Where the next page begins, from the Link header (RFC 8288). Only the cursor is taken, never the address."""
    link = NEXT.search(headers.get("link", ""))
    return parse_qs(urlsplit(link[1]).query).get("cursor", [""])[0] if link else ""


def listing(row: Any) -> Listing | None:
    """The facts of one repository as the Hub's JSON gives them; None where it is none that can be loaded by name.

    Everything comes from outside: what is of the wrong kind is left out.
    """
    if not isinstance(row, dict) or not NAME.fullmatch(_text(row.get("id"))):
        return None
    tags = [tag for tag in _list(row.get("tags")) if isinstance(tag, str)]
    gguf, tensors = _dict(row.get("gguf")), _dict(row.get("safetensors"))
    stored = _stored(tensors)
    return Listing(
        name=row["id"],
        task=_text(row.get("pipeline_tag")),
        library=_text(row.get("library_name")) or ("gguf" if "gguf" in tags else ""),
        licence=_tagged(tags, "license:"),
        architecture=_text(gguf.get("architecture")) or _architecture(row),
        base=_base(tags),
        gate="manual" if row.get("gated") == "manual" else "auto" if row.get("gated") else "",
        private=row.get("private") is True,
        downloads=count(row.get("downloads")),
        likes=count(row.get("likes")),
        created=_day(row.get("createdAt")),
        updated=_day(row.get("lastModified")),
        parameters=_parameters(gguf, tensors, stored),
        stored=stored,
        context_length=count(gguf.get("context_length")) or None,
        quants=quants(file_names(row)),
    )


def file_names(row: Mapping[str, Any]) -> dict[str, int | None]:
    """The files of a repository and their bytes, where these are said."""
    siblings = [s for s in _list(row.get("siblings"))[:FILES_LIMIT] if isinstance(s, dict)]
    return {name: count(s.get("size")) for s in siblings if (name := _text(s.get("rfilename"), 1_000))}


def count(value: Any) -> int | None:
    """A number of things; None for what cannot be one.

    >>> count(3), count(-1), count("3"), count(True), count(2**64)
    (3, None, None, None, None)
    """
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value if whole and 0 <= value < COUNT_LIMIT else None


def _stored(tensors: Mapping[str, Any]) -> tuple[tuple[str, int], ...]:
    rows = ((_text(dtype), count(n)) for dtype, n in _dict(tensors.get("parameters")).items())
    return tuple((dtype, n) for dtype, n in rows if n)


def _parameters(gguf: Mapping[str, Any], tensors: Mapping[str, Any], stored: tuple[tuple[str, int], ...]) -> int | None:
    """Weights of the model. A packed format counts fewer elements than it holds weights: then it is not known."""
    if total := count(gguf.get("total")):
        return total
    largest = max(stored, key=lambda pair: pair[1], default=("", 0))
    if any(dtype in PACKED and 4 * n > largest[1] for dtype, n in stored):
        return None
    return count(tensors.get("total")) or sum(n for _, n in stored) or None


def _architecture(row: Mapping[str, Any]) -> str:
    return _text(_dict(row.get("config")).get("model_type"))


def _base(tags: list[str]) -> str:
    """The repository this one was made of, by its tags; adapters and merges have other weights."""
    for kind in ("quantized", "finetune"):
        name = _tagged(tags, f"base_model:{kind}:")
        if NAME.fullmatch(name):
            return name
    return ""


def _tagged(tags: list[str], prefix: str) -> str:
    return next((tag.removeprefix(prefix)[:200] for tag in tags if tag.startswith(prefix)), "")


def _text(value: Any, longest: int = 200) -> str:
    return value if isinstance(value, str) and len(value) <= longest else ""


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _day(value: Any) -> date | None:
    try:
        return date.fromisoformat(_text(value)[:10])
    except ValueError:
        return None
