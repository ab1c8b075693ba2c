"""What steps of a world model by compiled kernels need: see `native.c`.

The steps go forwards, and their gradients backwards, over arrays that stay in their place. Weights
are taken over once for all steps, and their gradients are one product over all of them.

Letters in shapes: B robots, H steps, D any.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bm_envs.learning.compiled import (
    PARTS,
    STEPS_FIELDS,
    Matrix,
    Steps,
    TreeTables,
    kernels,
    lanes,
    sizes_with,
)
from bm_envs.learning.kinematics import local_bodies
from bm_envs.learning.layers import Layers, sizes_of
from bm_envs.learning.networks import Network
from bm_envs.learning.parts import is_symmetric
from bm_envs.learning.world_model import (
    CONTACT_DEPTH,
    SOLE,
    SOLE_RADIUS,
    State,
    WorldModel,
)
from bm_envs.policy import OBS_SCALE_EPS
from bm_envs.tasks.track.config import CONTROL_DT


class Work:
    """Room for H steps of B robots in a model, with the values that their gradient needs."""

    def __init__(self, model: WorldModel, steps: int, batch: int, *, learns: bool) -> None:
        """Room for one model's sizes and precision; `learns`: its weights get a gradient."""
        library: Any = kernels(model.robot)
        assert library is not None
        self.library = library
        self.steps, self.batch, self.lanes = steps, batch, lanes(model.robot)
        sizes = sizes_with(model.robot.num_joints)
        self.blocks = -(-batch // self.lanes)
        self.dtype = torch.bfloat16 if model.use_bfloat16 else torch.float32
        self.model = Layers(
            library, model.network, model.linear, steps, batch, self.dtype, learns=learns,
            behind=sizes.targets,
        )  # fmt: skip
        self._tables, self._kept = TreeTables(local_bodies(model.robot), model.robot), {}
        self.native = Steps(batch=batch, blocks=self.blocks, steps=steps, local=self._tables.tree)
        self.set(
            soles=SOLE.like(torch.zeros(1)).contiguous(), dt=CONTROL_DT, per_dt=1 / CONTROL_DT,
            late=model.late, sole_radius=SOLE_RADIUS, per_depth=1 / CONTACT_DEPTH,
            states=self.room(steps + 1, sizes.state), state_grads=self.room(steps + 1, sizes.state),
            rates=self.room(steps, sizes.outputs), model_sides=self.model.before.native,
            rate_sides=self.model.after.native,
            model_in=self.model.inputs, model_in_grad=self.model.inputs_grad,
            last_out=self.model.out, linear_out=self.model.beside,
            out_grad=self.model.out_grads, beside_grad=self.model.beside_grads,
        )  # fmt: skip
        self.at = ctypes.addressof(self.native)

    def room(self, steps: int, numbers: int) -> Tensor:
        """Numbers of all robots, as the kernels have them."""
        room = torch.zeros(steps, self.blocks, numbers, self.lanes)
        assert room.data_ptr() % (4 * self.lanes) == 0  # torch's arrays begin at a cache line
        return room

    def set(self, **values: Any) -> None:
        """Give the kernels numbers and arrays, which are kept as long as they may be read."""
        for name, value in values.items():
            self._kept[name] = value
            if isinstance(value, list):  # a tensor for each part
                value = (Matrix * 2)(*map(Matrix.of, value))
            elif isinstance(value, Tensor):
                value = Matrix.of(value) if STEPS_FIELDS[name] is Matrix else value.data_ptr()
            setattr(self.native, name, value)

    def begin(self, model: WorldModel, start: State, build: Tensor) -> None:
        """Take over the model as it is, and states and build `[B, ...]` of robots that start."""
        self.model.arrange(model.network, model.linear)
        mean, inverse = scaling(model.network)
        bias = last_bias(model.network) + last_bias(model.linear)
        self.set(
            model_mean=mean, model_inverse=inverse, out_scale=model.scale.clone(), out_bias=bias
        )
        self.set(build=build.contiguous())
        self._start = [part.flatten(1).contiguous() for part in start]
        self.native.starts = (Matrix * PARTS)(*map(Matrix.of, self._start))


def scaling(network: Network) -> tuple[Tensor, Tensor]:
    """Mean of the inputs, and the inverse of what they are divided by. `[D]` each."""
    return network.obs_mean.clone(), 1 / (network.obs_var.sqrt() + OBS_SCALE_EPS)


def last_bias(network: Network) -> Tensor:
    """Of the last layer, as it is now. `[D]`."""
    return network.get_parameter(f"layers.{len(network.layers) - 1}.bias").detach().clone()


class Pool:
    """Work that nobody uses. A gradient needs what its steps left, so that it must have its own."""

    def __init__(self) -> None:
        self._free: dict[Any, list[Any]] = {}

    def take(self, key: Any, make: Callable[[], Any]) -> Any:
        """Work of the sizes that `key` says, which is made where there is none."""
        free = self._free.setdefault(key, [])
        return free.pop() if free else make()

    def give_back(self, key: Any, work: Any) -> None:
        """The gradient has been computed."""
        self._free[key].append(work)


def is_known(network: Network, inputs: int, outputs: int) -> bool:
    """Whether the kernels know this network."""
    weight, sizes = network.get_parameter("layers.0.weight"), sizes_of(network)
    return (
        network.activation_name == "elu" and weight.dtype == torch.float32
        and weight.device.type == "cpu" and (sizes[0], sizes[-1]) == (inputs, outputs)
    )  # fmt: skip


def kind_of(model: WorldModel) -> Any:
    """What work with a model depends on, beside the number of steps and robots."""
    symmetric = is_symmetric(model.network) and is_symmetric(model.linear)
    return (
        sizes_of(model.network), symmetric, model.use_bfloat16, model.late, lanes(model.robot),
        model.robot,
    )  # fmt: skip


def is_known_model(model: WorldModel) -> bool:
    """Whether the kernels know this model."""
    sizes = sizes_with(model.robot.num_joints)
    return type(model) is WorldModel and is_known(model.network, sizes.inputs, sizes.outputs)
