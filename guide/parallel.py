"""Share training between processes of one thread each.

The matrices of so small a network are too small for threads: those of one process mostly wait for each
other. Processes that each take a batch of their own and only exchange gradients wait once a step.
"""

from __future__ import annotations

from dataclasses import dataclass
from threading import Barrier

import torch
from torch import Tensor, nn


@dataclass
class Exchange:
    """What the processes share.

    A table with one row a process, its gradients and in the last place its clock; and the weights, of which
    every process changes a part.
    """

    rows: Tensor
    weights: Tensor
    barrier: Barrier
    rank: int = 0

    @classmethod
    def create(cls, processes: int, parameters: int) -> Exchange:
        """Make the table in memory that all processes see."""
        barrier = torch.multiprocessing.get_context("spawn").Barrier(processes)
        table = torch.zeros(processes + 1, parameters + 1).share_memory_()
        return cls(table[:-1], table[-1], barrier)

    def part(self, tensors: list[nn.Parameter]) -> list[nn.Parameter]:
        """Choose the tensors that this process changes for all."""
        return tensors[self.rank :: len(self.rows)]

    @torch.no_grad()
    def gather(self, tensors: list[nn.Parameter]) -> None:
        """Take over what every process has changed in its part."""
        places = self.weights[: sum(tensor.numel() for tensor in tensors)].split([t.numel() for t in tensors])
        mine = set(map(id, self.part(tensors)))
        for tensor, place in zip(tensors, places, strict=True):
            if id(tensor) in mine:
                place.copy_(tensor.flatten())
        self.barrier.wait()
        for tensor, place in zip(tensors, places, strict=True):
            if id(tensor) not in mine:
                tensor.copy_(place.view_as(tensor))

    def average(self, model: nn.Module, seconds: float) -> float:
        """Replace the gradients by the mean of all processes and return the clock of the first.

        All processes follow one clock, because they must stop and slow down at the same step.
        """
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        self.rows[self.rank] = torch.cat([gradient.flatten() for gradient in gradients] + [torch.tensor([seconds])])
        self.barrier.wait()
        mean, clock = self.rows.mean(0), float(self.rows[0, -1])
        self.barrier.wait()
        parts = mean[:-1].split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))
        return clock
