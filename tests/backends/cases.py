"""The backends under contract: how the suite gets at each, and what it cannot know by itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import psutil
import pytest
from pydantic import SecretStr

from multimodel import registry
from multimodel.pool import Pool
from multimodel.settings import ApiSettings, Endpoint, Settings
from multimodel.types import Backend, Message, ModelId, ModelSpec, SamplingParams, collect
from multimodel.workers.client import Worker
from multimodel.workers.protocol import Frame

from ..support import needs
from .peer import ChatServer

WIRE_NAMES = {"max_completion_tokens": "max_tokens", "repeat_penalty": "repetition_penalty"}
NO_PARAMETERS = frozenset({"model", "messages", "stream", "stream_options"})
ASK = [Message("user", "one two three four five six")]


def read_back(body: Mapping[str, Any]) -> dict[str, Any]:
    """The sampling parameters that a request on the wire means."""
    found = {WIRE_NAMES.get(name, name): value for name, value in body.items() if name not in NO_PARAMETERS}
    if "stop" in found:
        found["stop"] = tuple(found["stop"])
    if "logit_bias" in found:
        found["logit_bias"] = tuple((int(token), bias) for token, bias in found["logit_bias"].items())
    if shape := found.pop("response_format", None):
        found["json_schema"] = json.dumps(_schema(shape))
    if "tools" in found:
        found["tools"] = json.dumps(found["tools"])
    if "top_logprobs" in found:
        assert found.pop("logprobs") is True
    return found


def _schema(shape: Mapping[str, Any]) -> Any:
    """The schema of OpenAI's form; or of TGI's, in which the Hub's client writes to a server of one's own."""
    if shape["type"] == "json_object":
        return shape["value"]
    assert shape["type"] == "json_schema" and shape["json_schema"]["strict"] and shape["json_schema"]["name"]
    return shape["json_schema"]["schema"]


class Case:
    """A backend whose model is part of it and never waits: `echo`."""

    repeats = True  # says the prompt again, so that a test can foretell the answer
    breaks = False  # has another side, which can end

    def __init__(self, id: str, settings: Settings) -> None:
        self._spec = ModelSpec(ModelId.parse(id))
        self._settings = settings
        self.backend = self.fresh()  # the one that most tests ask

    def fresh(self) -> Backend:
        """Another one, which nobody has asked yet."""
        return registry.connect(self._spec, self._settings, Pool())

    def silence(self, backend: Backend) -> AbstractContextManager[None]:
        """While it lasts, this backend, which has been asked before, hears nothing from its model."""
        return nullcontext()

    def break_off(self, backend: Backend) -> None:
        """End what a silent backend is waiting for."""

    def reached(self, params: SamplingParams) -> dict[str, Any]:
        """The sampling parameters that reach the model when an answer is asked for with these."""
        text, _ = collect(self.backend.stream(ASK, params))
        return {} if text == ASK[0].content else params.asdict()

    def freed(self) -> bool:
        """Whether the model knows that nobody waits for the answer any more."""
        return True

    def close(self) -> None:
        self.backend.close()


class Remote(Case):
    """A service on loopback."""

    breaks = True

    def __init__(self, id: str, settings: Callable[[str], ApiSettings]) -> None:
        self._server = ChatServer().__enter__()
        super().__init__(id, Settings(api=settings(self._server.url())))

    @contextmanager
    def silence(self, backend: Backend) -> Generator[None]:
        self._server.silent = True
        try:
            yield
        finally:
            self._server.silent = self._server.lost = False

    def break_off(self, backend: Backend) -> None:
        self._server.lost = True

    def reached(self, params: SamplingParams) -> dict[str, Any]:
        collect(self.backend.stream(ASK, params))
        return read_back(self._server.requests[-1].body)

    def freed(self) -> bool:
        return self._server.idle()

    def close(self) -> None:
        super().close()
        self._server.__exit__()


class Local(Case):
    """A model in a child process, which is loaded here."""

    repeats = False
    breaks = True

    def __init__(self, id: str, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(id, Settings())
        collect(self.backend.stream(ASK, SamplingParams(max_tokens=1)))
        worker, self._frames = _worker(self.backend), list[Frame]()
        send = worker._send
        monkeypatch.setattr(worker, "_send", lambda frame: (self._frames.append(frame), send(frame)))

    @contextmanager
    def silence(self, backend: Backend) -> Generator[None]:
        process = psutil.Process(_worker(backend).pid)
        process.suspend()
        try:
            yield
        finally:
            if process.is_running():
                process.resume()

    def break_off(self, backend: Backend) -> None:
        psutil.Process(_worker(backend).pid).kill()

    def reached(self, params: SamplingParams) -> dict[str, Any]:
        collect(self.backend.stream(ASK, params))
        return dict(next(frame for frame in reversed(self._frames) if frame["op"] == "generate")["params"])

    def freed(self) -> bool:
        return self._frames[-1]["op"] == "cancel"


def _worker(backend: Any) -> Worker:
    worker: Worker = backend._place.worker
    return worker


def _openai(url: str) -> ApiSettings:
    return ApiSettings(openai_base_url=url, openai_key=None)


def _endpoint(url: str) -> ApiSettings:
    return ApiSettings(endpoints=(Endpoint(name="local", base_url=url),))


def _hf_inference(url: str) -> ApiSettings:
    return ApiSettings(hf_inference_url=url, hf_token=SecretStr("hf_of_the_tests"))


def _local(backend: str, model: str) -> Callable[[pytest.FixtureRequest, pytest.MonkeyPatch], Case]:
    return lambda request, patch: Local(f"{backend}:{request.getfixturevalue(model)}", patch)


CASES: dict[str, Callable[[pytest.FixtureRequest, pytest.MonkeyPatch], Case]] = {
    "echo": lambda request, patch: Case("echo:any", Settings()),
    "openai": lambda request, patch: Remote("openai:m", _openai),
    "openai endpoint": lambda request, patch: Remote("local:m", _endpoint),
    "hf-inference": lambda request, patch: Remote("hf-inference:o/m", _hf_inference),
    "transformers": _local("transformers", "tiny_folder"),
    "gguf": _local("gguf", "tiny_gguf_file"),
}
"""How to make each: its key is a backend, perhaps followed by what is special about the case."""

NEEDS = {
    "openai": needs("openai"),
    "hf-inference": needs("huggingface_hub"),
    "transformers": needs("torch", "transformers"),
    "gguf": needs("llama_cpp", "gguf", "torch"),
}


def params() -> Iterator[Any]:
    """The cases as parameters of a fixture; one whose package is not installed is skipped."""
    for name in CASES:
        mark = NEEDS.get(name.partition(" ")[0])
        yield pytest.param(name, id=name.replace(" ", "-"), marks=[mark] if mark else [])
