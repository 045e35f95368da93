"""The part of the Hub on loopback that takes files: repositories are made, large files come by LFS, then a commit."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote, urlparse


class Writes:
    """For the handler: POST and PUT, as huggingface_hub calls them when a folder is brought there."""

    hub: Any
    headers: Any
    path: str
    rfile: Any
    command: str
    new_repo: Callable[..., Any]
    _json: Callable[..., None]
    _refuse: Callable[..., None]
    _head: Callable[..., None]

    def account(self) -> str:
        """Whose token came with the request; "" for an unknown one."""
        return str(self.hub.writers.get(self.headers.get("Authorization", "").removeprefix("Bearer "), ""))

    def whoami(self) -> None:
        """GET /api/whoami-v2."""
        if not self.account():
            return self._refuse(401, "", "Invalid credentials in Authorization header")
        return self._json({"type": "user", "name": self.account(), "orgs": []})

    def do_POST(self) -> None:
        """See the class."""
        address, body = unquote(urlparse(self.path).path), self._body()
        self.hub.requests.append((self.command, address, ""))
        self.hub.tokens.append(self.headers.get("Authorization", ""))
        if self.hub.write_fault:
            return self._refuse(self.hub.write_fault, "", "It is out of order")
        if address == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if address == "/api/repos/create":
            return self._create(json.loads(body))
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", address):
            return self._preupload(json.loads(body))
        if match := re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", address):
            return self._batch(json.loads(body))
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", address):
            return self._commit(match[1], body)
        if match := re.fullmatch(r"/api/jobs/([^/]+)", address):
            return self._job(match[1], json.loads(body))
        if match := re.fullmatch(r"/api/jobs/[^/]+/(job\d+)/cancel", address):
            self.hub.jobs[match[1]]["status"]["stage"] = "CANCELED"
            return self._json({})
        return self._refuse(404, "", "no such address")

    def _job(self, owner: str, asked: dict[str, Any]) -> None:
        """POST /api/jobs/OWNER: nothing is run."""
        if self.hub.job_fault:
            return self._refuse(self.hub.job_fault, "", "Add credit first")
        if owner != self.account():
            return self._refuse(403, "", f"You may not run jobs for {owner}")
        id = f"job{len(self.hub.jobs)}"
        self.hub.jobs[id] = {
            "id": id,
            "createdAt": "2026-01-01T00:00:00.000Z",
            "dockerImage": asked.get("dockerImage"),
            "spaceId": None,
            "command": asked["command"],
            "arguments": [],
            "environment": {},
            "secrets": asked.get("secrets"),
            "flavor": asked["flavor"],
            "volumes": asked.get("volumes"),
            "timeoutSeconds": asked.get("timeoutSeconds"),
            "status": {"stage": "SCHEDULING", "message": None},
            "owner": {"id": "1", "name": owner, "type": "user"},
        }
        return self._json(self.hub.jobs[id])

    def job(self, id: str) -> None:
        """GET /api/jobs/OWNER/ID."""
        if id not in self.hub.jobs:
            return self._refuse(404, "", "no such job")
        return self._json(self.hub.jobs[id])

    def do_PUT(self) -> None:
        """A large file, at the address that the batch gave."""
        content = self._body()
        if self.hub.hold_uploads:
            self.hub.hold_uploads.wait(30)
        digest = hashlib.sha256(content).hexdigest()
        if self.path != f"/lfs/{digest}":
            return self._refuse(400, "", "another content than announced")
        self.hub.large[digest] = content
        return self._json({})

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return bytes(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def _create(self, asked: dict[str, Any]) -> None:
        owner = asked.get("organization") or self.account()
        if not self.account():
            return self._refuse(401, "", "Invalid credentials in Authorization header")
        if owner != self.account():
            return self._refuse(403, "", f"You don't have the rights to create a model under the namespace {owner}")
        name = f"{owner}/{asked['name']}"
        if name in self.hub.repos:
            known = {"error": "You already created this model repo", "url": f"{self.hub.url}/{name}"}
            return self._json(known, 409, {"X-Error-Message": known["error"]})
        self.hub.repos[name] = self.new_repo({}, facts={"private": asked.get("visibility") == "private"})
        return self._json({"url": f"{self.hub.url}/{name}", "name": name, "id": name})

    def _preupload(self, asked: dict[str, Any]) -> None:
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith((".safetensors", ".onnx")) else "regular",
                "shouldIgnore": False,
                "oid": None,
            }
            for file in asked["files"]
        ]
        return self._json({"files": files, "commitOid": "c" * 40})

    def _batch(self, asked: dict[str, Any]) -> None:
        objects = [
            {
                "oid": one["oid"],
                "size": one["size"],
                "actions": {"upload": {"href": f"{self.hub.url}/lfs/{one['oid']}"}},
            }
            for one in asked["objects"]
        ]
        return self._json({"transfer": "basic", "objects": objects})

    def _commit(self, name: str, body: bytes) -> None:
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                self.hub.repos[name].files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                self.hub.repos[name].files[value["path"]] = self.hub.large[value["oid"]]
        url = f"{self.hub.url}/{name}/commit/{'c' * 40}"
        return self._json({"success": True, "commitUrl": url, "commitOid": "c" * 40, "hookOutput": ""})
