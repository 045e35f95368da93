"""Attachments as they are written down: what is known of one beside its turn, its body once, under its hash."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from ..attachment import LONGEST, PICTURE, Attachment, Kind
from ..errors import ForeignFile
from ..types import Image

BEGINS = {"image/png": b"\x89PNG\r\n\x1a\n", "image/jpeg": b"\xff\xd8\xff"}
"""How a picture begins: what is served under a name is what the name says."""


class FileForm(BaseModel):
    """An attachment without its body."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str = Field(max_length=1000)
    kind: Kind
    size: int = Field(ge=0)
    detail: str = Field("", max_length=1000)
    notes: tuple[str, ...] = Field((), max_length=20)
    media_type: Literal["image/png", "image/jpeg"] | None = None  # of a picture
    hash: str = Field(pattern="^[0-9a-f]{64}$")

    @classmethod
    def of(cls, file: Attachment) -> FileForm:
        """The form of an attachment."""
        return cls(
            name=file.name,
            kind=file.kind,
            size=file.size,
            detail=file.detail,
            notes=file.notes,
            media_type=file.image.media_type if file.image else None,
            hash=file.hash,
        )

    def attachment(self, bodies: Mapping[str, bytes]) -> Attachment:
        """The attachment. Raises ForeignFile where its body is not there, or is something else."""
        body = bodies.get(self.hash)
        if body is None or sha256(body).hexdigest() != self.hash:
            raise ForeignFile(f"What {self.name!r} held is missing.", hint="Take the file out of the list again.")
        image = Image(self.media_type, body) if self.media_type else None
        if (self.kind == "image") != (image is not None) or not _is_what_it_says(image, body):
            raise ForeignFile(f"{self.name!r} is not what it says.", hint="Take the file out of the list again.")
        text = "" if image else body.decode("utf-8", "replace")
        return Attachment(self.name, self.kind, self.size, self.detail, self.notes, text, image)


FILES: TypeAdapter[tuple[FileForm, ...]] = TypeAdapter(tuple[FileForm, ...])


def forms_of(files: Iterable[Attachment]) -> str:
    """Attachments as JSON, without their bodies."""
    return FILES.dump_json(tuple(map(FileForm.of, files)), exclude_defaults=True).decode()


def _is_what_it_says(image: Image | None, body: bytes) -> bool:
    if not image:
        return len(body) <= 4 * LONGEST
    return len(body) <= PICTURE and body.startswith(BEGINS[image.media_type])
