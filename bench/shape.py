"""Write a model of any Llama shape with random weights, as safetensors and GGUF: `python -m bench.shape FOLDER`.

Beside it one of Qwen 3 and one of Phi 3 with the same sizes, as safetensors.

Its answers say nothing, but they cost what those of a trained model of this shape cost.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM, Phi3Config, Phi3ForCausalLM, PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from guide.convert import ASSETS, HF_FOLDER, save_gguf, save_hf
from guide.model import SPECIAL, config

SIZES = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "head_dim", "max_position_embeddings", "tie_word_embeddings", "rms_norm_eps"),
    *("bos_token_id", "eos_token_id", "pad_token_id"),
)


def write(folder: Path, hidden: int, layers: int, inner: int) -> None:
    """Write `hf/`, `qwen3/`, `phi3/` and `gguf/` under a folder, with the guide's tokenizer and chat template."""
    tokenizer = Tokenizer.from_file(str(ASSETS / HF_FOLDER / "tokenizer.json"))
    sizes = config(tokenizer.get_vocab_size(), hidden, layers, inner)
    same = {name: getattr(sizes, name) for name in SIZES}
    others = {"qwen3": (Qwen3ForCausalLM, Qwen3Config(**same)), "phi3": (Phi3ForCausalLM, Phi3Config(**same))}
    for name, (model, its) in ({"hf": (LlamaForCausalLM, sizes)} | others).items():
        torch.manual_seed(0)
        save_hf(_silent(model(its)), tokenizer, folder / name)
    (folder / "gguf").mkdir(exist_ok=True)
    save_gguf(folder / "hf", folder / "gguf" / f"{folder.name}-q8_0.gguf")
    save_gguf(folder / "hf", folder / "gguf" / f"{folder.name}-f16.gguf", quantise=False)


def _silent(model: PreTrainedModel) -> PreTrainedModel:
    """Without control tokens and half characters, which nobody would see."""
    with torch.no_grad():
        model.get_input_embeddings().weight[: len(SPECIAL) + 256] *= 0.01
    return model


def main(argv: list[str] | None = None) -> int:
    """Write the model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--hidden", type=int, default=768, help="default: 768, with the others 85M parameters")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--inner", type=int, default=2048)
    options = parser.parse_args(argv)
    write(options.folder, options.hidden, options.layers, options.inner)
    return 0


if __name__ == "__main__":
    sys.exit(main())
