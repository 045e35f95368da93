"""Hugging Face Inference: through the Hub's own client, over a wire that can be hung up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import SecretStr

from multimodel import Engine
from multimodel.errors import InvalidSetting, MissingKey
from multimodel.pool import Pool
from multimodel.settings import ApiSettings, Settings
from multimodel.types import Message, ModelId, ModelSpec, SamplingParams, Snapshot, collect

from ..faults import FAULTS, MODELS, FaultServer
from ..support import needs
from ..test_faults import ENDS, ERRORS, SILENT, STALLING
from .cases import read_back

pytestmark = needs("huggingface_hub")

HI = [Message("user", "hi")]
TOKEN = "hf_canary0123456789abcdef"
ALL = SamplingParams(
    max_tokens=5,
    temperature=0.0,
    top_p=0.5,
    top_k=3,
    seed=1,
    stop=("x",),
    presence_penalty=0.5,
    frequency_penalty=-0.5,
    logit_bias=((7, 1.0),),
    json_schema='{"type": "integer"}',
    top_logprobs=2,
    tools='{"name": "now"}',
    tool_choice="now",
)


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer() as running:
        yield running


def at(url: str, token: str | None = TOKEN, *, first: float = 20.0, stall: float = 20.0) -> Settings:
    api = ApiSettings(
        hf_inference_url=url,
        hf_token=SecretStr(token) if token else None,
        retries=0,
        first_token_timeout=first,
        stall_timeout=stall,
    )
    return Settings(api=api)


def backend(settings: Settings, name: str = "o/m") -> Any:
    from multimodel.backends.hf_inference import connect

    return connect(ModelSpec(ModelId("hf-inference", name)), settings, Pool())


def ask(server: FaultServer, fault: str) -> Snapshot:
    first, stall = 0.4 if fault in SILENT else 20.0, 0.4 if fault in STALLING else 20.0
    with Engine(at(server.url(fault), first=first, stall=stall)) as engine:
        *_, last = engine.ask(ModelId("hf-inference", "o/good-model"), HI)
    return last


@pytest.mark.parametrize("fault", sorted(FAULTS.keys() - {"endless"}))
def test_every_fault_ends_as_it_does_at_any_other_service(server: FaultServer, fault: str) -> None:
    last = ask(server, fault)
    if fault in ENDS:
        assert (last.finish_reason, last.text, last.error) == (*ENDS[fault], None)
    else:
        kind, text = ERRORS[fault]
        assert (type(last.error), last.text) == (kind, text)
        assert last.error and TOKEN not in f"{last.error} {last.error.hint}"
    assert server.idle()


def test_the_wire_form(server: FaultServer) -> None:
    model = backend(at(server.url()), "o/m@groq")
    collect(model.stream(HI, ALL))
    (request,) = server.asked("good")
    assert request.path == "/good/v1/chat/completions"
    assert request.headers["authorization"] == f"Bearer {TOKEN}"
    assert request.body == {
        "model": "o/m:groq",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 5,
        "temperature": 0.0,
        "top_p": 0.5,
        "seed": 1,
        "stop": ["x"],
        "presence_penalty": 0.5,
        "frequency_penalty": -0.5,
        "response_format": {"type": "json_object", "value": {"type": "integer"}},  # as the Hub's client has it
        "logprobs": True,
        "top_logprobs": 2,
        "tools": [{"type": "function", "function": {"name": "now"}}],
        "tool_choice": {"type": "function", "function": {"name": "now"}},
    }
    assert model.capabilities.params == read_back(request.body).keys()


def test_a_missing_token_says_which_and_where_to_get_it() -> None:
    with pytest.raises(MissingKey, match="HF_TOKEN") as caught:
        backend(at("", token=None))
    assert "https://huggingface.co/settings/tokens" in caught.value.hint


def test_the_token_of_another_service_is_not_sent_to_the_hub() -> None:
    with pytest.raises(InvalidSetting, match="HF_TOKEN"):
        backend(at("", token="sk-something-else"))


def test_no_token_of_this_machine_is_sent_to_a_server_of_ones_own(
    server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_somebody_else")
    settings = at(server.url(), token=None).model_copy()
    assert settings.api.hf_token is None
    collect(backend(settings).stream(HI, ALL))
    assert server.asked("good")[0].headers["authorization"] == "Bearer none"


@pytest.mark.parametrize("fault", ["no-answer", "stall"])
def test_stop_is_seen_by_the_server_while_it_is_waited_for(server: FaultServer, fault: str) -> None:
    with Engine(at(server.url(fault))) as engine:
        run = engine.start(ModelId("hf-inference", "o/m"), HI)
        assert server.reached()
        run.stop()
        assert server.idle(2.0)


def test_the_models_of_the_router(server: FaultServer) -> None:
    from multimodel.backends.hf_inference import names

    assert names("hf-inference", at(server.url())) == MODELS
    assert names("hf-inference", at("", token=None)) == ()
