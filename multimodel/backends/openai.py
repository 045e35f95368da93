"""OpenAI, and every server of its protocol: Ollama, LM Studio, llama-server, vLLM, TGI, a Ray Serve cluster."""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from contextlib import closing
from typing import Any

import openai

from ..errors import MultimodelError
from ..pool import Pool
from ..settings import Settings
from ..types import Capabilities, Chunk, Message, ModelSpec, PromptSize, SamplingParams
from . import remote
from .failures import ParameterRefused
from .service import PLACEHOLDER, Service, revealed
from .wire import Event, Wire, events

OWN_HOST = "api.openai.com"
STANDARD = remote.SAME_NAME | {"max_tokens", "logit_bias", "json_schema", "top_logprobs", "tools", "tool_choice"}
EXTRA = {
    "top_k": ("top_k",),
    "min_p": ("min_p",),
    "repetition_penalty": ("repetition_penalty", "repeat_penalty"),
    "grammar": ("grammar",),
}
"""Parameters that are not OpenAI's but most local servers take, and what the servers call them."""

NEEDS = {"top_logprobs": "logprobs", "tool_choice": "tools"}
"""Parameters that are refused without another."""

_REASONING = re.compile(r"(o\d|gpt-[5-9])")
_BLIND = re.compile(r"(gpt-3\.5|o1-(mini|preview)|o3-mini|gpt-4($|-\d|-32k))")
"""Chat models of OpenAI that read text only. What others take, their service says."""
_CHAT_NAME = re.compile(r"(gpt-|o\d|chatgpt-)")
_OTHER_USE = re.compile(r"audio|realtime|transcribe|tts|image|search|instruct|embedding|codex|deep-research")


def request_body(
    name: str, messages: Sequence[Message], params: SamplingParams, *, own: bool = False
) -> dict[str, Any]:
    """The wire form of a request. `own`: to OpenAI itself, which has renamed max_tokens.

    >>> body = request_body("m", [Message("user", "hi")], SamplingParams(max_tokens=5, top_k=2))
    >>> body["max_tokens"], body["extra_body"]
    (5, {'top_k': 2})
    """
    given = params.asdict()
    body = {
        "model": name,
        "messages": [remote.message_form(message) for message in messages],
        "stream": True,
        "stream_options": {"include_usage": True},
        **remote.parameters(params),
    }
    if "max_tokens" in body and (own or _REASONING.match(name)):
        body["max_completion_tokens"] = body.pop("max_tokens")
    extra = {wire_name: given[key] for key, wire_names in EXTRA.items() if key in given for wire_name in wire_names}
    return {**body, "extra_body": extra} if extra else body


class OpenAIBackend:
    """A model of OpenAI or of a named endpoint."""

    def __init__(self, spec: ModelSpec, service: Service, settings: Settings) -> None:
        self.model = spec.id
        self._service = service
        self._limits = settings.api
        self._own = service.host == OWN_HOST
        extra = frozenset(EXTRA) if settings.endpoint(spec.id.backend) else frozenset()
        self.capabilities = Capabilities(
            params=STANDARD | extra,
            local=False,
            key_var=service.key_var or None,
            images=not (self._own and _BLIND.match(spec.id.name)),
        )
        self._refused: tuple[str, ...] = ()  # what this model was found not to take
        self._client = openai.OpenAI(
            api_key=service.key or PLACEHOLDER,  # the SDK insists on one
            base_url=service.base_url,
            max_retries=0,
        )
        self._client.chat.completions  # noqa: B018  imported by the SDK here, not inside the first answer's time

    def stream(self, messages: Sequence[Message], params: SamplingParams) -> Generator[Chunk]:
        """The answer; a parameter that the model refuses is left out, with a note. Raises MultimodelError."""
        params = params.only(self.capabilities.params)
        body = request_body(self.model.name, messages, params, own=self._own)
        for wire_name in self._refused:
            body, note = without(body, wire_name)
            yield Chunk(note=note)
        while True:
            try:
                with closing(self._attempt(body)) as chunks:
                    yield from chunks
                return
            except ParameterRefused as refusal:
                if refusal.parameter not in body:
                    raise
                self._refused = (*self._refused, refusal.parameter)
                body, note = without(body, refusal.parameter)
                yield Chunk(note=note)

    def measure(self, messages: Sequence[Message]) -> PromptSize | None:
        """None: only the service knows."""
        return None

    def close(self) -> None:
        """Give back the SDK's client; answers have connections of their own."""
        self._client.close()

    def _attempt(self, body: dict[str, Any]) -> Generator[Chunk]:
        def send(wire: Wire) -> Generator[Event]:
            client = self._client.with_options(http_client=wire.client)
            with client.chat.completions.with_streaming_response.create(**body) as response:
                yield from events(response.iter_bytes(), response.headers.get("Content-Type", ""))

        wire = Wire() if self._own else Wire(self._service.key)
        return remote.answer(send, self._service, self.model.name, self._limits, wire)


def without(body: dict[str, Any], wire_name: str) -> tuple[dict[str, Any], str]:
    """The request without a parameter, and those that need it, and the note; max_tokens is renamed instead.

    >>> without({"model": "m", "temperature": 0.5}, "temperature")
    ({'model': 'm'}, 'temperature is not taken by this model; it was left out.')
    """
    rest = {key: value for key, value in body.items() if wire_name not in (key, NEEDS.get(key))}
    if wire_name == "max_tokens" and "max_tokens" in body:
        return {**rest, "max_completion_tokens": body["max_tokens"]}, ""
    if wire_name not in body or wire_name == "stream_options":
        return rest, ""
    return rest, f"{wire_name} is not taken by this model; it was left out."


def connect(spec: ModelSpec, settings: Settings, pool: Pool) -> OpenAIBackend:
    """The backend of a model. Raises MissingKey, or InvalidSetting for a key that cannot be one."""
    return OpenAIBackend(spec, service(spec.id.backend, settings), settings)


def names(backend: str, settings: Settings) -> tuple[str, ...]:
    """The chat models that OpenAI or an endpoint lists; empty where it does not answer."""
    try:
        return listed(backend, settings)
    except MultimodelError:
        return ()


def listed(backend: str, settings: Settings) -> tuple[str, ...]:
    """The same, raising MultimodelError where there is no list."""
    asked = service(backend, settings)
    found = remote.names(asked)
    if asked.host != OWN_HOST:
        return found
    return tuple(sorted(name for name in found if _CHAT_NAME.match(name) and not _OTHER_USE.search(name)))


def service(backend: str, settings: Settings) -> Service:
    """Who serves a backend's models, with the key for it. Raises MissingKey or InvalidSetting."""
    if endpoint := settings.endpoint(backend):
        key = revealed(settings.environment.get(endpoint.key_var))
        named = Service(backend, backend, endpoint.base_url.rstrip("/"), key, endpoint.key_var)
        return named.checked(key_needed=bool(endpoint.key_var))
    url, key = settings.api.openai_base_url.rstrip("/"), revealed(settings.api.openai_key)
    own = Service("openai", "OpenAI", url, key, "OPENAI_API_KEY", "https://platform.openai.com/api-keys")
    return own.checked(key_needed=not own.on_this_machine)
