"""Processes and threads of a training: those of a `torchrun`, and one that learns meanwhile."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from bm_envs import cli
from bm_envs.errors import ConfigError

MOST_PROCESSES = 100_000


def _from_environment(name: str, default: int, low: int, high: int) -> int:
    text = os.environ.get(name, str(default))
    if not (text.strip().isdecimal() and len(text) < 20 and low <= int(text) <= high):
        raise ConfigError(
            f"The environment's {name} is '{text[:60]}', expected a whole number of {low} to "
            f"{high}; torchrun sets it, and without torchrun it should not be set."
        )
    return int(text)


class Processes:
    """The processes of a `torchrun`, of which this is one; without it, this one alone."""

    def __init__(self) -> None:
        self.count = _from_environment("WORLD_SIZE", 1, 1, MOST_PROCESSES)
        self.rank = _from_environment("RANK", 0, 0, self.count - 1)
        self._collecting: Any = None
        self._learning: Any = None
        if self.count > 1:
            _from_environment("MASTER_PORT", 0, 0, 65535)
            try:
                with cli.signals_end_at_once():  # it waits for the others, for many minutes
                    dist.init_process_group("gloo")
            except (OSError, RuntimeError, ValueError) as error:
                # PyTorch's own has several lines; the first says what it is.
                said = str(error).strip().splitlines()[0].rstrip(".")[:300]
                raise ConfigError(
                    f"Process {self.rank} of {self.count} does not find the others at "
                    f"{os.environ.get('MASTER_ADDR', 'MASTER_ADDR, which is not set,')} port "
                    f"{os.environ.get('MASTER_PORT', 'MASTER_PORT, which is not set')} ({said}); "
                    "start them with torchrun, and with another --master-port if that one is taken."
                ) from None
            # Two threads must not share a group; the learner talks from one of its own. The group
            # of all is left alone: PyTorch keeps it to the end, and a thread of a group that still
            # lets go of a tensor while the interpreter ends takes the process down.
            self._collecting, self._learning = dist.new_group(), dist.new_group()

    def average(self, *tensors: Tensor) -> None:
        """Replace the learner's tensors by their means over the processes, in one message."""
        self._average(self._learning, tensors)

    def average_gradients(self, *networks: nn.Module) -> None:
        """The same for the gradients of networks, in one message for all."""
        if self.count > 1:
            parameters = (value for network in networks for value in network.parameters())
            self.average(*(value.grad for value in parameters if value.grad is not None))

    def average_statistics(self, *arrays: np.ndarray) -> None:
        """The same for arrays of the collecting thread."""
        self._average(self._collecting, [torch.from_numpy(array) for array in arrays])

    def _average(self, group: Any, tensors: Sequence[Tensor]) -> None:
        if self.count == 1:
            return
        message = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(message, group=group)
        message /= self.count
        sizes = [tensor.numel() for tensor in tensors]
        for tensor, value in zip(tensors, message.split(sizes), strict=True):
            tensor.copy_(value.view_as(tensor))

    def broadcast(self, value: Any) -> Any:
        """What the first process holds for `value`."""
        if self.count == 1:
            return value
        message = [value]
        dist.broadcast_object_list(message, group=self._collecting)
        return message[0]

    def gather(self, value: Any) -> list[Any]:
        """`value` of all processes in order, for the first; an empty list for the others."""
        if self.count == 1:
            return [value]
        values = [None] * self.count if self.rank == 0 else None
        dist.gather_object(value, values, group=self._collecting)
        return values or []

    def close(self) -> None:
        """Leave together."""
        if self.count > 1:
            dist.barrier(group=self._collecting)
            dist.destroy_process_group()
            self._collecting = self._learning = None  # ends their threads


LEARNER_NICE = 4  # by how much the learner's thread stands back behind physics
SWITCH_S = 0.0005  # between turns of Python's threads; its 5 ms would be a quarter of a step


def learner_thread(threads: int) -> ThreadPoolExecutor:
    """One thread that learns while the caller's steps the robots.

    Physics comes first, and this one fills what it leaves idle: each half of the robots is stepped
    by a thread of its own, and the step ends with the slower.

    Args:
        threads: CPU threads that the learner may use.
    """
    return ThreadPoolExecutor(1, initializer=_stand_back, initargs=(threads,))


def _stand_back(threads: int) -> None:
    sys.setswitchinterval(SWITCH_S)
    torch.set_num_threads(threads)
    if sys.platform == "linux":  # where a thread has a priority of its own
        os.nice(LEARNER_NICE)
