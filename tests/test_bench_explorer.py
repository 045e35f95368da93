"""The benchmarks of the Explorer and of the memory estimates run, in their shortest form."""

from __future__ import annotations

from shutil import which

import huggingface_hub.constants
import pytest

from bench import explorer, memory

from .support import needs, needs_browser
from .test_bench import figures


@pytest.mark.slow
@pytest.mark.browser
@needs_browser
@needs("playwright", "llama_cpp")
@pytest.mark.skipif(which("curl") is None, reason="needs curl")
def test_explorer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    server, page, rates = explorer.measure(tiny=True, rounds=1).tables
    assert all(figure > 0 for table in (server, page) for row in table.rows for figure in [_number(row[1])])
    assert [row[0].partition(",")[0] for row in rates.rows] == [
        "curl",
        "SHA-256 of the file alone",
        "ours",
        "ours over curl",
    ]


def _number(cell: str) -> float:
    return float(cell.replace(",", "").strip("*"))


@pytest.mark.slow
@needs("llama_cpp", "torch", "transformers")
def test_memory() -> None:
    rules, unseen, shapes, written, trained, _, times = memory.measure(memory.TINY, rounds=1).tables
    ours = rules.rows[0]
    assert ours[0] == "ours, by formula" and ours[1] == "100.0 %"
    margin = rules.rows[-1]
    assert margin[0] == "ours, with the margin of a verdict" and margin[-1].startswith("0 of")
    assert len(unseen.rows) == 1 and [row[0] for row in shapes.rows] == [*memory.TINY.names, *memory.TINY.unseen]
    assert all(abs(_percent(row[2])) <= 5 for row in written.rows)
    assert all(abs(_percent(row[2])) <= 15 for row in trained.rows)
    assert all(figure > 0 for figure in figures(times))


def _percent(cell: str) -> float:
    return float(cell.removesuffix(" %"))


def test_every_format_of_a_cache_is_asked_for() -> None:
    assert len(memory.CACHES) == 3 * 2 + 6 and len(set(memory.CACHES)) == len(memory.CACHES)
    assert {c.length for c in memory.Extent().contexts} == {2048, 8192, 32768, 131072}
    assert not set(memory.FITTED) & set(memory.HELD_OUT)
