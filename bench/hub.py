"""A Hub for benchmarks: `python -m bench.hub FOLDER PORT MODELS`, on loopback, in a process of its own.

Files lie in FOLDER as OWNER/REPO/FILE and are sent by the system (sendfile), whole or in part; beside a file its hash
may lie as FILE.sha256. A search finds MODELS made-up repositories of eight quantisations each, thirty a page.
"""

from __future__ import annotations

import json
import os
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "b" * 40
QUANTS = ("Q2_K", "Q3_K_M", "Q4_K_S", "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0", "F16")
RANGE = re.compile(r"bytes=(\d+)-(\d*)")
PIECE = 16 << 20  # bytes of a call of sendfile


class Hub(BaseHTTPRequestHandler):
    """Answers as the Hub does, as far as searching and reading files go."""

    protocol_version = "HTTP/1.1"
    folder: Path
    models: int

    def log_message(self, *_: Any) -> None: ...

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        path = unquote(address.path)
        if path == "/":
            return self._json({})
        if path == "/api/models":
            return self._search(parse_qs(address.query))
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/.+", path):
            return self._json(self._about(found[1]))
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            return self._send(self.folder / found[1] / found[2])
        return self.send_error(404)

    def _search(self, query: dict[str, list[str]]) -> None:
        start, limit = int(query.get("cursor", ["0"])[0]), int(query.get("limit", ["30"])[0])
        end = min(self.models, start + limit)
        link = f'<http://{self.headers["Host"]}/api/models?cursor={end}>; rel="next"' if end < self.models else ""
        self._json([_made_up(i) for i in range(start, end)], {"Link": link} if link else {})

    def _about(self, name: str) -> dict[str, Any]:
        files = [path for path in sorted((self.folder / name).iterdir()) if path.suffix != ".sha256"]
        return {**_facts(8_000_000_000), "id": name, "sha": COMMIT, "siblings": [_sibling(path) for path in files]}

    def _json(self, value: Any, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(value).encode()
        self._head(200, {**(headers or {}), "Content-Type": "application/json", "Content-Length": str(len(body))})
        self.wfile.write(body)

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name, text)
        self.end_headers()

    def _send(self, path: Path) -> None:
        size = path.stat().st_size
        asked = RANGE.fullmatch(self.headers.get("Range", ""))
        start, end = (int(asked[1]), min(size, int(asked[2] or size - 1) + 1)) if asked else (0, size)
        said = {"Content-Range": f"bytes {start}-{end - 1}/{size}"} if asked else {}
        self._head(206 if asked else 200, {**said, "Content-Length": str(end - start), "X-Repo-Commit": COMMIT})
        self.wfile.flush()
        with path.open("rb") as file:
            while start < end:
                start += os.sendfile(self.connection.fileno(), file.fileno(), start, min(PIECE, end - start))


def _made_up(number: int) -> dict[str, Any]:
    """A row of a search."""
    billions = (1, 3, 7, 8, 14, 32, 70)[number % 7]
    files = [{"rfilename": f"model-{number}-{billions}B-{quant}.gguf"} for quant in QUANTS]
    name = f"made-up/model-{number}-{billions}B-GGUF"
    return {**_facts(billions * 10**9), "id": name, "siblings": files, "downloads": 1000 - number, "likes": number}


def _facts(parameters: int) -> dict[str, Any]:
    about = {"total": parameters, "architecture": "llama", "context_length": 131072}
    return {"gguf": about, "tags": ["gguf", "license:mit"], "pipeline_tag": "text-generation"}


def _sibling(path: Path) -> dict[str, Any]:
    size, noted = path.stat().st_size, path.with_name(f"{path.name}.sha256")
    hash = noted.read_text() if noted.exists() else "0" * 64
    return {"rfilename": path.name, "size": size, "blobId": "0" * 40, "lfs": {"sha256": hash, "size": size}}


if __name__ == "__main__":
    served = type("Served", (Hub,), {"folder": Path(sys.argv[1]), "models": int(sys.argv[3])})
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), served).serve_forever()
