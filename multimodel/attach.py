"""A file that a person attaches, read by a process of its own: what damaged or hostile files do happens there.

The process has little memory and little time, and does nothing else; `attach_child` is what runs in it.
"""

from __future__ import annotations

import json
import subprocess
from base64 import b64decode
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any

from .attachment import LARGEST, Attachment, plain_name
from .errors import FileRefused, by_name
from .types import Image
from .workers.process import spawn

CHILD = "multimodel.attach_child"
SECONDS = 30.0  # that reading may take in all
AT_ONCE = 2  # files that are read at the same time, of all visitors
_PLACES = BoundedSemaphore(AT_ONCE)


def read(path: Path, name: str) -> Attachment:
    """The file as it can go with a prompt. Raises FileRefused, which says why it cannot, and what to do."""
    name, size = plain_name(name), path.stat().st_size
    if size > LARGEST:
        hint = f"Attach a part of it, or a file of at most {LARGEST // 1_000_000} MB."
        raise FileRefused(f"{name} has {size / 1e6:,.0f} MB.", hint=hint)
    with _PLACES:
        said = _ask(path, name)
    if "error" in said:
        raise by_name(said["error"])(said["message"], hint=said["hint"])
    image = Image(said["media_type"], b64decode(said["data"])) if said["media_type"] else None
    return Attachment(name, said["kind"], size, said["detail"], tuple(said["notes"]), said["text"], image)


def _ask(path: Path, name: str) -> dict[str, Any]:
    """What the process says of a file; it is over when this returns."""
    hint = "It may be damaged. Save it again, or attach a part of it."
    with spawn(CHILD, str(path), name, threads=1) as process:
        try:
            output, _ = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise FileRefused(f"{name} takes longer than {SECONDS:g} s to read.", hint=hint) from None
    try:
        said: dict[str, Any] = json.loads(output)
    except ValueError:  # the system has ended it
        raise FileRefused(f"{name} takes more time or memory to read than a file may.", hint=hint) from None
    return said
