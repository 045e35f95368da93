"""OpenAI and endpoints: the wire form, keys that stay at home, refused parameters, and the SDK's errors."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from pydantic import SecretStr

from multimodel.errors import (
    AuthenticationFailure,
    BadRequest,
    ConnectionFailure,
    InvalidSetting,
    MissingKey,
    ModelNotFound,
    MultimodelError,
    ProtocolFailure,
    RateLimited,
    ServerFailure,
)
from multimodel.pool import Pool
from multimodel.settings import ApiSettings, Endpoint, Settings
from multimodel.types import Message, ModelId, ModelSpec, SamplingParams, collect

from ..faults import FIN, HEL, LO, MODELS, FaultServer, error, reply, streamed
from ..support import needs
from .cases import read_back

pytestmark = needs("openai")

ALL = SamplingParams(
    max_tokens=5,
    temperature=0.0,
    top_p=0.5,
    top_k=3,
    min_p=0.1,
    repetition_penalty=1.1,
    seed=1,
    stop=("x",),
    presence_penalty=0.5,
    frequency_penalty=-0.5,
    logit_bias=((7, -1.5), (8, 2.0)),
    json_schema='{"type": "integer"}',
    top_logprobs=2,
    tools='{"name": "now"}',
    tool_choice="now",
)
HI = [Message("system", "Be kind."), Message("user", "hi")]


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer() as running:
        yield running


def named(server: FaultServer, fault: str = "good", key_var: str = "", **environment: str) -> Settings:
    endpoint = Endpoint(name="local", base_url=server.url(fault), key_var=key_var)
    keys = {name: SecretStr(value) for name, value in environment.items()}
    return Settings(api=ApiSettings(endpoints=(endpoint,)), environment=keys)


def own(server: FaultServer, fault: str = "good", key: str | None = None) -> Settings:
    return Settings(api=ApiSettings(openai_base_url=server.url(fault), openai_key=SecretStr(key) if key else None))


def backend(settings: Settings, id: str = "local:m") -> Any:
    from multimodel.backends.openai import connect

    return connect(ModelSpec(ModelId.parse(id)), settings, Pool())


def test_every_parameter_has_its_place_on_the_wire() -> None:
    from multimodel.backends.openai import request_body

    body = request_body("m", HI, ALL)
    extra = body.pop("extra_body")
    assert extra == {"top_k": 3, "min_p": 0.1, "repetition_penalty": 1.1, "repeat_penalty": 1.1}
    assert body == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 5,
        "temperature": 0.0,
        "top_p": 0.5,
        "seed": 1,
        "stop": ["x"],
        "presence_penalty": 0.5,
        "frequency_penalty": -0.5,
        "logit_bias": {"7": -1.5, "8": 2.0},
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": {"type": "integer"}, "strict": True},
        },
        "logprobs": True,
        "top_logprobs": 2,
        "tools": [{"type": "function", "function": {"name": "now"}}],
        "tool_choice": {"type": "function", "function": {"name": "now"}},
    }


def test_what_is_not_set_is_not_sent() -> None:
    from multimodel.backends.openai import request_body

    assert request_body("m", HI, SamplingParams()).keys() == {"model", "messages", "stream", "stream_options"}


@pytest.mark.parametrize(("name", "own_api"), [("o3-mini", False), ("gpt-6-luna", False), ("gpt-4.1", True)])
def test_max_tokens_has_a_new_name_where_it_was_renamed(name: str, own_api: bool) -> None:
    from multimodel.backends.openai import request_body

    body = request_body(name, HI, ALL, own=own_api)
    assert body["max_completion_tokens"] == 5 and "max_tokens" not in body


def test_what_the_capabilities_say_is_what_reaches_the_wire(server: FaultServer) -> None:
    with_extras, plain = backend(named(server)), backend(own(server), "openai:m")
    for params in (ALL, replace(ALL, json_schema=None, grammar='root ::= "a"')):
        collect(with_extras.stream(HI, params))
        collect(plain.stream(HI, params))
    first, second, third, fourth = (request.body for request in server.asked("good"))
    assert with_extras.capabilities.params == read_back(first).keys() | read_back(third).keys()
    assert (first["repeat_penalty"], third["grammar"]) == (1.1, 'root ::= "a"')
    assert plain.capabilities.params == read_back(second).keys() | read_back(fourth).keys()


def test_a_key_goes_to_its_own_address_only(server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, f"secret-{name}")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Mine: secret-header\nAuthorization: Bearer secret-other")
    collect(backend(named(server, key_var="MINE", MINE="right-key")).stream(HI, ALL))
    collect(backend(named(server)).stream(HI, ALL))
    with_key, without = (request.headers for request in server.asked("good"))
    assert with_key["authorization"] == "Bearer right-key"
    assert without["authorization"] == "Bearer none"
    assert "secret" not in f"{with_key} {without}"


def test_a_missing_key_says_which_and_where_to_get_it(server: FaultServer) -> None:
    with pytest.raises(MissingKey, match="OPENAI_API_KEY") as caught:
        backend(Settings(), "openai:gpt-6-luna")
    assert "https://platform.openai.com/api-keys" in caught.value.hint
    with pytest.raises(MissingKey, match="MINE"):
        backend(named(server, key_var="MINE"))


def test_on_this_machine_openai_needs_no_key(server: FaultServer) -> None:
    assert collect(backend(own(server), "openai:m").stream(HI, ALL))[0] == "Hello"


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "schlüssel", "nul\x00"])
def test_a_key_that_no_header_can_carry_is_refused_before_anything_is_sent(server: FaultServer, key: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        backend(own(server, key=key), "openai:m")
    assert key not in f"{caught.value} {caught.value.hint}" and server.requests == []


def test_white_space_around_a_key_is_not_part_of_it(server: FaultServer) -> None:
    collect(backend(own(server, key=" sk-right\n"), "openai:m").stream(HI, ALL))
    assert server.asked("good")[0].headers["authorization"] == "Bearer sk-right"


def test_a_wrong_key_names_its_variable(server: FaultServer) -> None:
    with pytest.raises(AuthenticationFailure, match="OpenAI refused the key in OPENAI_API_KEY") as caught:
        collect(backend(own(server, "401", "sk-wrong-0123456789"), "openai:m").stream(HI, ALL))
    assert "sk-wrong" not in f"{caught.value} {caught.value.hint}"


def refusal(parameter: str, code: str = "unsupported_value") -> bytes:
    return reply(400, error(f"Unsupported: {parameter}", code, "invalid_request_error", param=parameter))


def test_a_refused_parameter_is_left_out_with_a_note_and_remembered(server: FaultServer) -> None:
    server.once("good", refusal("temperature"), refusal("top_p", "unsupported_parameter"))
    model = backend(named(server))
    for _ in range(2):
        chunks = list(model.stream(HI, ALL))
        notes = [chunk.note for chunk in chunks if chunk.note]
        assert [note.partition(" ")[0] for note in notes] == ["temperature", "top_p"]
        assert "".join(chunk.text for chunk in chunks) == "Hello"
    sent = [request.body.keys() & {"temperature", "top_p"} for request in server.asked("good")]
    assert sent == [{"temperature", "top_p"}, {"top_p"}, set(), set()]


def test_max_tokens_is_renamed_where_it_is_refused(server: FaultServer) -> None:
    server.once("good", refusal("max_tokens", "unsupported_parameter"))
    chunks = list(backend(named(server)).stream(HI, ALL))
    assert not any(chunk.note for chunk in chunks)
    assert server.asked("good")[1].body["max_completion_tokens"] == 5


def test_what_cannot_be_left_out_is_an_error(server: FaultServer) -> None:
    server.once("good", refusal("messages[0].role"))
    with pytest.raises(BadRequest, match="messages"):
        collect(backend(named(server)).stream(HI, ALL))
    assert len(server.asked("good")) == 1


def test_a_parameter_is_left_out_once(server: FaultServer) -> None:
    server.once("good", refusal("seed"), refusal("seed"))
    with pytest.raises(BadRequest):
        collect(backend(named(server)).stream(HI, ALL))
    assert len(server.asked("good")) == 2


def test_the_sdk_does_not_ask_again_by_itself(server: FaultServer) -> None:
    with pytest.raises(MultimodelError):
        collect(backend(named(server, "500")).stream(HI, ALL))
    assert len(server.asked("500")) == 1


PLACES = {  # every error an answer of the SDK can raise: what it is to us
    "APIError": ProtocolFailure,
    "APIResponseValidationError": ServerFailure,
    "APIStatusError": ServerFailure,
    "APIConnectionError": ProtocolFailure,  # bare; in life the HTTP client's error is behind it
    "APITimeoutError": ProtocolFailure,
    "BadRequestError": BadRequest,
    "AuthenticationError": AuthenticationFailure,
    "OAuthError": AuthenticationFailure,
    "PermissionDeniedError": AuthenticationFailure,
    "NotFoundError": ModelNotFound,
    "ConflictError": ServerFailure,
    "UnprocessableEntityError": BadRequest,
    "RateLimitError": RateLimited,
    "InternalServerError": ServerFailure,
}


def of_kind(kind: type[Any]) -> set[type[Any]]:
    return {kind}.union(*(of_kind(other) for other in kind.__subclasses__()))


def test_every_error_of_the_sdk_has_its_place() -> None:
    import openai

    assert {kind.__name__ for kind in of_kind(openai.APIError)} == PLACES.keys()


@pytest.mark.parametrize("name", PLACES)
def test_an_error_of_the_sdk_becomes_one_of_ours(name: str) -> None:
    import httpx2
    import openai

    from multimodel.backends.failures import translated
    from multimodel.backends.service import Service

    kind = next(kind for kind in of_kind(openai.APIError) if kind.__name__ == name)
    status = getattr(kind, "status_code", {"OAuthError": 401}.get(name, 500))
    request = httpx2.Request("POST", "http://127.0.0.1/v1")
    response = httpx2.Response(status if isinstance(status, int) else 500, request=request, json={"error": "no"})
    offered = {"response": response, "request": request, "body": None, "message": "no"}
    wanted = inspect.signature(kind).parameters
    error = kind(**{word: offered[word] for word in wanted if word in offered})
    assert type(translated(error, Service("local", "local", "http://127.0.0.1/v1", "k", "K"), "m")) is PLACES[name]


@pytest.mark.parametrize(
    ("cause", "kind", "says"),
    [
        ("ConnectError", ConnectionFailure, "is the server running"),
        ("ConnectTimeout", ConnectionFailure, "does not answer"),
        ("ReadError", ConnectionFailure, "broke off"),
        ("RemoteProtocolError", ConnectionFailure, "broke off"),
        ("UnsupportedProtocol", InvalidSetting, "not an address"),
    ],
)
def test_behind_a_connection_error_is_the_reason(cause: str, kind: type[Exception], says: str) -> None:
    import httpx2
    import openai

    from multimodel.backends.failures import translated
    from multimodel.backends.service import Service

    error = openai.APIConnectionError(request=httpx2.Request("POST", "http://127.0.0.1/v1"))
    error.__cause__ = getattr(httpx2, cause)("low level words")
    ours = translated(error, Service("local", "local", "http://127.0.0.1/v1"), "m")
    assert type(ours) is kind and says in str(ours)


def test_the_models_of_an_endpoint(server: FaultServer) -> None:
    from multimodel.backends.openai import names

    assert names("local", named(server)) == MODELS
    assert names("openai", own(server)) == MODELS
    assert names("openai", Settings()) == ()  # no key: none, not an error


def test_closing_a_backend_twice_is_safe(server: FaultServer) -> None:
    model = backend(named(server))
    model.close()
    model.close()
    assert model.measure(HI) is None


def test_pieces_are_stamped_where_they_arrive(server: FaultServer) -> None:
    server.once("good", streamed(HEL, LO, FIN))
    times = [chunk.at for chunk in backend(named(server)).stream(HI, ALL) if chunk.text]
    assert len(times) == 2 and times == sorted(times)


def test_a_schema_that_is_none_is_refused_before_anything_is_sent(server: FaultServer) -> None:
    with pytest.raises(BadRequest, match="JSON schema") as caught:
        collect(backend(own(server), "openai:m").stream(HI, SamplingParams(json_schema="{")))
    assert caught.value.hint and not server.requests


def test_log_probabilities_are_refused_with_their_switch(server: FaultServer) -> None:
    server.once("good", refusal("logprobs", "unsupported_parameter"))
    model = backend(own(server), "openai:m")
    notes = [chunk.note for chunk in model.stream(HI, SamplingParams(top_logprobs=2)) if chunk.note]
    assert notes == ["logprobs is not taken by this model; it was left out."]
    assert not server.asked("good")[1].body.keys() & {"logprobs", "top_logprobs"}
