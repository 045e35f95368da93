"""Models served through Hugging Face: `hf-inference:OWNER/REPO`, or `...@PROVIDER` to choose who serves it."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from typing import Any

from huggingface_hub import InferenceClient

from ..errors import InvalidSetting, MultimodelError
from ..pool import Pool
from ..prices import Offers, offers_from
from ..settings import Settings
from ..types import Capabilities, Chunk, Message, ModelSpec, PromptSize, SamplingParams
from . import remote
from .service import PLACEHOLDER, Service, revealed
from .wire import Event, Wire, events

ROUTER = "https://router.huggingface.co/v1"
ANSWERED = "x-inference-provider"  # the header in which the router says who answers


def request_args(name: str, messages: Sequence[Message], params: SamplingParams) -> dict[str, Any]:
    """The arguments of InferenceClient.chat_completion. The router knows a provider as a suffix of the model.

    >>> request_args("Qwen/Qwen3-8B@groq", [], SamplingParams(seed=1))["model"]
    'Qwen/Qwen3-8B:groq'
    """
    repository, at, provider = name.partition("@")
    return {
        "model": f"{repository}:{provider}" if at else repository,
        "messages": [remote.message_form(message) for message in messages],
        "stream": True,
        "stream_options": {"include_usage": True},
        **remote.parameters(params),
    }


class HfInferenceBackend:
    """A model served by one of the Hub's inference providers, or by an Inference Endpoint of one's own."""

    capabilities = Capabilities(
        params=remote.SAME_NAME | {"max_tokens", "json_schema", "top_logprobs", "tools", "tool_choice"},
        local=False,
        key_var="HF_TOKEN",
        images=True,
    )

    def __init__(self, spec: ModelSpec, service: Service, settings: Settings) -> None:
        self.model = spec.id
        self._service = service
        self._limits = settings.api

    def stream(self, messages: Sequence[Message], params: SamplingParams) -> Generator[Chunk]:
        """The answer. Raises MultimodelError."""
        args = request_args(self.model.name, messages, params.only(self.capabilities.params))

        def send(wire: Wire) -> Generator[Event]:
            client = _Client(self._service)
            client.chat_completion(**args)
            url, headers, body = client.written.url, client.written.headers, client.written.json
            with wire.client.stream("POST", url, json=body, headers=headers) as response:
                if not response.is_success:
                    response.read()
                    response.raise_for_status()
                if provider := response.headers.get(ANSWERED):
                    yield {"provider": provider}
                yield from events(response.iter_bytes(), response.headers.get("Content-Type", ""))

        wire = Wire(self._service.key)
        with closing(remote.answer(send, self._service, self.model.name, self._limits, wire)) as chunks:
            yield from chunks

    def measure(self, messages: Sequence[Message]) -> PromptSize | None:
        """None: only the service knows."""
        return None

    def close(self) -> None:
        """Nothing is kept between answers."""


class _Client(InferenceClient):
    """The Hub's client, which routes and writes a request and leaves the sending to us.

    Its own sending follows redirects, waits for ever and cannot be hung up; its parser drops what it does not know.
    """

    def __init__(self, service: Service) -> None:
        own_address = None if service.base_url == ROUTER else service.base_url
        super().__init__(base_url=own_address, api_key=service.key or PLACEHOLDER)
        self.written: Any = None  # the request: url, headers, json

    def _inner_post(self, request_parameters: Any, *, stream: bool = False) -> Any:
        self.written = request_parameters
        return ()


def connect(spec: ModelSpec, settings: Settings, pool: Pool) -> HfInferenceBackend:
    """The backend of a model. Raises MissingKey, or InvalidSetting for a token that cannot be one."""
    return HfInferenceBackend(spec, service(settings), settings)


def names(backend: str, settings: Settings) -> tuple[str, ...]:
    """The models the providers serve; empty where the router does not answer."""
    try:
        return listed(backend, settings)
    except MultimodelError:
        return ()


def listed(backend: str, settings: Settings) -> tuple[str, ...]:
    """The same, raising MultimodelError where there is no list."""
    return remote.names(service(settings))


def offers(settings: Settings) -> Offers:
    """What each model costs at each provider, as the router lists it. Raises MultimodelError."""
    return offers_from(remote.rows(service(settings)))


def service(settings: Settings) -> Service:
    """The Hub's router, or one's own endpoint, with the token for it. Raises MissingKey or InvalidSetting."""
    url, token = settings.api.hf_inference_url.rstrip("/") or ROUTER, revealed(settings.api.hf_token)
    hub = Service(
        "hf-inference", "Hugging Face Inference", url, token, "HF_TOKEN", "https://huggingface.co/settings/tokens"
    )
    hub.checked(key_needed=not hub.on_this_machine)
    if url == ROUTER and not token.startswith("hf_"):
        raise InvalidSetting("The token in HF_TOKEN is none of the Hub's.", hint=f"It begins with hf_; {hub.key_page}.")
    return hub
