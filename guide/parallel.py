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
    """A shared table with one row a process: its gradients and, in the last place, its clock."""

    rows: Tensor
    barrier: Barrier
    rank: int = 0

    @classmethod
    def create(cls, processes: int, parameters: int) -> Exchange:
        """Make the table in memory that all processes see."""
        barrier = torch.multiprocessing.get_context("spawn").Barrier(processes)
        return cls(torch.zeros(processes, parameters + 1).share_memory_(), barrier)

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
