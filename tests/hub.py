"""A Hub on loopback: repositories held in memory, served as the real one serves them, with faults on demand."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlparse

from .hub_writes import Writes

COMMIT = "c" * 40
LARGE = (".gguf", ".safetensors", ".bin")


@dataclass
class Repo:
    """One repository; `fault` answers every request for a file but the card: a key of FAULTS."""

    files: dict[str, bytes]
    fault: str = ""
    facts: dict[str, Any] = field(default_factory=dict)  # of its JSON, beside names and files
    sizes: dict[str, int] = field(default_factory=dict)  # of files that are listed longer than they are


@dataclass
class FakeHub:
    """What the server holds, what it was asked, and what goes wrong."""

    repos: dict[str, Repo] = field(default_factory=dict)
    requests: list[tuple[str, str, str]] = field(default_factory=list)  # (method, path, Range)
    tokens: list[str] = field(default_factory=list)  # the Authorization headers that came
    queries: list[dict[str, list[str]]] = field(default_factory=list)  # of the searches
    cut_after: list[int] = field(default_factory=list)  # the next answers with a file end after so many bytes
    stall: threading.Event | None = None  # files stop half-way until it is set
    corrupt: bool = False  # large files arrive with one byte changed
    ranges: bool = True  # whether Range is understood
    shift: int = 0  # bytes by which the part that is sent lies behind the one that was asked for
    redirects: bool = True  # whether large files lie on another host
    stall_after: int = 0  # bytes of an answer after which it stops; 0: half of it
    claimed_size: int = 0  # what the Hub lists as the size of large files, where that is not true
    expire_after: int = 0  # answers that the address behind a redirect gives before it must be asked for again
    index_fault: str = ""  # a key of FAULTS or ODDITIES: every question about models is answered so
    fresh: int = 0  # answers left until then
    writers: dict[str, str] = field(default_factory=dict)  # token: the account that may write with it
    large: dict[str, bytes] = field(default_factory=dict)  # what was uploaded, by its SHA-256
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)  # that were asked for; none is run
    job_fault: int = 0  # the status of every answer to what would run
    hold_uploads: threading.Event | None = None  # large files are taken once it is set
    write_fault: int = 0  # the status of every answer to what would write
    url: str = ""

    def downloads(self) -> list[str]:
        """The files that were sent, in order."""
        return [path.partition("/resolve/")[2].partition("/")[2] for _, path, _ in self.requests if "/resolve/" in path]


FAULTS: dict[str, tuple[int, str, str]] = {
    "gated": (403, "GatedRepo", "Access to model is restricted and you are not in the authorized list."),
    "rejected": (403, "GatedRepo", "Your request to access model has been rejected by the repo's authors."),
    "limited": (429, "", "Too many requests"),
    "broken": (500, "", "Internal error"),
    "bad token": (401, "", "Invalid credentials in Authorization header"),
    "forbidden": (403, "", "This token may not do that"),
    "rejected request": (400, "", "Invalid sort"),
    "overloaded": (503, "", "Service Unavailable"),
}
LIMITS = {  # two forms of the header of a 429 beside the bare one
    "limited for 55 s": {"RateLimit": '"api";r=0;t=55', "RateLimit-Policy": '"fixed window";"api";q=500;w=300'},
    "limited until later": {"Retry-After": "7"},
}
ODDITIES: dict[str, tuple[str, bytes]] = {  # answers with status 200 that are no list of models
    "sign-in page": ("text/html", b"<!DOCTYPE html><html><title>Welcome to the hotel</title></html>"),
    "html called json": ("application/json", b"\n<html>"),
    "garbage": ("application/json", b'[{"id": "o/r", '),
    "no list": ("application/json", b'"hello"'),
    "deep": ("application/json", b"[" * 100_000),
    "huge": ("application/json", b'["' + b"x" * (20 << 20) + b'"]'),
}


@contextmanager
def running() -> Iterator[FakeHub]:
    """A Hub that answers at its `url` while the block runs."""
    hub = FakeHub()
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        if hub.stall:
            hub.stall.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    def handle_error(self, *args: Any) -> None:
        """Clients that leave in the middle are what some tests are about."""


class _Handler(Writes, BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub
    new_repo = Repo

    def log_message(self, *args: Any) -> None: ...

    def do_GET(self) -> None:
        address = urlparse(self.path)
        path = unquote(address.path)
        self.hub.requests.append((self.command, path, self.headers.get("Range", "")))
        self.hub.tokens.append(self.headers.get("Authorization", ""))
        if path.startswith("/api/models") and self.hub.index_fault:
            return self._odd(self.hub.index_fault)
        if path == "/api/whoami-v2":
            return self.whoami()
        if match := re.fullmatch(r"/api/jobs/[^/]+/([^/]+)", path):
            return self.job(match[1])
        if path == "/api/models":
            return self._search(parse_qs(address.query))
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            return self._about(match[1], match[2] or "main")
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            return self._resolve(match[1], match[2])
        if match := re.fullmatch(r"/cdn/([^/]+/[^/]+)/(.+)", path):
            self.hub.fresh -= 1
            if self.hub.expire_after and self.hub.fresh < 0:
                return self._refuse(403, "", "Request has expired")
            return self._content(match[1], match[2])
        return self._refuse(404, "", "no such address")

    def _search(self, query: dict[str, list[str]]) -> None:
        """By name, author, tags and task; a cursor is the number of rows before it."""
        self.hub.queries.append(query)
        found = [_row(name, repo) for name, repo in self.hub.repos.items() if _matches(name, repo, query)]
        if query.get("sort", [""])[0] in ("downloads", "likes"):
            found.sort(key=lambda row: -row.get(query["sort"][0], 0))
        start, limit = int(query.get("cursor", ["0"])[0]), int(query.get("limit", ["1000"])[0])
        more = start + limit < len(found)
        link = f'<{self.hub.url}/api/models?limit={limit}&cursor={start + limit}>; rel="next"' if more else ""
        self._json([_shown(row, query) for row in found[start : start + limit]], headers={"Link": link})

    def _odd(self, fault: str) -> None:
        """An answer as it should not be."""
        if fault in FAULTS:
            return self._refuse(*FAULTS[fault])
        if fault in LIMITS:
            return self._json({"error": "rate"}, 429, LIMITS[fault])
        if fault == "loop":
            return self._head(302, {"Location": self.path + "&again", "Content-Length": "0"})
        if fault == "silent":
            self.hub.stall = self.hub.stall or threading.Event()
            self.hub.stall.wait(30)
            self.close_connection = True
            return None
        kind, body = ODDITIES.get(fault, ("application/json", b"[1, 2, 3]"))
        longer = {"cut short": 100}.get(fault, 0)
        self._head(200, {"Content-Type": kind, "Content-Length": str(len(body) + longer)})
        self.close_connection = bool(longer)
        return self._send(body, slow=False)

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, text in headers.items():
            if text:
                self.send_header(name, text)
        self.end_headers()

    def _about(self, name: str, revision: str) -> None:
        repo = self.hub.repos.get(name)
        if repo is None:
            return self._refuse(401, "RepoNotFound", "Repository not found")
        if revision not in ("main", COMMIT):
            return self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        row = _row(name, repo) | {"sha": COMMIT}
        for sibling in row["siblings"] if self.hub.claimed_size else ():
            sibling["size"] = self.hub.claimed_size
        return self._json(row)

    def _resolve(self, name: str, file: str) -> None:
        """Small files at once; large ones lie on another host, which must not see the token."""
        if (fault := self.hub.repos[name].fault) and file != "README.md":
            return self._refuse(*FAULTS[fault])
        if not file.endswith(LARGE) or not self.hub.redirects:
            return self._content(name, file)
        self.hub.fresh = self.hub.expire_after
        elsewhere = f"{self.hub.url.replace('127.0.0.1', 'localhost')}/cdn/{name}/{file}"
        return self._head(302, {"Location": elsewhere, "X-Repo-Commit": COMMIT, "Content-Length": "0"})

    def _content(self, name: str, file: str) -> None:
        content = self.hub.repos[name].files[file]
        if self.hub.corrupt and file.endswith(LARGE):
            content = bytes([content[0] ^ 1]) + content[1:]
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")) if self.hub.ranges else None
        shift = self.hub.shift
        start, end = (shift + int(asked[1]), int(asked[2] or len(content) - 1) + 1) if asked else (0, len(content))
        end = min(end, len(content))
        said = f"bytes {start}-{end - 1}/{len(content)}" if asked else ""
        length = {"Content-Length": str(end - start), "Content-Range": said, "X-Repo-Commit": COMMIT}
        self._head(206 if asked else 200, length)
        return self._send(content[start:end], slow=file.endswith(LARGE))

    def _send(self, content: bytes, *, slow: bool) -> None:
        if slow and self.hub.cut_after:
            self.wfile.write(content[: self.hub.cut_after.pop(0)])
            self.close_connection = True
            return
        half = (self.hub.stall_after or len(content) // 2) if slow and self.hub.stall else 0
        try:
            self.wfile.write(content[:half])
            if half and half < len(content) and self.hub.stall:
                self.hub.stall.wait(30)
            self.wfile.write(content[half:])
        except OSError:  # the client has gone
            self.close_connection = True

    def _refuse(self, status: int, code: str, message: str) -> None:
        self._json({"error": message}, status, {"X-Error-Code": code, "X-Error-Message": message})

    def _json(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(value).encode()
        self._head(status, {**(headers or {}), "Content-Type": "application/json", "Content-Length": str(len(body))})
        self._send(body, slow=False)


def _row(name: str, repo: Repo) -> dict[str, Any]:
    return {"id": name, **repo.facts, "siblings": [_sibling(*file, repo.sizes) for file in repo.files.items()]}


def _shown(row: dict[str, Any], query: dict[str, list[str]]) -> dict[str, Any]:
    """What was asked for by `expand`; in a list files have names only."""
    wanted = {"id", *query.get("expand", row)}
    names = [{"rfilename": sibling["rfilename"]} for sibling in row["siblings"]]
    return {key: value for key, value in (row | {"siblings": names}).items() if key in wanted}


def _matches(name: str, repo: Repo, query: dict[str, list[str]]) -> bool:
    tags = set(repo.facts.get("tags", ()))
    text = query.get("search", [""])[0].lower()
    near = text in name.lower() or (len(query) < 4 and text[:4] in name.lower())  # the library's look for a near name
    mine = query.get("author", [name.partition("/")[0]])[0] == name.partition("/")[0]
    task = repo.facts.get("pipeline_tag", "")
    return near and mine and tags >= set(query.get("filter", ())) and query.get("pipeline_tag", [task])[0] == task


def _sibling(name: str, content: bytes, sizes: dict[str, int]) -> dict[str, Any]:
    row: dict[str, Any] = {"rfilename": name, "size": sizes.get(name, len(content))}
    row["blobId"] = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    if name.endswith(LARGE):
        row["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
    return row
