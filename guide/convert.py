"""Write a trained network as safetensors with tokenizer and settings, and as GGUF.

`python -m guide.convert --f16 PATH` makes an F16 GGUF from the shipped safetensors, for exact comparisons.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM, PreTrainedModel

from guide.model import BOS, CONTEXT, END, PAD, SPECIAL

ASSETS = Path(__file__).resolve().parent.parent / "assets" / "guide"
HF_FOLDER = "hf"
GGUF_FILE = "guide-q8_0.gguf"
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'system' %}<|system|>{{ message['content'] }}<|end|>"
    "{% elif message['role'] == 'user' %}<|user|>{{ message['content'] }}<|end|>"
    "{% elif message['role'] == 'assistant' %}<|guide|>{{ message['content'] }}<|end|>"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|guide|>{% endif %}"
)
BLOCK_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a settings file that is readable in a diff."""
    path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


def save_hf(model: PreTrainedModel, tokenizer: Tokenizer, folder: Path) -> None:
    """Write what `transformers` needs; the output layer is tied and therefore left out."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = {name: tensor for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    halves = {name: tensor.detach().half().contiguous().clone() for name, tensor in kept.items()}
    weights = folder / "model.safetensors"
    save_file(halves, weights, metadata={"format": "pt"})
    weights.chmod(0o644)
    kind = {"architectures": [type(model).__name__], "model_type": model.config.model_type, "dtype": "float16"}
    write_json(folder / "config.json", {**model.config.to_diff_dict(), **kind})
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", tokenizer_config())
    ids = {"bos_token_id": SPECIAL.index(BOS), "eos_token_id": SPECIAL.index(END), "pad_token_id": SPECIAL.index(PAD)}
    write_json(folder / "generation_config.json", {**ids, "do_sample": False})


def tokenizer_config() -> dict[str, Any]:
    """Describe the special tokens; BOS is written by the chat template in both engines."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": END,
        "pad_token": PAD,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "model_max_length": CONTEXT,
    }


def gguf_name(name: str) -> str:
    """Translate a tensor name from transformers to llama.cpp."""
    whole = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
    if name in whole:
        return whole[name]
    _, _, block, *rest, _ = name.split(".")
    return f"blk.{block}.{BLOCK_NAMES['.'.join(rest)]}.weight"


def interleave(weight: np.ndarray, heads: int) -> np.ndarray:
    """Reorder rotary halves of queries and keys into the neighbouring pairs that llama.cpp rotates."""
    rows = weight.shape[0] // heads // 2
    return weight.reshape(heads, 2, rows, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def gguf_tensor(name: str, tensor: torch.Tensor, settings: dict[str, Any]) -> np.ndarray:
    """Return a tensor in the layout of llama.cpp."""
    weight = tensor.float().numpy()
    if "q_proj" in name:
        return interleave(weight, settings["num_attention_heads"])
    if "k_proj" in name:
        return interleave(weight, settings["num_key_value_heads"])
    return weight


def add_network(writer: gguf.GGUFWriter, settings: dict[str, Any]) -> None:
    """Describe the network."""
    heads = settings["num_attention_heads"]
    writer.add_name("guide")
    writer.add_license("MIT")
    writer.add_context_length(settings["max_position_embeddings"])
    writer.add_embedding_length(settings["hidden_size"])
    writer.add_block_count(settings["num_hidden_layers"])
    writer.add_feed_forward_length(settings["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(settings["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(settings["rms_norm_eps"])
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(settings["hidden_size"] // heads)
    writer.add_vocab_size(settings["vocab_size"])


def add_tokenizer(writer: gguf.GGUFWriter, tokenizer: dict[str, Any]) -> None:
    """Describe the tokenizer; tokens and merges are copied from the one of transformers."""
    vocabulary = tokenizer["model"]["vocab"]
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([control if token in SPECIAL else normal for token in tokens])
    writer.add_token_merges(
        [pair if isinstance(pair, str) else " ".join(pair) for pair in tokenizer["model"]["merges"]]
    )
    writer.add_bos_token_id(vocabulary[BOS])
    writer.add_eos_token_id(vocabulary[END])
    writer.add_pad_token_id(vocabulary[PAD])
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def add_weights(writer: gguf.GGUFWriter, folder: Path, settings: dict[str, Any], quantise: bool) -> None:
    """Add all tensors; norms stay exact because they are tiny."""
    q8 = gguf.GGMLQuantizationType.Q8_0
    for name, tensor in load_file(folder / "model.safetensors").items():
        weight = gguf_tensor(name, tensor, settings)
        if weight.ndim == 1:
            writer.add_tensor(gguf_name(name), weight.astype(np.float32))
        elif quantise:
            writer.add_tensor(gguf_name(name), gguf.quants.quantize(weight, q8), raw_dtype=q8)
        else:
            writer.add_tensor(gguf_name(name), weight.astype(np.float16))


def save_gguf(folder: Path, path: Path, quantise: bool = True) -> None:
    """Write a GGUF file from a saved folder, as Q8_0 or as F16."""
    settings = json.loads((folder / "config.json").read_text("utf-8"))
    writer = gguf.GGUFWriter(str(path), "llama")
    add_network(writer, settings)
    kind = gguf.LlamaFileType.MOSTLY_Q8_0 if quantise else gguf.LlamaFileType.MOSTLY_F16
    writer.add_file_type(kind)
    add_tokenizer(writer, json.loads((folder / "tokenizer.json").read_text("utf-8")))
    add_weights(writer, folder, settings, quantise)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@torch.no_grad()
def round_matrices(model: LlamaForCausalLM) -> None:
    """Round the matrices to what Q8_0 can hold, so that both forms of the model have the same weights."""
    q8 = gguf.GGMLQuantizationType.Q8_0
    for matrix in (parameter for parameter in model.parameters() if parameter.ndim == 2):
        held = gguf.quants.dequantize(gguf.quants.quantize(matrix.numpy(), q8), q8)
        matrix.copy_(torch.from_numpy(held))


def save_all(model: LlamaForCausalLM, tokenizer: Tokenizer, folder: Path) -> None:
    """Write both forms of the model."""
    round_matrices(model)
    save_hf(model, tokenizer, folder / HF_FOLDER)
    save_gguf(folder / HF_FOLDER, folder / GGUF_FILE)


def main() -> None:
    """Convert the shipped safetensors to an F16 GGUF."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--f16", type=Path, required=True, help="where to write the F16 GGUF")
    parser.add_argument("--model", type=Path, default=ASSETS / HF_FOLDER, help="folder with model.safetensors")
    arguments = parser.parse_args()
    save_gguf(arguments.model, arguments.f16, quantise=False)


if __name__ == "__main__":
    main()
