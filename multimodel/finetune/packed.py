"""Linear layers on a processor with their weights packed once, for answers only.

PyTorch multiplies float32 by MKL, which packs a matrix anew at each call and on AMD leaves half of the processor idle;
oneDNN, which it has inside too, takes weights packed beforehand and uses the widest instructions there are.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

PLAIN = frozenset(
    {"distilbert", "bert", "roberta", "xlm-roberta", "camembert", "electra", "mpnet", "albert", "modernbert"}
)
"""Encoders that do nothing with a linear layer but call it; others, as DeBERTa, may cut its weights up."""
NARROW = 64  # outputs below which packing costs more than it saves
TYPICAL = 1024  # rows of a product, for which the packing is chosen; it fits any number


class PackedLinear(nn.Module):
    """A linear layer (..., inputs) to (..., outputs) in float32; equal to the one it is made of but for rounding."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach()
        self._bias = None if linear.bias is None else linear.bias.detach()
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight, TYPICAL)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """See the class."""
        found: torch.Tensor = torch.ops.mkldnn._linear_pointwise(rows, self._packed, self._bias, "none", [], "")
        return found


def pack(model: Any) -> Any:
    """The model with its linear layers packed, where that is possible; it can only answer from then on.

    The weights of a layer are given back as it is packed, so memory stays as it was.
    """
    library: Any = torch.backends.mkldnn
    possible = library.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    if not possible or model.device.type != "cpu" or model.config.model_type not in PLAIN:
        return model
    for part in list(model.modules()):
        for name, child in part.named_children():
            if type(child) is nn.Linear and child.out_features >= NARROW and child.weight.dtype == torch.float32:
                setattr(part, name, PackedLinear(child))
    return model
