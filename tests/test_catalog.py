"""What the picker shows: what is here, what could be, and why something cannot be picked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from multimodel import registry
from multimodel.catalog import MINUTE, SUGGESTED, Entry, catalog, discover, nearest
from multimodel.locate import locate
from multimodel.registry import BACKENDS
from multimodel.settings import ApiSettings, Endpoint, ModelSettings, Settings
from multimodel.types import ModelId, ModelSpec

from .faults import MODELS, FaultServer
from .support import needs


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer() as running:
        yield running


def at(cache: Path) -> Settings:
    return Settings(models=ModelSettings(cache_dir=cache, offline=True))


def with_endpoints(*endpoints: Endpoint, **environment: str) -> Settings:
    return Settings(
        api=ApiSettings(endpoints=endpoints),
        environment={name: SecretStr(value) for name, value in environment.items()},
    )


def of(entries: tuple[Entry, ...], prefix: str) -> list[Entry]:
    return [entry for entry in entries if entry.id.startswith(prefix)]


def cached(cache: Path, repository: str, *files: str) -> None:
    """A repository in the cache; its files hold nothing but their names."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / "abc"
    for file in files:
        (snapshot / file).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / file).write_text("{}")
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / "main").write_text("abc")


WHOLE = ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors")


def test_each_local_group_begins_with_the_built_in_model() -> None:
    entries = catalog(Settings())
    for backend in ("transformers", "gguf"):
        assert of(entries, f"{backend}:")[0].id == f"{backend}:guide"
        assert len(of(entries, f"{backend}:")) == 1 + len(SUGGESTED[backend])


def test_every_id_can_be_read_and_is_there_once() -> None:
    entries = [entry for entry in catalog(Settings()) if entry.id[-1] != ":"]
    assert [str(ModelId.parse(entry.id)) for entry in entries] == [entry.id for entry in entries]
    assert len({entry.id for entry in entries}) == len(entries)


def test_the_echo_is_not_offered() -> None:
    assert not of(catalog(Settings()), "echo")


def test_a_download_says_its_size() -> None:
    for backend in ("transformers", "gguf"):
        assert all("GB" in detail for _, detail in SUGGESTED[backend])


def test_models_on_the_disk_are_offered_once_and_found_again(tmp_path: Path) -> None:
    known = SUGGESTED["gguf"][0][0].partition(":")[0]
    cached(tmp_path, "o/whole", *WHOLE)
    cached(tmp_path, "o/half", "config.json")
    cached(tmp_path, "o/quants", "m-Q8_0.gguf", "sub/m-Q4_K_M.gguf", "mmproj-F16.gguf")
    cached(tmp_path, "o/parts", "m-F16-00001-of-00002.gguf", "m-F16-00002-of-00002.gguf")
    cached(tmp_path, "o/twins", "a-Q8_0.gguf", "b-Q8_0.gguf")
    cached(tmp_path, known, "SmolLM2-135M-Instruct-Q4_K_M.gguf")
    (tmp_path / "loose.gguf").write_text("")
    (tmp_path / "loose.gguf.incomplete").write_text("")
    entries = catalog(at(tmp_path))
    here = [entry.id for entry in entries if entry.detail == "on this machine"]
    assert here == [
        "transformers:o/whole",
        f"gguf:{known}:Q4_K_M",
        "gguf:o/parts:F16",
        "gguf:o/quants:Q8_0",
        "gguf:o/quants:Q4_K_M",
        "gguf:o/twins:a-Q8_0.gguf",
        "gguf:o/twins:b-Q8_0.gguf",
        f"gguf:{tmp_path.resolve() / 'loose.gguf'}",
    ]
    assert len(of(entries, f"gguf:{known}:Q4_K_M")) == 1
    for id in here:
        with pytest.raises(StopIteration):  # found on the disk, without a stage of downloading
            next(locate(ModelSpec(ModelId.parse(id)), at(tmp_path)))


def test_a_missing_package_is_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "find_spec", lambda name: None if name == "llama_cpp" else True)
    entries = catalog(Settings())
    assert {entry.unavailable for entry in of(entries, "gguf:")} == {"needs the package llama-cpp-python"}
    assert {entry.unavailable for entry in of(entries, "transformers:")} == {""}


@pytest.mark.parametrize(
    ("backend", "reason", "api"),
    [
        ("openai", "needs OPENAI_API_KEY", ApiSettings(openai_key=SecretStr("sk-x"))),
        ("hf-inference", "needs HF_TOKEN", ApiSettings(hf_token=SecretStr("hf_x"))),
    ],
)
def test_a_missing_key_is_the_reason(backend: str, reason: str, api: ApiSettings) -> None:
    assert {entry.unavailable for entry in of(catalog(Settings()), f"{backend}:")} == {reason}
    assert {entry.unavailable for entry in of(catalog(Settings(api=api)), f"{backend}:")} == {""}


def test_groups_carry_the_titles_of_the_registry() -> None:
    titles = [BACKENDS[name].title for name in ("transformers", "gguf", "openai", "hf-inference")]
    assert list(dict.fromkeys(entry.group for entry in catalog(Settings()))) == titles


def test_an_endpoint_is_a_group_before_it_has_answered() -> None:
    entries = catalog(with_endpoints(Endpoint(name="ollama", base_url="http://127.0.0.1:11434/v1")))
    assert entries[-1] == Entry("ollama:", "ollama", "Its models", "", "asking 127.0.0.1")


def test_an_endpoint_without_its_key_is_not_asked(server: FaultServer) -> None:
    settings = with_endpoints(Endpoint(name="mine", base_url=server.url(), key_var="MINE"))
    assert catalog(settings)[-1].unavailable == "needs MINE"
    assert list(discover(settings)) == [] and server.requests == []


@needs("openai")
def test_a_dead_endpoint_does_not_delay_the_others(server: FaultServer) -> None:
    settings = with_endpoints(
        Endpoint(name="off", base_url="http://127.0.0.1:9/v1"), Endpoint(name="on", base_url=server.url())
    )
    *_, last = discover(settings)
    assert [entry.id for entry in of(last, "on:")] == [f"on:{name}" for name in MODELS]
    assert [entry.unavailable for entry in of(last, "off:")] == ["does not answer"]
    assert [entry.group for entry in last if entry.id.startswith(("on:", "off:"))] == ["off", "on", "on", "on"]


@needs("openai")
def test_each_list_is_shown_as_it_arrives(server: FaultServer) -> None:
    settings = with_endpoints(*(Endpoint(name=name, base_url=server.url(name)) for name in ("good", "bom")))
    first, second = discover(settings)
    asking = [entry for entry in first if entry.unavailable.startswith("asking")]
    assert len(asking) == 1 and not any(entry.unavailable.startswith("asking") for entry in second)


@needs("openai")
def test_a_list_is_kept_for_a_minute(server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = with_endpoints(Endpoint(name="on", base_url=server.url()))
    (once,), (again,) = discover(settings), discover(settings)
    assert once == again and len(server.requests) == 1
    monkeypatch.setattr("multimodel.catalog.MINUTE", 0.0)
    list(discover(settings))
    assert len(server.requests) == 2 and MINUTE == 60.0


@needs("openai")
def test_an_openai_server_on_this_machine_shows_its_own_models(server: FaultServer) -> None:
    *_, last = discover(Settings(api=ApiSettings(openai_base_url=server.url())))
    assert [entry.id for entry in of(last, "openai:")] == [f"openai:{name}" for name in MODELS]


@needs("openai")
def test_a_fault_of_ours_ends_the_search_too(server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> tuple[str, ...]:
        raise RuntimeError("a bug")

    monkeypatch.setattr(registry, "listed", broken)
    *_, last = discover(with_endpoints(Endpoint(name="on", base_url=server.url())))
    assert "type its name" in last[-1].unavailable


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("gguf:guid", "gguf:guide"),
        ("smollm2-135m-instruct", "transformers:HuggingFaceTB/SmolLM2-135M-Instruct"),
        ("openai:gpt-6-lunar", "openai:gpt-6-luna"),
        ("gpt-oss-20", "hf-inference:openai/gpt-oss-20b"),
    ],
)
def test_did_you_mean(typed: str, meant: str) -> None:
    assert meant in nearest(typed, catalog(Settings()))


def test_nothing_is_like_nonsense() -> None:
    assert nearest("zzzzzzzz", catalog(Settings())) == ()
    assert len(nearest("smollm", catalog(Settings()))) <= 3
