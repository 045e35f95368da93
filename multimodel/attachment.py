"""What a person sends along with a prompt: the text of files, and pictures; and what a model is given of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Literal

from .errors import BadRequest
from .types import Image, whole

Kind = Literal["text", "pdf", "table", "image"]

MOST = 8  # files of a prompt
LARGEST = 20_000_000  # bytes of a file
LONGEST = 400_000  # characters of a file that are kept
ALTOGETHER = 1_000_000  # characters of the files of a prompt
PICTURE = 4_000_000  # bytes of a picture as it is kept
NAME = 120  # characters of a name


@dataclass(frozen=True)
class Attachment:
    """A file as it goes with a prompt. Of a picture there is an image, of everything else a text."""

    name: str
    kind: Kind
    size: int  # bytes of the file as it came
    detail: str = ""  # how much there is in it: "3 pages"
    notes: tuple[str, ...] = ()  # what was left out, or had to be guessed
    text: str = ""
    image: Image | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", plain_name(self.name))
        object.__setattr__(self, "text", whole(self.text))

    @cached_property
    def body(self) -> bytes:
        """What is kept of it."""
        return self.image.data if self.image else self.text.encode()

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the body, in hexadecimal: the same content is kept once."""
        return sha256(self.body).hexdigest()

    @property
    def tokens(self) -> int:
        """About how many tokens its text takes: four bytes each, as English does; of a picture only a service knows."""
        return -(-len(self.body) // 4) if not self.image else 0


def plain_name(name: str) -> str:
    """A file's name in one line, without a path.

    >>> plain_name("../../etc/pass\\nwd"), plain_name("C:\\\\x\\\\a.txt"), plain_name("")
    ('pass wd', 'a.txt', 'file')
    """
    last = whole(name).replace("\\", "/").rstrip("/").rpartition("/")[2]
    line = "".join(letter if letter.isprintable() else " " for letter in last).strip()
    if len(line) > NAME:
        line = f"{line[: NAME - 21]}…{line[-20:]}"
    return line or "file"


def check(files: Sequence[Attachment]) -> None:
    """Whether so much can go with one prompt. Raises BadRequest."""
    if len(files) > MOST:
        raise BadRequest(f"Up to {MOST} files go with a prompt.", hint="Remove one, or send them one after another.")
    if sum(len(file.text) for file in files) > ALTOGETHER:
        hint = "Remove one, or send them one after another."
        raise BadRequest(f"The files hold more than {ALTOGETHER:,} characters together.", hint=hint)


def given(prompt: str, files: Sequence[Attachment]) -> str:
    """The text of a message: each file in a fence that nothing in it can end, then the prompt.

    >>> print(given("What is it?", [Attachment("a.txt", "text", 2, text="hi")]))
    The file "a.txt":
    ```
    hi
    ```
    <BLANKLINE>
    What is it?
    """
    return "\n\n".join([*(_fenced(file) for file in files if not file.image), prompt])


def _fenced(file: Attachment) -> str:
    longest = max(map(len, re.findall("`{3,}", file.text)), default=2)
    fence = "`" * (longest + 1)
    name, left_out = file.name.replace('"', "'"), "".join(f" {note}" for note in file.notes)
    return f'The file "{name}":{left_out}\n{fence}\n{file.text.rstrip()}\n{fence}'
