"""Files of every kind become the rows that were written, or a sentence that says why not."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import zipfile
from pathlib import Path

import pytest

from multimodel.errors import DataError
from multimodel.finetune.data import dataset, guess
from multimodel.finetune.reading import paste, read
from multimodel.finetune.tables import Limits, Table

from ..support import DATA, needs_data

ROWS = [("great, really", "pos"), ('she said "no"', "neg"), ("über größe 😀", "NA"), ("007", "01")]
HEADER = ("text", "label")


def as_csv(rows: list[tuple[str, ...]], delimiter: str = ",") -> str:
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter).writerows(rows)
    return out.getvalue()


def written(tmp_path: Path, name: str, content: str | bytes, encoding: str = "utf-8") -> Path:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return path


def rows(table: Table) -> list[tuple[object, ...]]:
    return list(table.rows)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_text_tables_in_all_dialects_and_encodings(tmp_path: Path, delimiter: str, encoding: str) -> None:
    path = written(tmp_path, "data.csv", as_csv([HEADER, *ROWS], delimiter), encoding)
    table = read(path)
    assert table.columns == HEADER
    assert rows(table) == ROWS
    assert table.lines == (2, 3, 4, 5)


def test_an_old_encoding_is_read_and_said(tmp_path: Path) -> None:
    table = read(written(tmp_path, "data.csv", "text,label\ngröße,a\ncafé,b\n", "cp1252"))
    assert rows(table) == [("größe", "a"), ("café", "b")]
    assert "Windows-1252" in table.notes[0]


def test_bytes_that_mean_nothing_in_windows_are_read_too(tmp_path: Path) -> None:
    table = read(written(tmp_path, "data.csv", b"text,label\nx\x81y,a\nz,b\n"))
    assert rows(table) == [("x\x81y", "a"), ("z", "b")]


def test_tabs_with_loose_quotation_marks(tmp_path: Path) -> None:
    table = read(written(tmp_path, "sms.tsv", 'ham\t"Oh no\nspam\tWin "cash" now\nham\tok\n'))
    assert rows(table) == [("ham", '"Oh no'), ("spam", 'Win "cash" now'), ("ham", "ok")]
    assert not table.headed


def test_tabs_with_wrapped_cells(tmp_path: Path) -> None:
    table = read(written(tmp_path, "data.tsv", 'text\tlabel\n"a\tb\nc"\tx\n"say ""hi"""\ty\n'))
    assert rows(table) == [("a\tb\nc", "x"), ('say "hi"', "y")]


def test_ragged_rows_are_named_by_line(tmp_path: Path) -> None:
    table = read(written(tmp_path, "data.csv", "text,label\na,1\nb,2,3\nc\nd,4,,\n"))
    assert rows(table) == [("a", "1"), ("c", ""), ("d", "4")]
    assert any("1 row (line 3)" in note and "and was left out" in note for note in table.notes)
    assert any("1 row (line 4)" in note and "empty" in note for note in table.notes)
    twice = read(written(tmp_path, "twice.csv", "text,label\na,1\nb,2,3\nc,4,5\nd,4\n"))
    assert any("2 rows (lines 3, 4)" in note and "and were left out" in note for note in twice.notes)


def test_a_file_without_header_gets_numbered_columns(tmp_path: Path) -> None:
    table = read(written(tmp_path, "train.tsv", "a stirring film\t1\ndull from end to end\t0\n"))
    assert table.columns == ("column 1", "column 2")
    assert len(table.rows) == 2


def test_lines_that_begin_with_their_label(tmp_path: Path) -> None:
    lines = [f"__label__{'yes' if i % 2 else 'no'} some text, number {i}\n" for i in range(40)]
    table = read(written(tmp_path, "data.txt", "".join(lines)))
    assert table.columns == ("label", "text")
    assert rows(table)[1] == ("yes", "some text, number 1")


def test_pasted_rows() -> None:
    assert rows(paste("text\tlabel\ngood\tpos\nbad\tneg")) == [("good", "pos"), ("bad", "neg")]


@pytest.mark.parametrize(
    "value",
    [
        [{"text": t, "label": label} for t, label in ROWS],
        {"data": [{"text": t, "label": label} for t, label in ROWS]},
        {"text": [t for t, _ in ROWS], "label": [label for _, label in ROWS]},
    ],
    ids=["list", "wrapped", "columns"],
)
def test_json_in_its_shapes(tmp_path: Path, value: object) -> None:
    table = read(written(tmp_path, "data.json", json.dumps(value)))
    assert [row[-2:] for row in rows(table)] == ROWS


def test_json_lines_with_a_broken_one(tmp_path: Path) -> None:
    lines = "\n".join([json.dumps({"text": "a", "label": 1}), "{broken", json.dumps({"text": "b", "label": 2.0})])
    table = read(written(tmp_path, "data.jsonl", lines))
    assert rows(table) == [("a", "1"), ("b", "2")]
    assert "line 2" in table.notes[0]


def test_json_of_splits_says_the_split(tmp_path: Path) -> None:
    value = {"train": [["a", "x"], ["b", "y"]], "test": [["c", "x"]]}
    table = read(written(tmp_path, "data.json", json.dumps(value)))
    assert rows(table) == [("a", "x", "train"), ("b", "y", "train"), ("c", "x", "test")]


def test_lists_and_nulls_and_halves_of_characters(tmp_path: Path) -> None:
    table = read(written(tmp_path, "data.json", '[{"text": "a\\ud83d", "label": ["x", "y"]}, {"text": null}]'))
    assert rows(table) == [("a\ufffd", ("x", "y")), ("", "")]


def test_parquet_keeps_what_was_written(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {"text": [t for t, _ in ROWS], "label": [1, 2, None, 4], "tags": [["a"], [], ["b", "c"], None]}
    pq.write_table(pa.table(columns), tmp_path / "data.parquet")
    table = read(tmp_path / "data.parquet")
    assert table.column("text") == [t for t, _ in ROWS]
    assert table.column("label") == ["1", "2", "", "4"]
    assert table.column("tags") == [("a",), (), ("b", "c"), ""]


def test_excel_reads_the_values_of_the_first_filled_sheet(tmp_path: Path) -> None:
    import openpyxl

    book = openpyxl.Workbook()
    book.active.title = "empty"
    sheet = book.create_sheet("rows")
    for row in [HEADER, ("good", "pos"), ("bad", 1.0), ("NA", None)]:
        sheet.append(row)
    book.create_sheet("more").append(["x"])
    book.save(tmp_path / "data.xlsx")
    table = read(tmp_path / "data.xlsx")
    assert table.columns == HEADER
    assert rows(table) == [("good", "pos"), ("bad", "1"), ("NA", "")]
    assert "'rows'" in table.notes[0]


def test_a_folder_of_splits(tmp_path: Path) -> None:
    written(tmp_path, "README.txt", "about this data")
    written(tmp_path, "train.csv", "text,label\na,x\nb,y\n")
    written(tmp_path, "dev.csv", "label,text\nx,c\n")
    table = read(tmp_path)
    assert rows(table) == [("a", "x", "train"), ("b", "y", "train"), ("c", "x", "validation")]


# --- what must not be believed ---


def test_a_cell_of_many_megabytes_is_cut(tmp_path: Path) -> None:
    table = read(written(tmp_path, "data.csv", f"text,label\n{'x' * 50_000_000},a\nb,c\n"))
    assert len(str(table.rows[0][0])) == Limits().cell
    assert "cut to 100,000 characters" in table.notes[0]


def test_a_file_over_the_bound_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "data.csv", "text,label\n" + "a,b\n" * 100)
    with pytest.raises(DataError, match="MB") as caught:
        read(path, Limits(file=100))
    assert "sample" in caught.value.hint


def test_more_rows_than_the_bound_are_not_read(tmp_path: Path) -> None:
    table = read(written(tmp_path, "data.csv", "text,label\n" + "a,b\n" * 100), Limits(rows=10))
    assert len(table.rows) == 10
    assert "first 10 rows" in table.notes[-1]


def test_a_bomb_in_excel_clothes_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "data.xlsx"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("[Content_Types].xml", "<x/>")
        packed.writestr("xl/worksheets/sheet1.xml", b"\0" * 20_000_000)
    assert path.stat().st_size < 100_000
    with pytest.raises(DataError, match="unpacks to"):
        read(path, Limits(unpacked=10_000_000))


def test_a_bomb_of_parquet_is_not_unpacked(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = pa.array([f"{i}" + "x" * 1_000_000 for i in range(40)])
    pq.write_table(pa.table({"text": texts}), tmp_path / "data.parquet", compression="zstd")
    assert (tmp_path / "data.parquet").stat().st_size < 1_000_000
    with pytest.raises(DataError, match="unpacks to"):
        read(tmp_path / "data.parquet", Limits(unpacked=10_000_000))


def test_one_long_text_named_a_million_times_costs_little(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    text = pa.DictionaryArray.from_arrays(pa.array([0] * 50_000, pa.int32()), pa.array(["x" * 1_000_000]))
    pq.write_table(pa.table({"text": text}), tmp_path / "data.parquet")
    table = read(tmp_path / "data.parquet", Limits(rows=50_000))
    assert len({id(row[0]) for row in table.rows}) < 100  # not fifty thousand copies
    assert len(str(table.rows[0][0])) == Limits().cell


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("data.csv", b"", "no rows"),
        ("data.csv", b"\n\n \n", "no"),
        ("data.json", b'{"text": "cut', "not JSON"),
        ("data.json", b"[" * 100_000, "JSON|nested"),
        ("data.json", b"[]", "no list of rows"),
        ("data.jsonl", b"{a\n{b\n{c", "neither"),
        ("data.parquet", b"PAR1 and then nothing", "damaged"),
        ("data.parquet", b"plain text", "damaged"),
        ("data.xlsx", b"PK\x03\x04 cut", "damaged"),
        ("data.xls", b"\xd0\xcf\x11\xe0 old", "old kind"),
        ("data.csv.gz", gzip.compress(b"text,label", mtime=0), "packed"),
    ],
)
def test_what_is_no_table_is_refused_with_a_hint(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    with pytest.raises(DataError, match=says) as caught:
        read(written(tmp_path, name, content))
    assert caught.value.hint


def test_a_zip_that_is_no_sheet(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as packed:
        packed.writestr("data.csv", "text,label")
    with pytest.raises(DataError, match="packed"):
        read(tmp_path / "data.zip")


def test_a_path_that_is_not_there() -> None:
    with pytest.raises(DataError, match="no file"):
        read(Path("nowhere.csv"))


@needs_data("textclf")
@pytest.mark.parametrize(
    ("name", "count", "columns"),
    [
        ("sst2", 9613, ("column 1", "column 2", "split")),
        ("sms_spam/sms.tsv", 5574, ("column 1", "column 2")),
        ("ag_news/test.csv", 7600, ("column 1", "column 2", "column 3")),
        ("trec6/TREC.train.all", 5452, ("label", "text")),
        ("clinc150/data_full.json", 23_700, ("column 1", "column 2", "split")),
    ],
)
def test_real_sets_are_read_whole(name: str, count: int, columns: tuple[str, ...]) -> None:
    table = read(DATA / "textclf" / name)
    assert (len(table.rows), table.columns) == (count, columns)


def test_a_quotation_mark_that_nobody_closed() -> None:
    lines = [f"text {i},{'ab'[i % 2]}" for i in range(40)]
    lines[9] = '"' + lines[9]
    table = paste("\n".join(["text,label", *lines]), Limits())
    assert any(note.startswith("Line 11: a quotation mark is opened and not closed") for note in table.notes)
    letter = '"Dear all,\n\nthe shop is closed.\nWe are sorry.\n\nYours,\nAda",a'
    assert paste("\n".join(["text,label", letter, *lines[10:]]), Limits()).notes == ()


def test_two_columns_of_one_name() -> None:
    table = paste("text,label,label\n" + "\n".join(f"text {i},a,b" for i in range(20)), Limits())
    assert table.columns == ("text", "label", "label 3") and len(table.rows) == 20
    assert not paste("\n".join(["yes,yes", "no,yes", "no,no"] * 5), Limits()).headed


def test_a_few_words_among_numbers_are_mistakes() -> None:
    labels = [*(f"{i / 7:.3f}" for i in range(98)), "inf", "n/a"]
    table = paste("text,score\n" + "\n".join(f"text {i},{label}" for i, label in enumerate(labels)), Limits())
    found = dataset(table, guess(table))
    assert found.task == "regression" and found.labels.count("") == 2


@pytest.mark.parametrize("content", [bytes(range(256)) * 40, b"MZ" + random.Random(0).randbytes(3000)])
def test_bytes_that_are_no_text(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(DataError, match=r"^program\.exe holds no text\.$"):
        read(written(tmp_path, "program.exe", content))


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("shift_jis", "商品が届きません"),
        ("euc_jp", "とても良い買い物でした"),
        ("gb18030", "这个产品很好用，快递太慢了，不满意，我想退货"),
        ("big5", "這個產品很好用，快遞太慢了，我想退貨"),
        ("euc_kr", "배송이 너무 느려요 환불하고 싶어요"),
        ("cp1251", "Очень плохое качество"),
        ("koi8_r", "Товар пришёл вовремя"),
        ("cp1253", "Το προϊόν είναι καλό"),
        ("cp1256", "المنتج جيد جدا"),
        ("cp1252", "das café für £5 – naïve"),
    ],
)
def test_old_encodings_are_told_by_their_letters(tmp_path: Path, encoding: str, text: str) -> None:
    plain = [f"this is text {i} of a file,good" for i in range(20)]
    content = "\n".join(["text,label", *plain, f"{text},bad"]).encode(encoding)
    table = read(written(tmp_path, "old.csv", content))
    assert table.rows[-1] == (text, "bad") and "not UTF-8" in table.notes[0]
