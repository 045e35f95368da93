"""The Hub over real HTTP: what is asked, what is made of the answers, and what is said of every way it can fail."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
from pydantic import SecretStr

from multimodel import hub
from multimodel.errors import BrokenFile, DownloadFailed, GatedModel, LoadError, ModelNotFound
from multimodel.hub import Query, faults, wire
from multimodel.hub.listing import listing
from multimodel.settings import ApiSettings, ModelSettings, Settings

from .hub import COMMIT, FakeHub, Repo, running
from .support import DATA, needs_data

GEMMA = DATA / "hub_fixtures" / "ggml-org--gemma-3-1b-it-GGUF.json"
LLAMA = {
    "author": "meta-llama",
    "pipeline_tag": "text-generation",
    "library_name": "transformers",
    "tags": ["transformers", "safetensors", "license:llama3.2", "base_model:finetune:meta-llama/Llama-3.2-1B"],
    "downloads": 5000,
    "likes": 7,
    "gated": "manual",
    "private": False,
    "createdAt": "2024-09-18T15:03:14.000Z",
    "lastModified": "2024-10-24T15:07:51.000Z",
    "safetensors": {"parameters": {"BF16": 1_235_814_400}, "total": 1_235_814_400},
}


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with running() as served:
        yield served
    huggingface_hub.close_session()


@pytest.fixture
def settings(tmp_path: Path, fake: FakeHub) -> Settings:
    return asking(fake.url, tmp_path)


def asking(url: str, cache: Path, **more: Any) -> Settings:
    return Settings(models=ModelSettings(cache_dir=cache / "cache", hub_url=url, **{"offline": False, **more}))


def with_token(settings: Settings) -> Settings:
    return settings.model_copy(update={"api": ApiSettings(hf_token=SecretStr("hf_secret"))})


# searching


def test_a_result_has_the_facts_a_verdict_needs(fake: FakeHub, settings: Settings) -> None:
    fake.repos["meta-llama/Llama-3.2-1B-Instruct"] = Repo({"config.json": b"{}"}, facts=LLAMA)
    (row,) = hub.search(Query(text="llama"), settings).rows
    assert (row.name, row.author, row.task) == ("meta-llama/Llama-3.2-1B-Instruct", "meta-llama", "text-generation")
    assert (row.library, row.licence, row.base) == ("transformers", "llama3.2", "meta-llama/Llama-3.2-1B")
    assert (row.downloads, row.likes, row.gate, row.private) == (5000, 7, "manual", False)
    assert (row.created, row.updated) == (date(2024, 9, 18), date(2024, 10, 24))
    assert (row.parameters, row.stored_bytes) == (1_235_814_400, 2_471_628_800)
    assert len(fake.requests) == 1


@needs_data("hub_fixtures")
def test_a_real_answer_about_gguf_files() -> None:
    row = listing(json.loads(GEMMA.read_text()))
    assert row
    assert (row.architecture, row.context_length, row.parameters) == ("gemma3", 32768, 999_885_952)
    assert (row.licence, row.base, row.downloads) == ("gemma", "google/gemma-3-1b-it", 186_325)
    assert [quant.label for quant in row.quants] == ["Q4_K_M", "Q8_0", "F16"]


def test_what_is_asked_for_is_what_the_hub_understands(fake: FakeHub, settings: Settings) -> None:
    query = Query(
        text=" smol ", task="text-generation", library="gguf", author="o", licence="mit", smallest=0.5, largest=9
    )
    hub.search(query, settings, limit=10)
    (asked,) = fake.queries
    facts = asked.pop("expand")
    assert asked == {
        "search": ["smol"],
        "author": ["o"],
        "pipeline_tag": ["text-generation"],
        "filter": ["gguf", "license:mit"],
        "num_parameters": ["min:0.5B,max:9B"],
        "sort": ["trendingScore"],
        "limit": ["10"],
    }
    assert {"gguf", "safetensors", "siblings", "tags", "gated"} <= set(facts)
    hub.search(Query(gated=False, sort="updated"), settings)
    assert (fake.queries[-1]["gated"], fake.queries[-1]["sort"]) == (["false"], ["lastModified"])


def test_pages_follow_one_another_by_the_link_header(fake: FakeHub, settings: Settings) -> None:
    fake.repos |= {f"o/m{i:03}": Repo({}) for i in range(70)}
    names, cursor, pages = [], "", 0
    while pages == 0 or cursor:
        page = hub.search(Query(), settings, cursor)
        names += [row.name for row in page.rows]
        cursor, pages = page.cursor, pages + 1
    assert names == sorted(fake.repos)
    assert pages == len(fake.requests) == 3


def test_a_link_to_another_address_is_not_followed(fake: FakeHub, settings: Settings) -> None:
    fake.url = "http://evil.example"  # only what the Link header says
    fake.repos |= {f"o/m{i}": Repo({}) for i in range(3)}
    cursor = hub.search(Query(), settings, limit=2).cursor
    assert cursor == "2"
    assert [row.name for row in hub.search(Query(), settings, cursor, limit=2).rows] == ["o/m2"]


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"id": 3},
        {"id": "gpt2"},
        {"id": "../../etc/passwd"},
        {"id": "o/r/x"},
        {"id": "o/<img src=x>"},
        {"id": "o/" + "r" * 200},
        {"id": "o/a--b"},
        "o/r",
        None,
    ],
)
def test_what_is_no_repository_name_is_no_result(row: Any) -> None:
    assert listing(row) is None


def test_facts_of_the_wrong_kind_are_left_out() -> None:
    nonsense: dict[str, Any] = {key: [["x"]] for key in LLAMA}
    nonsense |= {"gguf": "x", "siblings": [3, {"rfilename": 4}, {"rfilename": "m-Q4_0.gguf", "size": 2**70}]}
    nonsense |= {"downloads": -1, "likes": 2**64, "tags": [1, "license:mit"], "createdAt": "yesterday"}
    row = listing({"id": "o/r", **nonsense, "safetensors": {"total": "many", "parameters": {"F16": 1e99, "X": 3}}})
    assert row and (row.task, row.licence, row.parameters, row.stored_bytes) == ("", "mit", 3, None)
    assert (row.downloads, row.likes, row.created, row.context_length) == (None, None, None, None)
    assert [(q.label, q.size) for q in row.quants] == [("Q4_0", None)]


def test_packed_weights_are_not_counted_as_parameters() -> None:
    packed = {"parameters": {"I32": 900_000_000, "F16": 120_000_000}, "total": 1_020_000_000}
    row = listing({"id": "o/awq", "safetensors": packed})
    assert row and row.parameters is None and row.stored_bytes == 3_840_000_000


# one repository


def test_the_page_of_a_model(fake: FakeHub, settings: Settings) -> None:
    config = {"model_type": "llama", "num_hidden_layers": 2}
    files = {
        "README.md": b"---\nlicense: mit\nbase: '---'\n---\n# Tiny\n\n---\nBelow",
        "config.json": json.dumps(config).encode(),
        "m-Q8_0-00001-of-00002.gguf": b"x" * 30,
        "m-Q8_0-00002-of-00002.gguf": b"x" * 12,
        "q4/m-Q4_K_M.gguf": b"x" * 20,
        "m-F16-00001-of-00003.gguf": b"x" * 50,
        "mmproj-F16.gguf": b"x",
    }
    fake.repos["o/r"] = Repo(files, facts=LLAMA)
    found = hub.model("o/r", settings)
    assert len(fake.requests) == 1
    assert found.repository.commit == COMMIT
    assert {file.name: file.size for file in found.repository.files} == {n: len(c) for n, c in files.items()}
    assert [(q.label, q.size, q.whole) for q in found.quants] == [
        ("Q4_K_M", 20, True),
        ("Q8_0", 42, True),
        ("F16", 50, False),
    ]
    assert found.quants[1].files == ("m-Q8_0-00001-of-00002.gguf", "m-Q8_0-00002-of-00002.gguf")
    assert hub.card(found.repository, settings) == "# Tiny\n\n---\nBelow"
    assert hub.config(found.repository, settings) == config
    assert hub.access(found.repository, settings) is None


def test_a_page_without_card_and_configuration(fake: FakeHub, settings: Settings) -> None:
    fake.repos["o/r"] = Repo({"m-Q8_0.gguf": b"x"})
    repository = hub.model("o/r", settings).repository
    assert (hub.card(repository, settings), hub.config(repository, settings)) == ("", {})
    assert len(fake.requests) == 1


def test_a_configuration_that_is_none(fake: FakeHub, settings: Settings) -> None:
    fake.repos |= {"o/r": Repo({"config.json": b"[" * 50_000}), "o/l": Repo({"config.json": b"[1]"})}
    with pytest.raises(BrokenFile, match=r"config\.json of o/r"):
        hub.config(hub.model("o/r", settings).repository, settings)
    assert hub.config(hub.model("o/l", settings).repository, settings) == {}


def test_five_thousand_files_with_names_of_all_kinds(fake: FakeHub, settings: Settings) -> None:
    hostile = ["../../m-Q4_0.gguf", "/etc/m-Q5_0.gguf", "a\\..\\m-Q6_K.gguf", "nul\0-Q2_K.gguf"]
    fake.repos["o/r"] = Repo({n: b"x" for n in [*hostile, "模型-Q8_0.gguf", *(f"f{i}.txt" for i in range(5000))]})
    found = hub.model("o/r", settings)
    assert [q.files for q in found.quants] == [("模型-Q8_0.gguf",)]
    assert len(found.repository.files) == 5001


@pytest.mark.parametrize("name", ["../x", "o/r/x", "o/..", "o/a--b", "o/" + "x" * 200, ""])
def test_no_repository_name_is_said_without_asking(fake: FakeHub, settings: Settings, name: str) -> None:
    with pytest.raises(ModelNotFound) as caught:
        hub.model(name, settings)
    assert "OWNER/REPO" in caught.value.hint
    assert not fake.requests


# gates: three messages, each with its link


@pytest.mark.parametrize(
    ("fault", "token", "says", "link"),
    [
        ("gated", False, "no access token is set", "/settings/tokens"),
        ("gated", True, "licence of o/r is not accepted", "/o/r"),
        ("rejected", True, "Access to o/r is denied", "/o/r"),
    ],
)
def test_a_closed_gate(fake: FakeHub, settings: Settings, fault: str, token: bool, says: str, link: str) -> None:
    fake.repos["o/r"] = Repo({"README.md": b"# Hi", "config.json": b"{}", "m-Q8_0.gguf": b"x" * 9}, fault, LLAMA)
    settings = with_token(settings) if token else settings
    found = hub.model("o/r", settings)
    assert found.listing.gate == "manual"
    assert hub.card(found.repository, settings) == "# Hi"
    refused = hub.access(found.repository, settings)
    assert refused and says in str(refused) and fake.url + link in refused.hint
    with pytest.raises(GatedModel, match=says):
        hub.config(found.repository, settings)


def test_an_open_gate(fake: FakeHub, settings: Settings) -> None:
    fake.repos["o/r"] = Repo({"m-Q8_0.gguf": b"x" * 9}, facts=LLAMA)
    assert hub.access(hub.model("o/r", settings).repository, settings) is None


def test_a_missing_repository(fake: FakeHub, settings: Settings) -> None:
    with pytest.raises(ModelNotFound, match="no model o/none") as caught:
        hub.model("o/none", settings)
    assert "HUGGINGFACE_API_TOKEN" in caught.value.hint


# everything else that can go wrong


@pytest.mark.parametrize(
    ("fault", "kind", "says", "hint"),
    [
        ("bad token", GatedModel, "does not accept the access token", "/settings/tokens"),
        ("forbidden", GatedModel, "This token may not do that", "/settings/tokens"),
        ("rejected request", DownloadFailed, "Invalid sort", "HF_ENDPOINT"),
        ("limited", DownloadFailed, "too many requests", "Wait a minute"),
        ("limited for 55 s", DownloadFailed, "too many requests", "Wait 55 s"),
        ("limited until later", DownloadFailed, "too many requests", "Wait 7 s"),
        ("broken", DownloadFailed, "could not search: Internal error", "Try again"),
        ("overloaded", DownloadFailed, "could not search: Service Unavailable", "Try again"),
        ("sign-in page", DownloadFailed, "answers with a web page", "in a browser"),
        ("html called json", DownloadFailed, "answers with a web page", "in a browser"),
        ("garbage", DownloadFailed, "something unreadable", "HF_ENDPOINT"),
        ("deep", DownloadFailed, "something unreadable", "HF_ENDPOINT"),
        ("no list", DownloadFailed, "something else", "HF_ENDPOINT"),
        ("huge", DownloadFailed, "larger than 16 MB", "Narrow the search"),
        ("cut short", DownloadFailed, "broke off", "connection"),
        ("loop", DownloadFailed, "circle of redirects", "HF_ENDPOINT"),
        ("silent", DownloadFailed, "did not answer within", "connection"),
    ],
)
def test_every_failure_is_a_sentence_and_what_to_do(
    fake: FakeHub,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    kind: type[LoadError],
    says: str,
    hint: str,
) -> None:
    monkeypatch.setattr(wire, "TIMEOUT", 0.3 if fault == "silent" else 30.0)
    fake.index_fault = fault
    with pytest.raises(kind) as caught:
        hub.search(Query(text="x"), settings)
    assert says in str(caught.value)
    assert hint in caught.value.hint
    assert "Traceback" not in str(caught.value) and len(str(caught.value)) < 200


def test_a_refused_token_is_advice_only_where_one_is_set(fake: FakeHub, settings: Settings) -> None:
    fake.index_fault = "limited"
    with pytest.raises(DownloadFailed) as without:
        hub.search(Query(), settings)
    with pytest.raises(DownloadFailed) as with_one:
        hub.search(Query(), with_token(settings))
    assert "HUGGINGFACE_API_TOKEN" in without.value.hint
    assert "HUGGINGFACE_API_TOKEN" not in with_one.value.hint


def test_an_answer_that_drips_has_an_end(fake: FakeHub, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "DEADLINE", -1.0)
    with pytest.raises(DownloadFailed, match="did not answer within"):
        hub.search(Query(), settings)


def test_no_hub_at_all(fake: FakeHub, tmp_path: Path) -> None:
    with pytest.raises(DownloadFailed, match="cannot be reached") as caught:
        hub.search(Query(), asking("http://127.0.0.1:9", tmp_path))
    assert "http://127.0.0.1:9" in caught.value.hint


def test_switched_off_nothing_is_asked(fake: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DownloadFailed, match="switched off"):
        hub.search(Query(), asking(fake.url, tmp_path, offline=True))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DownloadFailed, match="switched off") as caught:
        hub.search(Query(), asking(fake.url, tmp_path))
    assert "HF_HUB_OFFLINE" in caught.value.hint
    assert not fake.requests


def test_both_headers_of_a_refusal_name_the_wait() -> None:
    assert faults.wait({"ratelimit": '"api";r=0;t=55', "retry-after": "3"}) == 55
    assert faults.wait({"ratelimit": "nonsense", "retry-after": "3"}) == 3
    assert faults.wait({}) is None
