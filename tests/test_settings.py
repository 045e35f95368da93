"""Settings come from arguments, the environment, .env and defaults, in this order, and keep their secrets."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from multimodel.errors import InvalidSetting
from multimodel.settings import (
    RESERVED,
    ApiSettings,
    ChatSettings,
    ModelSettings,
    SecuritySettings,
    Settings,
    child_environment,
    settings,
)

from .support import ROOT

SECRET = "sk-very-secret"
OLLAMA = {"name": "ollama", "base_url": "http://127.0.0.1:11434/v1"}


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.delenv("MODEL_CACHE_DIR")
    monkeypatch.delenv("FINE_TUNED_DIR")
    return monkeypatch


def test_without_anything_the_defaults_run_the_built_in_model(env: pytest.MonkeyPatch) -> None:
    chosen = Settings.load()
    assert chosen.chat.columns == ("transformers:guide", "gguf:guide")
    assert chosen.models.cache_dir == Path("model_cache")
    assert chosen.models.fine_tuned_dir == Path("fine_tuned_models")
    assert chosen.models.assets_dir.is_dir()
    assert chosen.security.host == "127.0.0.1"
    assert chosen.api.openai_key is None and chosen.api.hf_token is None and chosen.api.endpoints == ()


def test_argument_over_environment_over_file_over_default(env: pytest.MonkeyPatch) -> None:
    assert ChatSettings().max_tokens == 1024
    Path(".env").write_text("MULTIMODEL_MAX_TOKENS=11\n")
    assert ChatSettings().max_tokens == 11
    env.setenv("MULTIMODEL_MAX_TOKENS", "22")
    assert ChatSettings().max_tokens == 22
    assert ChatSettings(max_tokens=33).max_tokens == 33


@pytest.mark.parametrize("name", ["HUGGINGFACE_API_TOKEN", "HF_TOKEN"])
def test_both_names_of_the_hub_token(env: pytest.MonkeyPatch, name: str) -> None:
    env.setenv(name, SECRET)
    token = Settings.load().api.hf_token
    assert token is not None and token.get_secret_value() == SECRET


def test_the_longer_name_of_the_hub_token_wins(env: pytest.MonkeyPatch) -> None:
    env.setenv("HF_TOKEN", "other")
    env.setenv("HUGGINGFACE_API_TOKEN", SECRET)
    token = Settings.load().api.hf_token
    assert token is not None and token.get_secret_value() == SECRET


@pytest.mark.parametrize("name", ["COLUMNS", "HOST", "PORT", "THREADS", "RETRIES", "CACHE_DIR", "OFFLINE"])
def test_common_variables_of_a_shell_are_not_ours(env: pytest.MonkeyPatch, name: str) -> None:
    before = Settings.load()
    env.setenv(name, "80")
    assert Settings.load() == before


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "OPENAI_BASE_URL", "ENDPOINTS", "MULTIMODEL_PORT", "HF_TOKEN"])
def test_an_empty_variable_is_not_set(env: pytest.MonkeyPatch, name: str) -> None:
    before = Settings.load()
    env.setenv(name, "")
    assert Settings.load() == before


def test_an_endpoint_is_one_line_and_its_key_is_found(env: pytest.MonkeyPatch) -> None:
    env.setenv("ENDPOINTS", json.dumps([OLLAMA, {"name": "work", "base_url": "https://x/v1", "key_var": "WORK_KEY"}]))
    Path(".env").write_text(f"WORK_KEY={SECRET}\n")
    chosen = Settings.load()
    found = chosen.endpoint("ollama")
    assert found is not None and found.base_url == OLLAMA["base_url"]
    assert chosen.endpoint("nobody") is None
    assert chosen.environment["WORK_KEY"].get_secret_value() == SECRET


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MULTIMODEL_PORT", "ninety"),
        ("MULTIMODEL_PORT", "70000"),
        ("MULTIMODEL_TEMPERATURE", "3"),
        ("MULTIMODEL_UPDATES_PER_SECOND", "60"),
        ("MULTIMODEL_COLUMNS", "gguf:guide"),
        ("ENDPOINTS", "ollama=http://127.0.0.1"),
        ("ENDPOINTS", json.dumps(OLLAMA)),
        ("ENDPOINTS", json.dumps([OLLAMA | {"base_url": "ftp://x"}])),
        ("ENDPOINTS", json.dumps([OLLAMA | {"base_url": "http://name:password@x"}])),
        ("ENDPOINTS", json.dumps([OLLAMA | {"name": "Has Spaces"}])),
        ("ENDPOINTS", json.dumps([OLLAMA | {"key": "in the wrong place"}])),
        *(("ENDPOINTS", json.dumps([OLLAMA | {"name": name}])) for name in sorted(RESERVED)),
    ],
)
def test_something_unusable_is_named(env: pytest.MonkeyPatch, name: str, value: str) -> None:
    env.setenv(name, value)
    with pytest.raises(InvalidSetting, match=name) as caught:
        Settings.load()
    assert caught.value.hint


def test_secrets_are_not_shown(env: pytest.MonkeyPatch) -> None:
    env.setenv("OPENAI_API_KEY", SECRET)
    env.setenv("HF_TOKEN", SECRET)
    env.setenv("WORK_KEY", SECRET)
    env.setenv("ENDPOINTS", json.dumps([OLLAMA | {"key_var": "WORK_KEY"}]))
    chosen = Settings.load()
    assert len(chosen.environment) == 1
    assert SECRET not in repr(chosen) + str(chosen) + chosen.model_dump_json()


def test_a_setting_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings.load().security.port = 1


def test_a_test_gives_only_what_it_cares_about(tmp_path: Path) -> None:
    chosen = Settings(models=ModelSettings(cache_dir=tmp_path), api=ApiSettings(retries=0))
    assert chosen.models.cache_dir == tmp_path and chosen.api.retries == 0
    assert chosen.security == SecuritySettings()


def test_they_are_read_once(env: pytest.MonkeyPatch) -> None:
    settings.cache_clear()
    try:
        first = settings()
        env.setenv("MULTIMODEL_PORT", "1")
        assert settings() is first
    finally:
        settings.cache_clear()


def test_a_child_process_gets_no_secret(env: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "DB_PASSWORD", "session_cookie"):
        env.setenv(name, SECRET)
    env.setenv("LANG", "C.UTF-8")
    given = child_environment()
    assert SECRET not in given.values()
    assert given["LANG"] == "C.UTF-8" and "PATH" in given


def test_the_example_file_is_readable_once_uncommented(env: pytest.MonkeyPatch) -> None:
    lines = (ROOT / ".env.example").read_text("utf-8").splitlines()
    Path(".env").write_text("\n".join(re.sub(r"^# (?=[A-Z_]+=)", "", line) for line in lines))
    chosen = Settings.load()
    assert [e.name for e in chosen.api.endpoints] == ["ollama"]
    assert chosen.chat == ChatSettings() and chosen.api.openai_key is None


def test_only_the_settings_read_the_environment() -> None:
    pattern = r"os\.environ(?!\[\{)|getenv"  # with a brace it is in a program that is written out
    files = [*ROOT.glob("multimodel/**/*.py"), *ROOT.glob("tabs/**/*.py")]
    readers = {path.name for path in files if re.search(pattern, path.read_text("utf-8"))}
    assert readers == {"settings.py"}
