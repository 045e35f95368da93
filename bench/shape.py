"""Write a model of any Llama shape with random weights, as safetensors and GGUF: `python -m bench.shape FOLDER`.

Its answers say nothing, but they cost what those of a trained model of this shape cost.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

from guide.convert import ASSETS, HF_FOLDER, save_gguf, save_hf
from guide.model import SPECIAL, config


def write(folder: Path, hidden: int, layers: int, inner: int) -> None:
    """Write `hf/` and `gguf/` under a folder, with the tokenizer and the chat template of the guide."""
    tokenizer = Tokenizer.from_file(str(ASSETS / HF_FOLDER / "tokenizer.json"))
    torch.manual_seed(0)
    model = LlamaForCausalLM(config(tokenizer.get_vocab_size(), hidden, layers, inner))
    with torch.no_grad():  # or it would answer with control tokens and half characters, which nobody sees
        model.model.embed_tokens.weight[: len(SPECIAL) + 256] *= 0.01
    save_hf(model, tokenizer, folder / "hf")
    (folder / "gguf").mkdir(exist_ok=True)
    save_gguf(folder / "hf", folder / "gguf" / f"{folder.name}-q8_0.gguf")
    save_gguf(folder / "hf", folder / "gguf" / f"{folder.name}-f16.gguf", quantise=False)


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
