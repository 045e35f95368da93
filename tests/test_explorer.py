"""The Explorer without a browser: what the page asks and gets, over a Hub on loopback; and once with a browser."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from multimodel.engine import Engine
from multimodel.errors import MultimodelError
from multimodel.memory import target_of
from multimodel.settings import ModelSettings, Settings
from multimodel.sheet import Offer, sheet
from multimodel.verdict import request_for
from tabs.explorer import Explorer, query_of

from .hub import FakeHub, Repo
from .support import eventually

EVIL = "<img src=x onerror=alert(1)>"
FACTS: dict[str, Any] = {
    "pipeline_tag": "text-generation",
    "tags": ["gguf", "license:mit", "base_model:quantized:Qwen/Qwen3-8B"],
    "downloads": 12_345,
    "likes": 67,
    "gguf": {"total": 8_190_735_360, "architecture": "qwen3", "context_length": 40_960},
}
SIZES = {"m-Q4_K_M.gguf": 5_027_783_488, "m-Q8_0.gguf": 8_709_518_624}


def eight(**facts: Any) -> Repo:
    """A repository with two quantisations of a known model, larger by what it lists than it is."""
    card = f"# Hi\n{EVIL}\n\n```\n<b>code</b>\n```".encode()
    files = {"m-Q4_K_M.gguf": b"x" * 100, "m-Q8_0.gguf": b"y" * 100, "README.md": card}
    return Repo(files, facts={**FACTS, **facts}, sizes=SIZES)


@pytest.fixture
def hub(hub: FakeHub) -> FakeHub:
    hub.repos["o/eight-GGUF"] = eight()
    return hub


@pytest.fixture
def explorer(hub: FakeHub, tmp_path: Path) -> Iterator[Explorer]:
    models = ModelSettings(cache_dir=tmp_path / "cache", hub_url=hub.url, offline=False)
    with Engine(Settings(models=models)) as engine:
        yield Explorer(engine)


def text(html: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


# results


def test_a_page_of_results_is_one_request_with_a_verdict_a_row(hub: FakeHub, explorer: Explorer) -> None:
    answer = explorer.browse({"machine": "GeForce RTX 4090"})
    assert answer["count"] == 1 and not answer["note"]
    assert "Fits Q8_0" in text(answer["rows"]) and "12k" in text(answer["rows"])
    assert len(hub.requests) == 1


def test_only_what_fits_is_shown_where_that_is_asked(explorer: Explorer) -> None:
    asked = {"machine": "PC, 4 GB of memory"}
    assert explorer.browse(asked)["count"] == 1
    assert explorer.browse({**asked, "fits": True}) | {"place": ""} == {
        "rows": "", "count": 0, "cursor": "", "note": "", "place": "",
    }  # fmt: skip


def test_best_rated_first_asks_nobody(hub: FakeHub, explorer: Explorer) -> None:
    answer = explorer.browse({"sort": "arena"})
    scores = [int(score) for score in re.findall(r"Arena (\d+)", text(answer["rows"]))]
    assert scores == sorted(scores, reverse=True) and len(scores) == 30
    following = explorer.browse({"sort": "arena", "cursor": answer["cursor"]})
    assert following["count"] == 30 and following["rows"] != answer["rows"]
    assert not hub.requests


@pytest.mark.parametrize("fault", ["limited for 55 s", "broken", "sign-in page", "cut short"])
def test_without_the_hub_the_catalogue_is_shown_with_the_reason(hub: FakeHub, explorer: Explorer, fault: str) -> None:
    hub.index_fault = fault
    answer = explorer.browse({"text": "gemma-3"})
    assert "Try again" in answer["note"] and "catalogue" in answer["note"]
    assert answer["count"] == 5
    page = explorer.model({"name": "google/gemma-3-12b-it"})
    assert "shipped catalogue of 22 November 2026" in text(page["html"])


def test_what_the_page_sends_of_the_wrong_kind_is_left_out() -> None:
    query = query_of({"text": ["x"], "task": "<b>", "library": 3, "smallest": "many", "largest": "9", "sort": "rm -rf"})
    assert (query.task, query.library, query.smallest, query.largest, query.sort) == ("", "", None, 9.0, "trending")


# one model


def test_the_page_of_a_model(explorer: Explorer) -> None:
    page = explorer.model({"name": "o/eight-GGUF", "machine": "GeForce RTX 3060"})
    assert page["label"] == "Q4_K_M"
    shown = text(page["html"])
    assert "5.0 GB" in shown and "8.7 GB" in shown and "recommended" in shown and "Layers 36" in shown


def test_an_encoder_is_for_fine_tuning_and_all_else_for_chatting(hub: FakeHub, explorer: Explorer) -> None:
    files = {"model.safetensors": b"x", "config.json": b'{"model_type": "distilbert", "dim": 768, "n_layers": 6}'}
    facts = {"library_name": "transformers", "safetensors": {"parameters": {"F32": 66_362_880}, "total": 66_362_880}}
    hub.repos["o/encoder"] = Repo(files, facts=facts)
    encoder, other = (explorer.model({"name": name})["html"] for name in ("o/encoder", "o/eight-GGUF"))
    assert "Fine-tune it" in encoder and "Chat with it" not in encoder
    assert "Chat with it" in other and "Fine-tune it" not in other


def test_a_card_runs_nothing_and_loads_nothing(explorer: Explorer) -> None:
    html = explorer.card({"name": "o/eight-GGUF"})["html"]
    assert "<img" not in html and "onerror" not in html
    assert "&lt;b&gt;code" in html


def test_the_plan_follows_the_knobs(explorer: Explorer) -> None:
    asked = {"name": "o/eight-GGUF", "label": "Q4_K_M", "machine": "GeForce RTX 3060"}
    short, long = (explorer.plan({**asked, "context": context}) for context in (4096, 40_960))
    packed = explorer.plan({**asked, "context": 40_960, "kv_type": "q8_0"})
    assert "Fits" in text(short["answer"]) and "formula" in text(short["html"])
    totals = [float(answer["totals"]["Q4_K_M"].split()[0]) for answer in (short, packed, long)]
    assert totals == sorted(totals) and totals[0] < totals[2]


def test_what_a_load_has_taught_is_in_every_number(explorer: Explorer) -> None:
    asked = {"name": "o/eight-GGUF", "label": "Q4_K_M", "context": 4096}
    before = explorer.plan(asked)
    place = target_of(explorer.engine.device())
    plan = explorer.engine.estimator.plan(offer_of(explorer, "Q4_K_M").subject, request_for(place), exact=False)
    loaded = replace(plan, model="gguf:o/eight-GGUF:Q4_K_M")
    explorer.engine.estimator.loaded(loaded, loaded.total + 700_000_000)
    after = explorer.plan(asked)
    assert "Learnt from loads here 700.0 MB assumed median of 1 load of this model" in text(after["html"])
    assert f"{after['totals']['Q4_K_M']} of" in text(after["answer"])
    assert after["totals"]["Q4_K_M"] != before["totals"]["Q4_K_M"]
    assert after["totals"]["Q8_0"] == before["totals"]["Q8_0"]


def offer_of(explorer: Explorer, label: str) -> Offer:
    found = sheet("o/eight-GGUF", explorer.settings).offer(label)
    assert found
    return found


def test_headers_that_cannot_be_read_leave_the_estimate_and_say_so(explorer: Explorer) -> None:
    answer = explorer.plan({"name": "o/eight-GGUF", "label": "Q4_K_M", "context": 4096, "exact": True})
    assert "This is an estimate" in text(answer["html"]) and "Total" in text(answer["html"])


@pytest.mark.parametrize("asked", [{}, {"name": "../x"}, {"name": "o/none"}, {"name": EVIL}])
def test_what_is_no_model_is_an_error_with_a_hint(explorer: Explorer, asked: dict[str, Any]) -> None:
    answer = explorer.model(asked)
    assert "mm-error" in answer["error"] and "<img" not in answer["error"]


def test_a_hostile_name_of_a_file_is_text(hub: FakeHub, explorer: Explorer) -> None:
    hub.repos["o/evil"] = Repo({f"{EVIL}-Q4_0.gguf": b"x", f"{EVIL}.txt": b"x"}, facts=FACTS)
    html = explorer.model({"name": "o/evil"})["html"]
    assert "<img" not in html and "&lt;img" in html


# downloads, what is here, ratings


def test_download_pause_resume_and_delete(hub: FakeHub, explorer: Explorer) -> None:
    hub.repos["o/small"] = Repo({"m-Q8_0.gguf": b"z" * 3_000_000}, facts=FACTS)
    hub.stall = threading.Event()
    id = "gguf:o/small:Q8_0"
    assert explorer.download({"act": "start", "id": id})["active"] == 1
    eventually(lambda: "of 3.0 MB" in explorer.downloads({})["html"])
    assert "Paused" in text(explorer.download({"act": "pause", "id": id})["html"])
    hub.stall.set()
    eventually(lambda: not explorer.engine.downloads._threads)
    hub.stall = None
    explorer.download({"act": "resume", "id": id})
    eventually(lambda: "Done" in text(explorer.downloads({})["html"]))
    assert "o/ small" in text(explorer.mine({})["html"])
    gone = explorer.mine({"delete": "o/small:Q8_0"})
    assert "3.0 MB freed" in text(gone["html"]) and "No model has been downloaded" in text(gone["html"])


@pytest.mark.parametrize("id", ["", "x", "gguf:/etc/passwd", "openai:gpt"])
def test_nothing_else_can_be_downloaded(explorer: Explorer, id: str) -> None:
    assert "mm-error" in explorer.download({"act": "start", "id": id})["error"]


def test_ratings_and_one_against_another(explorer: Explorer) -> None:
    assert "19 April 2026" in text(explorer.rated({})["html"])
    said = explorer.versus({"one": "gemma-3-27b-it", "other": "gpt-oss-20b"})["text"]
    assert "60 of 100" in said and "11 December 2025" in said
    assert explorer.versus({"one": "gemma-3-27b-it", "other": "nobody"})["text"] == ""
    assert "mm-error" in explorer.import_ratings({"text": "hello", "label": EVIL})["error"]


def test_only_our_own_errors_become_answers(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise MultimodelError("It broke.", hint="Do this.")

    monkeypatch.setattr("tabs.explorer.target_of", broken)
    assert "Do this." in explorer.browse({})["error"]
