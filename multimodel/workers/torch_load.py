"""Bring a folder of a transformers model into memory, or refuse it with the reason."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from .. import folder as files
from ..errors import BrokenFile, InvalidParameter, MissingDependency, MultimodelError, TooLarge
from ..hardware import Device, detect
from ..memory import Request, target_of
from ..memory.plan import gb_apart
from ..memory.torch_plan import model_of
from ..types import LoadOptions
from . import torch_adapter
from .protocol import Facts, Progress, is_out_of_memory
from .torch_cache import cache_argument
from .torch_packed import PACKED, PackedConfig, PackedLinear

DEFAULT_CONTEXT = 4096  # tokens, where neither the person nor the model says less


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model ready to run."""

    model: Any
    tokenizer: Any
    facts: Facts
    ends: frozenset[int]  # token ids that end an answer


def load_folder(folder: Path, options: LoadOptions, progress: Progress) -> Loaded:
    """The model in `folder`. Raises LoadError, MissingDependency or InvalidParameter."""
    progress("loading", None, "starting the library")  # its first use imports most of it
    config = _config(folder)
    _stretch(config, options)
    context = _context_length(config, options)
    progress("loading", None, "reading the tokenizer")
    tokenizer = _tokenizer(folder)
    if options.chat_template is not None:
        tokenizer.chat_template = options.chat_template
    device, dtype = _place(folder, context, options)
    model = _model(folder, config, device, dtype, progress)
    _check_vocabulary(model, tokenizer, folder)
    if dtype in PACKED and not any(isinstance(module, PackedLinear) for module in model.modules()):
        raise InvalidParameter(f"This model has no linear layers to hold as {dtype}.", hint="Choose another dtype.")
    if options.adapter:
        torch_adapter.add(model, Path(options.adapter).expanduser(), options.adapter_scale)
    facts = Facts(
        context_length=context,
        device=device.kind,
        dtype=dtype,
        parameters=_parameters(model),
        template="own" if tokenizer.chat_template else "plain",
        memory=_resident(),
        tools="tools" in str(tokenizer.chat_template or ""),
    )
    return Loaded(model, tokenizer, facts, _ends(model, tokenizer))


@contextmanager
def _own_errors(what: str, folder: Path) -> Generator[None]:
    """The library's many ways to say that a file is not what it should be, as ours."""
    try:
        yield
    except Exception as error:
        if isinstance(error, MultimodelError) or is_out_of_memory(error):
            raise
        raise _own_error(what, error, files.mend(folder)) from error


def _own_error(what: str, error: Exception, hint: str) -> Exception:
    said = _first_line(error)
    match error:
        case ImportError():
            return MissingDependency(f"{what} needs a package: {said}", hint="Install it.")
        case SafetensorError() | OSError() | ValueError() | KeyError() | TypeError() | AttributeError():
            return BrokenFile(f"{what} cannot be loaded: {said}", hint=hint)
        case RuntimeError():
            return BrokenFile(f"{what} does not fit together: {said}", hint=hint)
    return error


def _first_line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)[:300]


def _config(folder: Path) -> Any:
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    files.check_names(names, folder.name)
    files.check_safe(folder)
    with _own_errors(files.CONFIG, folder):
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def _stretch(config: Any, options: LoadOptions) -> None:
    """Bring positions beyond the trained context within it, in the configuration. Raises InvalidParameter."""
    if not options.rope_scaling:
        return
    text = config.get_text_config(decoder=True)
    rope, own = getattr(text, "rope_parameters", None), getattr(text, "max_position_embeddings", None)
    kind = rope.get("rope_type", "of several kinds") if rope else "not rotary"
    if not rope or not own or kind != "default":
        raise InvalidParameter(f"The positions of this model are {kind}.", hint="Leave out rope_scaling.")
    scaling = {"rope_type": options.rope_scaling, "factor": options.rope_factor}
    trained = {"original_max_position_embeddings": own} if options.rope_scaling == "yarn" else {}
    text.rope_parameters = {**rope, **scaling, **trained}
    text.max_position_embeddings = int(own * options.rope_factor)


def _context_length(config: Any, options: LoadOptions) -> int:
    own = getattr(config.get_text_config(decoder=True), "max_position_embeddings", None) or DEFAULT_CONTEXT
    return int(min(own, options.context_length or DEFAULT_CONTEXT))


def _tokenizer(folder: Path) -> Any:
    with _own_errors("The tokenizer", folder):
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if not len(tokenizer):  # the library makes an empty one where the files are missing
        raise BrokenFile("The tokenizer is empty.", hint=files.mend(folder))
    return tokenizer


def _check_vocabulary(model: Any, tokenizer: Any, folder: Path) -> None:
    rows = model.get_input_embeddings().weight.shape[0]
    if (highest := max(tokenizer.get_vocab().values())) >= rows:
        raise BrokenFile(
            f"The tokenizer knows token {highest}, the model only {rows} tokens: they do not belong together.",
            hint=files.mend(folder),
        )


def _place(folder: Path, context: int, options: LoadOptions) -> tuple[Device, str]:
    """(device, dtype): where it fits and in which format. Raises TooLarge with the figures, MissingDependency."""
    found = detect()
    device = found.of(options.device)
    if device is None:
        has = ", ".join(d.kind for d in found.devices)
        raise MissingDependency(f"This machine has no device {options.device}.", hint=f"Choose auto or one of {has}.")
    rows = {name: tensor for file in files.weight_files(folder) for name, tensor in files.tensors(file).items()}
    weighed = model_of(folder.name, files.read_json(folder / files.CONFIG), rows)
    request = Request(context_length=context, target=target_of(device), dtype=options.dtype)
    dtype = weighed.dtype(request)
    if dtype in PACKED and device.kind != "cpu":
        raise InvalidParameter(f"Weights as {dtype} are for the processor here.", hint="Choose bfloat16 or float16.")
    plan = weighed.plan(request)
    if (needed := plan.total - plan.framework) > device.free and not options.anyway:  # the library is here already
        takes, free = gb_apart(needed, device.free)
        raise TooLarge(
            f"The model takes {takes} as {dtype} with {context} tokens of context; {free} is free on {device.kind}.",
            hint="Close other models, choose a smaller one or a shorter context length, or a GGUF file of it.",
        )
    return device, dtype


def _model(folder: Path, config: Any, device: Device, dtype: str, progress: Progress) -> Any:
    with _own_errors("The model", folder), _weights_progress(progress):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            **_format(dtype),
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # it would raise without saying which; `check_loaded` says
            **_attention(config),
        )
    model, info = loaded
    files.check_loaded(info["missing_keys"], info["mismatched_keys"], files.mend(folder))
    if not cache_argument(model):
        raise BrokenFile(
            f"{type(model).__name__} keeps no cache that can be used here.", hint="Choose a GGUF file of this model."
        )
    return model.to(device.kind).eval()


def _format(dtype: str) -> dict[str, Any]:
    if dtype in PACKED:
        return {"dtype": torch.bfloat16, "quantization_config": PackedConfig(dtype)}
    return {"dtype": getattr(torch, dtype)}


def _attention(config: Any) -> dict[str, str]:
    """PyTorch's own attention kernel, said aloud: a configuration could name another, from a repository."""
    kind = AutoModelForCausalLM._model_mapping.get(type(config), None)
    able = getattr(kind, "_supports_sdpa", False)
    return {"attn_implementation": "sdpa" if able else "eager"}


@contextmanager
def _weights_progress(progress: Progress) -> Generator[None]:
    """Report the library's progress bar over the weights as ours, and keep it off standard error."""

    def watched(factory: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        items = args[0] if args else kwargs.get("iterable", ())
        return _Bar(items, lambda fraction: progress("loading", fraction, "reading the weights"))

    before = transformers.logging.set_tqdm_hook(watched)
    try:
        yield
    finally:
        transformers.logging.set_tqdm_hook(before)


class _Bar:
    """As much of a progress bar as the library uses: an iterable; hundredths are reported."""

    def __init__(self, items: Iterable[Any], report: Callable[[float], None]) -> None:
        self._items = list(items)
        self._report = report

    def __iter__(self) -> Iterator[Any]:
        told = -1
        for done, item in enumerate(self._items):
            if (percent := 100 * done // len(self._items)) > told:
                told = percent
                self._report(percent / 100)
            yield item

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args, **kwargs: None


def _ends(model: Any, tokenizer: Any) -> frozenset[int]:
    """The ids that end an answer, wherever the model's files name them."""
    text = model.config.get_text_config(decoder=True)
    found: set[int] = set()
    for named in (model.generation_config.eos_token_id, text.eos_token_id, tokenizer.eos_token_id):
        found |= {named} if isinstance(named, int) else set(named or ())
    return frozenset(found)


def _parameters(model: Any) -> int:
    """Numbers that were trained: of a packed layer its shape says how many."""
    packed = [module for module in model.modules() if isinstance(module, PackedLinear)]
    held = {id(tensor) for layer in packed for tensor in (layer.weight, layer.scale)}
    others = sum(int(p.numel()) for p in model.parameters() if id(p) not in held)
    return others + sum(layer.in_features * layer.out_features for layer in packed)


def _resident() -> int:
    return int(psutil.Process().memory_info().rss)
