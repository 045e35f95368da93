"""What we use of llama.cpp, as Python objects: a model, a context with its KV cache, a sampler.

The functions of llama_cpp are the C library's own; `include/llama.h` documents them. Nothing here is thread-safe.
"""

from __future__ import annotations

import ctypes
import re
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import llama_cpp as native
import numpy as np
from llama_cpp.llama_chat_format import Jinja2ChatFormatter
from numpy.typing import NDArray

from ..errors import BrokenFile, InvalidParameter, NotEnoughMemory
from ..folder import mend
from ..memory.context import ContextSettings, flash_attention
from ..tools import Tools, template_form
from ..types import LoadOptions, Message, SamplingParams
from .constraint import Mask, Vocabulary
from .protocol import MEMORY_HINT, says_out_of_memory

BATCH = 512  # tokens a forward pass takes at most
FEW = 8  # a sequence that fills less than this part of its room is copied quicker token by token: measured, 85M at 4096
CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])  # llama_token_data
DOWNLOAD_AGAIN = "Download the file again."
MEANINGS = {
    "vocabulary|tokenizer": "its tokenizer is missing or does not fit",
    "file bounds|incomplete": "it is not complete",
    "tensor": "a part of it is missing or does not fit",
}
"""What a word in an error of a load means, the first that is found."""
ERROR = 4  # llama.cpp's log levels: 1 debug, 2 info, 3 warning, 4 error, 5 continues the line before

_said: deque[str] = deque(maxlen=8)


def _keep(level: int, text: bytes, data: ctypes.c_void_p) -> None:
    if level == ERROR:
        _said.append(text.decode("utf-8", "replace").strip())


_keep_for_c = native.llama_log_callback(_keep)  # lives as long as the module: C holds no reference


def last_words() -> str:
    """The first error llama.cpp logged since it was last asked for something; empty where it logged none."""
    return _said[0] if _said else ""


def explained(said: str) -> str:
    """What an error of llama.cpp means, where it is known, before its own words.

    >>> explained("llama_model_load: error loading model: check_tensor_dims: tensor 'output.weight' not found")
    "a part of it is missing or does not fit. llama.cpp says: check_tensor_dims: tensor 'output.weight' not found"
    """
    own = said.removeprefix("llama_model_load: error loading model: ")
    known = next((means for pattern, means in MEANINGS.items() if re.search(pattern, own)), None)
    return f"{known}. llama.cpp says: {own}" if known else own


def device() -> str:
    """Where layers are computed: "gpu" where this build of llama.cpp has one, else "cpu"."""
    return "gpu" if native.llama_supports_gpu_offload() else "cpu"


class Model:
    """The weights and the vocabulary of one GGUF file."""

    def __init__(
        self,
        path: Path,
        gpu_layers: int,
        progress: Callable[[float], None],
        template: str | None = None,
        *,
        mapped: bool = True,
    ) -> None:
        """Load it; `gpu_layers` below zero means all, `template` stands in for the model's own.

        `mapped`: the weights stay in the file, in pages that leave memory when it gets short; else they are read.
        Raises BrokenFile, NotEnoughMemory.
        """
        self._template = template
        native.llama_backend_init()
        native.llama_log_set(_keep_for_c, ctypes.c_void_p(0))
        params = native.llama_model_default_params()
        params.n_gpu_layers = gpu_layers
        params.load_mode = native.LLAMA_LOAD_MODE_MMAP if mapped else native.LLAMA_LOAD_MODE_NONE
        params.use_extra_bufts = not _has_amx()
        params.progress_callback = tell = native.llama_progress_callback(_going_on(progress))
        _said.clear()
        handle = native.llama_model_load_from_file(str(path).encode(), params)
        del tell  # kept until here: C holds no reference
        if not handle and says_out_of_memory(last_words()):
            raise NotEnoughMemory(f"There is no room for {path.name}: {last_words()}", hint=MEMORY_HINT)
        if not handle:
            raise BrokenFile(f"{path.name} cannot be loaded: {explained(last_words())}", hint=mend(path))
        self.handle = handle
        self.vocab = native.llama_model_get_vocab(handle)
        self._pieces: dict[int, bytes] = {}

    @cached_property
    def template(self) -> str | None:
        """The chat template: the one in the file, unless another was given."""
        if self._template is not None:
            return self._template
        text = native.llama_model_chat_template(self.handle, None)
        return text.decode("utf-8", "replace") if text else None

    @cached_property
    def _formatter(self) -> Callable[..., Any]:
        return Jinja2ChatFormatter(self.template or "", self.text(self.eos), self.text(self.bos))

    def apply_template(self, messages: Sequence[Message], tools: Tools = None) -> str:
        """What the model's own template makes of a conversation. Compiling and running it may raise, or never end."""
        return str(self._formatter(messages=[template_form(message) for message in messages], tools=tools).prompt)

    @cached_property
    def vocab_size(self) -> int:
        return int(native.llama_vocab_n_tokens(self.vocab))

    def fact(self, name: str) -> str:
        """What the file says of its architecture under `name`, for example rope.scaling.type; empty where nothing."""
        return self._meta(f"{self._meta('general.architecture')}.{name}")

    def _meta(self, key: str, room: int = 256) -> str:
        buffer = ctypes.create_string_buffer(room)
        found = native.llama_model_meta_val_str(self.handle, key.encode(), buffer, room)
        return buffer.value.decode("utf-8", "replace") if found >= 0 else ""

    @cached_property
    def train_context(self) -> int:
        return int(native.llama_model_n_ctx_train(self.handle))

    @cached_property
    def window(self) -> int:
        """Tokens that sliding-window attention looks back; 0 where all are seen."""
        return int(native.llama_model_n_swa(self.handle))

    @cached_property
    def rewinds(self) -> bool:
        """Whether tokens can be taken back out of its cache: it has no running state, and no window that moves on."""
        handle = self.handle
        runs = native.llama_model_is_recurrent(handle) or native.llama_model_is_hybrid(handle)
        return not (runs or self.window)

    @cached_property
    def generates(self) -> bool:
        """Whether it continues text: not an embedding model, an encoder-decoder or a diffusion model."""
        handle = self.handle
        odd = native.llama_model_has_encoder(handle) or native.llama_model_is_diffusion(handle)
        return bool(native.llama_model_has_decoder(handle) and not odd)

    @cached_property
    def parameters(self) -> int:
        return int(native.llama_model_n_params(self.handle))

    @cached_property
    def cache_bytes(self) -> int:
        """Memory of the KV cache for one token, in the default F16; more than it takes where attention is special."""
        handle = self.handle
        head = native.llama_model_n_embd(handle) // max(1, native.llama_model_n_head(handle))
        return int(2 * 2 * native.llama_model_n_layer(handle) * native.llama_model_n_head_kv(handle) * head)

    @cached_property
    def format(self) -> str:
        """How the weights are stored, for example Q8_0 or "Q4_K - Medium"."""
        buffer = ctypes.create_string_buffer(256)
        native.llama_model_desc(self.handle, buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace").split(" ", 2)[-1]

    @cached_property
    def specials(self) -> tuple[str, ...]:
        """The texts of the tokens that steer the model, such as the end of a turn."""
        control = (t for t in range(self.vocab_size) if native.llama_vocab_is_control(self.vocab, t))
        return tuple(self.text(t) for t in control)

    @cached_property
    def bos(self) -> int:
        return int(native.llama_vocab_bos(self.vocab))

    @cached_property
    def eos(self) -> int:
        return int(native.llama_vocab_eos(self.vocab))

    @cached_property
    def adds_bos(self) -> bool:
        """Whether a prompt of this model begins with BOS, whatever its template says."""
        return bool(native.llama_vocab_get_add_bos(self.vocab)) and self.bos >= 0

    def text(self, token: int) -> str:
        """The name of a token in the vocabulary; empty for none."""
        name = native.llama_vocab_get_text(self.vocab, token) if token >= 0 else None
        return name.decode("utf-8", "replace") if name else ""

    def ends(self, token: int) -> bool:
        """Whether the model ends its turn with this token."""
        return bool(native.llama_vocab_is_eog(self.vocab, token))

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens; U+FFFD stands for half a character. A control token has none."""
        return b"".join(map(self.piece, tokens)).decode("utf-8", "replace")

    def piece(self, token: int) -> bytes:
        """The bytes of a token; a control token has none."""
        known = self._pieces.get(token)
        if known is None:
            known = self._pieces[token] = self._bytes(token)
        return known

    def name(self, token: int) -> bytes:
        """The same, but a control token has its name."""
        return self.piece(token) or self.text(token).encode()

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """All tokens, for a grammar."""
        tokens = range(self.vocab_size)
        return Vocabulary([self.piece(token) for token in tokens], filter(self.ends, tokens))

    def tokens(self, text: str) -> list[int]:
        """The tokens of a rendered prompt, with exactly one BOS where the model wants one."""
        found = self._tokenize(text.encode("utf-8", "replace"))
        while found[:2] == [self.bos, self.bos]:
            found = found[1:]
        return [self.bos, *found] if self.adds_bos and found[:1] != [self.bos] else found

    def close(self) -> None:
        native.llama_model_free(self.handle)

    def _bytes(self, token: int, room: int = 64) -> bytes:
        buffer = ctypes.create_string_buffer(room)
        length = native.llama_token_to_piece(self.vocab, token, buffer, room, 0, False)
        return buffer.raw[:length] if length >= 0 else self._bytes(token, -length)

    def _tokenize(self, text: bytes) -> list[int]:
        room = len(text) + 16  # a token is at least a byte, but for a leading space some vocabularies add
        buffer = (native.llama_token * room)()
        count = native.llama_tokenize(self.vocab, text, len(text), buffer, room, False, True)
        return list(buffer[:count])


class Context:
    """A KV cache of `sequences` conversations of up to `length` tokens each, and the batch that fills it.

    Every sequence has a cache of its own: in a common one, attention also walks over the tokens of the others.
    """

    def __init__(
        self, model: Model, length: int, sequences: int, threads: int, options: LoadOptions = LoadOptions()
    ) -> None:
        """Raises NotEnoughMemory, InvalidParameter where positions cannot be scaled, BrokenFile for the adapter."""
        kv_type = options.kv_type or "f16"
        settings = ContextSettings(
            length=length,
            sequences=sequences,
            batch_tokens=BATCH,
            kv_type=kv_type,
            flash_attention=flash_attention("cuda" if device() == "gpu" else "cpu", kv_type, options.flash_attention),
        )
        self.flash_attention = settings.flash_attention
        params = native.llama_context_default_params()
        for name, value in (settings.params() | _rope(model, options)).items():
            setattr(params, name, value)
        params.n_threads = params.n_threads_batch = threads
        _said.clear()
        handle = native.llama_init_from_model(model.handle, params)
        if not handle:
            hint = "Choose a shorter context length, or close other models."
            raise NotEnoughMemory(f"There is no room for a context of {length} tokens. {last_words()}", hint=hint)
        self.handle = handle
        if options.adapter:
            self._adapt(model, Path(options.adapter).expanduser(), options.adapter_scale)
        self._room = length
        self._vocab_size = model.vocab_size
        self._rewinds = model.rewinds
        self._memory = native.llama_get_memory(handle)
        self._moving = False  # whether llama.cpp has copies to make before the next batch
        self._batch = native.llama_batch_init(BATCH, 0, 1)

    def _adapt(self, model: Model, path: Path, scale: float) -> None:
        """Have a LoRA adapter in every forward pass."""
        if not path.is_file():
            hint = "Convert an adapter of peft with convert_lora_to_gguf.py of llama.cpp."
            raise BrokenFile(f"{path} is not a file: an adapter for a GGUF model is one, too.", hint=hint)
        _said.clear()
        adapter = native.llama_adapter_lora_init(model.handle, str(path).encode())
        if not adapter:
            hint = "Choose the adapter that was made for this model."
            raise BrokenFile(f"{path.name} is not an adapter of this model: {last_words()}", hint=hint)
        one = (native.llama_adapter_lora_p_ctypes * 1)(adapter)
        native.llama_set_adapters_lora(self.handle, one, 1, (ctypes.c_float * 1)(scale))

    def clear(self) -> None:
        """Begin a new batch."""
        self._batch.n_tokens = 0

    def add(self, tokens: Sequence[int], position: int, sequence: int, *, want_logits: bool) -> int:
        """Put tokens into the batch; returns the index of the last one, whose logits are kept where wanted."""
        batch = self._batch
        start: int = batch.n_tokens
        for i, token in enumerate(tokens):
            at = start + i
            batch.token[at], batch.pos[at], batch.logits[at] = token, position + i, 0
            batch.n_seq_id[at], batch.seq_id[at][0] = 1, sequence
        batch.n_tokens = start + len(tokens)
        batch.logits[batch.n_tokens - 1] = want_logits
        return start + len(tokens) - 1

    def decode(self) -> None:
        """Evaluate the batch. Raises RuntimeError, and then every sequence is empty."""
        self._moving = False
        if code := int(native.llama_decode(self.handle, self._batch)):
            native.llama_memory_clear(self._memory, True)
            raise RuntimeError(f"llama.cpp could not evaluate the batch ({code}). {last_words()}")

    def logits(self, index: int) -> NDArray[np.float32]:
        """The logits of a batch index, shape (vocabulary,): a view that the next `decode` overwrites."""
        return np.ctypeslib.as_array(native.llama_get_logits_ith(self.handle, index), (self._vocab_size,))

    def logit(self, index: int, token: int) -> float:
        """One of them."""
        return float(native.llama_get_logits_ith(self.handle, index)[token])

    def cut(self, sequence: int, length: int) -> bool:
        """Keep the first `length` tokens of a sequence; False: this cache cannot, and the sequence is now empty.

        The running state of Mamba and the like only goes forward, and a sliding window may be gone.
        """
        kept = native.llama_memory_seq_rm(self._memory, sequence, length, -1)
        if kept and self.length(sequence) == length:
            return True
        native.llama_memory_seq_rm(self._memory, sequence, -1, -1)
        return False

    def copy(self, source: int, target: int) -> None:
        """Make an empty sequence equal to another.

        llama.cpp moves the room of a whole sequence, and only before the next batch; a few tokens are quicker carried
        by hand, at once. Those would be read too early or be overwritten while a move is still to come, and of a
        sliding window they come out wrong.
        """
        few = FEW * self.length(source) <= self._room
        if few and self._rewinds and not self._moving and self._carried(source, target):
            return
        native.llama_memory_seq_cp(self._memory, source, target, -1, -1)
        self._moving = True

    def _carried(self, source: int, target: int) -> bool:
        """Copy only what the sequence holds, by way of a buffer; False where llama.cpp cannot."""
        size = int(native.llama_state_seq_get_size(self.handle, source))
        buffer = (ctypes.c_uint8 * size)()
        held = native.llama_state_seq_get_data(self.handle, buffer, size, source)
        return bool(held and native.llama_state_seq_set_data(self.handle, buffer, held, target))

    def length(self, sequence: int) -> int:
        """Tokens of a sequence in the cache."""
        return int(native.llama_memory_seq_pos_max(self._memory, sequence)) + 1

    def first(self, sequence: int) -> int:
        """The oldest position still in the cache; above 0 only with sliding windows."""
        return int(native.llama_memory_seq_pos_min(self._memory, sequence))

    def set_threads(self, count: int) -> None:
        native.llama_set_n_threads(self.handle, count, count)

    def close(self) -> None:
        native.llama_batch_free(self._batch)
        native.llama_free(self.handle)


class Sampler:
    """A native chain: bias, penalties, top-k, top-p, min-p, temperature, then a draw; or the likeliest token."""

    def __init__(self, params: SamplingParams, model: Model, prompt: Sequence[int], context_length: int) -> None:
        """`prompt` counts as said for the repetition penalty, as in the other runtime."""
        self._changes = _chain(_changes(params, model.vocab_size, context_length, prompt))
        self.handle = _chain([self._changes, *_choice(params)])

    def sample(self, context: Context, index: int) -> int:
        """The next token, from the logits of a batch index."""
        return int(native.llama_sampler_sample(self.handle, context.handle, index))

    def draw(self, logits: NDArray[np.float32], mask: Mask | None) -> int:
        """A token from logits of shape (vocabulary,), where there is a mask one that it allows; not said yet."""
        candidates = _candidates(np.arange(len(logits)) if mask is None else np.flatnonzero(mask), logits)
        array = _applied(self.handle, candidates)
        return int(array.data[array.selected].id)

    def likeliest(self, logits: NDArray[np.float32], count: int) -> Sequence[int]:
        """So many tokens, likeliest first, with bias and penalties and before what narrows the choice."""
        candidates = _candidates(np.arange(len(logits)), logits)
        _applied(self._changes, candidates)
        found = candidates["logit"]
        best = np.argpartition(found, -min(count, len(found)))[-count:]
        order: list[int] = best[np.argsort(-found[best])].tolist()
        return order

    def say(self, token: int) -> None:
        """Count a drawn token as said."""
        native.llama_sampler_accept(self.handle, token)

    def close(self) -> None:
        native.llama_sampler_free(self.handle)


def _candidates(ids: NDArray[np.int64], logits: NDArray[np.float32]) -> NDArray[np.void]:
    found = np.zeros(len(ids), CANDIDATE)
    found["id"], found["logit"] = ids, logits[ids]
    return found


def _applied(sampler: native.llama_sampler_p, candidates: NDArray[np.void]) -> native.llama_token_data_array:
    """What a sampler makes of candidates, in their own memory."""
    data = candidates.ctypes.data_as(native.llama_token_data_p)
    array = native.llama_token_data_array(data, len(candidates), -1, False)
    native.llama_sampler_apply(sampler, ctypes.byref(array))
    return array


def _rope(model: Model, options: LoadOptions) -> dict[str, Any]:
    """The fields of the context's parameters that stretch positions. Raises InvalidParameter."""
    if not options.rope_scaling:
        return {}
    own = model.fact("rope.scaling.type")
    if own not in ("", "none") or native.llama_model_rope_type(model.handle) == native.LLAMA_ROPE_TYPE_NONE:
        why = f"are scaled already ({own})" if own else "are not rotary"
        raise InvalidParameter(f"The positions of this model {why}.", hint="Leave out rope_scaling.")
    kinds = {"linear": native.LLAMA_ROPE_SCALING_TYPE_LINEAR, "yarn": native.LLAMA_ROPE_SCALING_TYPE_YARN}
    return {
        "rope_scaling_type": kinds[options.rope_scaling],
        "rope_freq_scale": 1 / options.rope_factor,
        "yarn_orig_ctx": model.train_context,
    }


def _going_on(progress: Callable[[float], None]) -> Callable[[float, ctypes.c_void_p], bool]:
    def told(done: float, data: ctypes.c_void_p) -> bool:
        progress(done)
        return True  # False would end the loading

    return told


def _has_amx() -> bool:
    """Whether weights would be repacked for AMX tiles. Some compilers put the stores of the tile configuration behind
    the instruction that loads it, and the first prompt of a quantised model then ends the process with SIGSEGV."""
    return b"AMX_INT8 = 1" in native.llama_print_system_info()


def _chain(parts: Iterable[native.llama_sampler_p]) -> native.llama_sampler_p:
    """A sampler of several, which it frees with itself."""
    chain: native.llama_sampler_p = native.llama_sampler_chain_init(native.llama_sampler_chain_default_params())
    for part in parts:
        native.llama_sampler_chain_add(chain, part)
    return chain


def _changes(
    params: SamplingParams, vocab_size: int, context_length: int, prompt: Sequence[int]
) -> Iterable[native.llama_sampler_p]:
    if params.logit_bias:
        each = [native.llama_logit_bias(token, bias) for token, bias in params.logit_bias]
        biases = (native.llama_logit_bias * len(each))(*each)
        yield native.llama_sampler_init_logit_bias(vocab_size, len(biases), biases)
    if params.repetition_penalty not in (None, 1):
        penalty = native.llama_sampler_init_penalties(vocab_size, context_length, params.repetition_penalty, 0.0, 0.0)
        for token in prompt:
            native.llama_sampler_accept(penalty, token)
        yield penalty
    frequency, presence = params.frequency_penalty or 0.0, params.presence_penalty or 0.0
    if frequency or presence:
        yield native.llama_sampler_init_penalties(vocab_size, context_length, 1.0, frequency, presence)


def _choice(params: SamplingParams) -> Iterable[native.llama_sampler_p]:
    if not params.temperature:
        yield native.llama_sampler_init_greedy()
        return
    if params.top_k:
        yield native.llama_sampler_init_top_k(params.top_k)
    if params.top_p is not None and params.top_p < 1:
        yield native.llama_sampler_init_top_p(params.top_p, 1)
    if params.min_p:
        yield native.llama_sampler_init_min_p(params.min_p, 1)
    yield native.llama_sampler_init_temp(params.temperature)
    yield native.llama_sampler_init_dist(native.LLAMA_DEFAULT_SEED if params.seed is None else params.seed)
