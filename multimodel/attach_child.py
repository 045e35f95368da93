"""Reads one file for `attach`: `python -m multimodel.attach_child PATH NAME` prints what it holds as JSON.

What a file is, its first bytes say; its name is asked only where they do not.
"""

from __future__ import annotations

import csv
import io
import json
import sys
import zipfile
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .attachment import LONGEST, PICTURE, Kind
from .errors import DataError, FileRefused, MultimodelError
from .finetune.formats import sheets
from .finetune.tables import Limits, decode
from .workers.process import settle

MEMORY = 1 << 30  # bytes of address space beside what the interpreter takes
PROCESSOR = 20  # seconds
ROWS = 2_000  # of a table that are given
PAGES = 1_000
PIXELS = 50_000_000
SIDE = 2_048  # pixels: the longest side of a picture as it is kept; services make larger ones smaller themselves
TABLE = Limits(unpacked=200_000_000, rows=100_000, cell=2_000, columns=200)
PACKED = {
    b"\x1f\x8b": "packed",
    b"7z\xbc\xaf": "packed",
    b"BZh": "packed",
    b"\xfd7zXZ": "packed",
    b"(\xb5/\xfd": "packed",
    b"Rar!": "packed",
    b"\xd0\xcf\x11\xe0": "an Office file of the old kind",
}
OTHER_PICTURES = (b"BM", b"II*\0", b"MM\0*", b"\0\0\1\0", b"8BPS")
PICTURES = {b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG", b"GIF8": "GIF"}
NAMED = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".gif": "GIF",
    ".webp": "WebP",
    ".pdf": "PDF",
    ".xlsx": "Excel",
}
AS_PNG = "Save it as PNG or JPEG."


@dataclass(frozen=True, slots=True)
class Read:
    """What was found in a file."""

    kind: Kind
    detail: str
    text: str = ""
    notes: tuple[str, ...] = ()
    media_type: str = ""
    data: bytes = b""

    def frame(self) -> dict[str, Any]:
        """Its form on the way back, the text cut where it is too long for a prompt."""
        text, notes = self.text, list(self.notes)
        if len(text) > LONGEST:
            notes.append(f"Only the first {LONGEST:,} of {len(text):,} characters are given.")
        form = {"kind": self.kind, "detail": self.detail, "text": text[:LONGEST], "notes": notes}
        return form | {"media_type": self.media_type, "data": b64encode(self.data).decode()}


def main() -> None:
    """Read the file of the command line within the limits, and say what is in it or why not."""
    settle()
    _limit()
    print(json.dumps(answer(Path(sys.argv[1]), sys.argv[2])))


def answer(path: Path, name: str) -> dict[str, Any]:
    """What is in a file, or the error that says why it is not read."""
    try:
        reader = kind_of(path, name)
        return reader(path, name).frame() if callable(reader) else _refused(reader)
    except MultimodelError as error:
        return _refused(error)
    except MemoryError:
        hint = "It may be damaged. Save it again, or attach a part of it."
        return _refused(FileRefused(f"{name} takes more memory to read than a file may.", hint=hint))
    except Exception as error:  # of libraries, which raise whatever damaged files lead to
        large = type(error).__name__ == "LimitReachedError"  # of pypdf
        what = "unpacks to more than a file may" if large else f"is damaged: {type(error).__name__}"
        return _refused(FileRefused(f"{name} {what}.", hint="Save it again, or attach a part of it."))


Reader = Callable[[Path, str], Read]


def kind_of(path: Path, name: str) -> Reader | FileRefused:
    """Who reads a file, or why nobody does."""
    with path.open("rb") as file:
        start = file.read(4096)
    suffix = Path(name).suffix.lower()
    if not start:
        return FileRefused(f"{name} is empty.", hint="Attach another file.")
    if b"%PDF-" in start[:1024]:
        return pdf
    if any(start.startswith(begins) for begins in PICTURES) or (start[:4] == b"RIFF" and start[8:12] == b"WEBP"):
        return picture
    if start.startswith(OTHER_PICTURES) or start[4:8] == b"ftyp":
        return FileRefused(f"{name} is of a kind that models do not see or read.", hint=AS_PNG)
    if start.startswith(b"PK\x03\x04"):
        return _zip(path, name)
    if why := next((why for begins, why in PACKED.items() if start.startswith(begins)), ""):
        return FileRefused(f"{name} is {why}.", hint="Attach the file inside it, or save it as text, PDF or .xlsx.")
    if suffix in NAMED:
        return FileRefused(f"{name} is damaged, or no {NAMED[suffix]} file.", hint="Save it again.")
    return table if suffix in (".csv", ".tsv") else text


def text(path: Path, name: str) -> Read:
    """A file of text or code. Raises FileRefused for one that is none."""
    words, note = decode(path.read_bytes())
    strange = sum(letter < " " and letter not in "\t\n\r\f\x1b" for letter in words[:100_000])
    if strange > len(words[:100_000]) // 100:
        hint = "Attach text, code, PDF, CSV, .xlsx, or a picture as PNG, JPEG, WebP or GIF."
        raise FileRefused(f"{name} is neither text nor of another kind that can be read.", hint=hint)
    lines = words.count("\n") + 1
    code = "SVG code, " if name.lower().endswith(".svg") else ""
    return Read(
        "text", f"{code}{lines:,} line{'s' if lines > 1 else ''}", words.replace("\0", ""), (note,) if note else ()
    )


def table(path: Path, name: str) -> Read:
    """A file of rows, as it is written, up to ROWS of them."""
    found = text(path, name)
    lines = found.text.splitlines(keepends=True)
    csv.field_size_limit(LONGEST)
    reader = csv.reader(lines, delimiter="\t" if name.lower().endswith(".tsv") else _delimiter(lines))
    rows, end = 0, 0
    try:
        for _ in reader:
            rows += 1
            end = reader.line_num if rows <= ROWS else end
    except csv.Error:
        return found  # text it is
    return Read("table", f"{rows:,} rows", "".join(lines[:end]), (*found.notes, *_cut(rows)))


def _delimiter(lines: list[str]) -> str:
    head = "".join(lines[:20])
    return max(",;\t|", key=head.count)


def excel(path: Path, name: str) -> Read:
    """The sheets of a workbook as lines of tab-separated cells, up to ROWS of each."""
    found = sheets(path, name, TABLE)
    filled = {title: rows for title, rows in found.items() if rows}
    if not filled:
        raise FileRefused(f"{name} holds no rows.", hint="Attach another file.")
    parts, notes = [], []
    for title, rows in filled.items():
        parts.append(f"Sheet {title!r}:\n" + "\n".join("\t".join(map(_in_a_line, row)).rstrip() for row in rows[:ROWS]))
        notes += [f"Sheet {title!r}: {note}" for note in _cut(len(rows))]
    count = sum(map(len, filled.values()))
    detail = f"{count:,} rows" + (f" in {len(filled)} sheets" if len(filled) > 1 else "")
    return Read("table", detail, "\n\n".join(parts), tuple(notes[:10]))


def _in_a_line(cell: str) -> str:
    return " ".join(cell.split())


def _cut(rows: int) -> Iterator[str]:
    if rows > ROWS:
        of = f"{rows:,}" if rows <= TABLE.rows else f"more than {TABLE.rows:,}"
        yield f"Only the first {ROWS:,} of {of} rows are given."


def pdf(path: Path, name: str) -> Read:
    """The text of a PDF, page by page. Raises FileRefused for one that is locked or holds none."""
    from pypdf import PasswordType, PdfReader

    document = PdfReader(path)
    if document.is_encrypted and document.decrypt("") == PasswordType.NOT_DECRYPTED:
        raise FileRefused(f"{name} is locked by a password.", hint="Open it, save it without one, and attach that.")
    pages, silent, length, count = [], [], 0, len(document.pages)
    for number in range(1, min(count, PAGES) + 1):
        words = document.pages[number - 1].extract_text().strip()
        silent += [] if words else [number]
        pages += [f"[Page {number}]\n{words}"] if words else []
        length += len(words)
        if length > LONGEST:
            break
    if not pages:
        hint = "Its pages are pictures, perhaps scanned: attach them as PNG, or have the text recognised first."
        raise FileRefused(f"{name} holds no text.", hint=hint)
    notes = [f"No text on {len(silent)} of its pages (page {silent[0]} first)."] if silent else []
    notes += [f"Only the first {number} of {count} pages are given."] if number < count else []
    return Read("pdf", f"{count:,} page{'s' if count > 1 else ''}", "\n\n".join(pages), tuple(notes))


def picture(path: Path, name: str) -> Read:
    """A picture as PNG or JPEG, its longest side at most SIDE; what a camera wrote beside it is left out."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    Image.MAX_IMAGE_PIXELS = None  # of which it only warns
    try:
        with Image.open(path, formats=("PNG", "JPEG", "GIF", "WEBP")) as found:
            if found.width * found.height > PIXELS:
                raise FileRefused(
                    f"{name} has {found.width:,} x {found.height:,} pixels.", hint="Make it smaller first."
                )
            notes = ["Only its first frame is given."] if getattr(found, "is_animated", False) else []
            found.seek(0)
            upright = ImageOps.exif_transpose(found)
            lossless = found.format in ("PNG", "GIF") or "A" in upright.getbands() or "transparency" in found.info
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise FileRefused(f"{name} is damaged, or no picture.", hint=AS_PNG) from error
    if max(upright.size) > SIDE:
        upright.thumbnail((SIDE, SIDE))
        notes.append(f"Made smaller: {upright.width:,} x {upright.height:,} pixels.")
    size = f"{upright.width:,} x {upright.height:,}"
    for kind in ("PNG", "JPEG") if lossless else ("JPEG",):
        data = _written(upright, kind)
        if len(data) <= PICTURE:
            return Read("image", size, "", tuple(notes), f"image/{kind.lower()}", data)
    raise FileRefused(f"{name} stays larger than {PICTURE // 1_000_000} MB.", hint="Make it smaller first.")


def _written(image: Any, kind: str) -> bytes:
    """The bytes of a picture; where it has no place for transparency, on white."""
    file = io.BytesIO()
    if kind == "PNG":
        image = image.convert("RGBA" if "A" in image.getbands() or "transparency" in image.info else "RGB")
        image.info = {}
        image.save(file, "PNG", optimize=False)
    else:
        from PIL import Image

        clear = image.convert("RGBA")
        white = Image.new("RGBA", clear.size, "white")
        Image.alpha_composite(white, clear).convert("RGB").save(file, "JPEG", quality=90)
    return file.getvalue()


def _zip(path: Path, name: str) -> Reader | FileRefused:
    """A workbook is a packed folder, and so is much else."""
    try:
        with zipfile.ZipFile(path) as packed:
            names = packed.namelist()
    except (zipfile.BadZipFile, ValueError, OSError):
        return FileRefused(f"{name} is damaged, or an archive.", hint="Save it again, or attach what is in it.")
    if "xl/workbook.xml" in names:
        return excel
    what = "a Word document" if "word/document.xml" in names else "an archive"
    hint = "Save it as PDF or text." if what == "a Word document" else "Attach the files in it, one by one."
    return FileRefused(f"{name} is {what}.", hint=hint)


def _refused(error: MultimodelError) -> dict[str, str]:
    name = "FileRefused" if isinstance(error, DataError) else type(error).__name__
    return {"error": name, "message": str(error), "hint": error.hint}


def _limit() -> None:
    """From here on this much memory and processor time; beyond that the system ends the process."""
    if sys.platform == "win32":
        return
    import resource

    import psutil

    room = int(psutil.Process().memory_info().vms) + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (room, room))
    resource.setrlimit(resource.RLIMIT_CPU, (PROCESSOR, PROCESSOR))


if __name__ == "__main__":
    main()
