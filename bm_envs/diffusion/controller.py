"""The loop that a diffusion model acts in: N robots' last states in, their next actions out."""

from __future__ import annotations

import functools
import warnings
from collections import deque
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal

import numpy as np

from bm_envs import policy as policy_files
from bm_envs.diffusion import sampler
from bm_envs.diffusion.model import GuidedModel
from bm_envs.diffusion.sampler import Guide, RollingSampler, Sample
from bm_envs.errors import BMWarning, ConfigError
from bm_envs.robots import g1
from bm_envs.rotations import quat_rotate_inverse
from bm_envs.tasks.guided.states import NOW, PAST, Frame, States, now_frame
from bm_envs.tasks.guided.streams import Streams

Method = Literal["full", "rolling"] | int
"""How a window is sampled: 20 calls, 15 with those of the last tick kept, or a number of DDIM."""


def one_blas_thread() -> AbstractContextManager[Any]:
    """NumPy's matrix products on one thread.

    Its further threads wait for work busily, on cores that the network's runtime and the physics
    want between two products; on two cores that makes a guided tick twice as long.
    """
    return _thread_pools().limit(limits=1, user_api="blas")


@functools.cache
def _thread_pools() -> Any:
    return policy_files.need("threadpoolctl").ThreadpoolController()


def method_of(name: str) -> Method:
    """A sampler by its name on a command line: `full`, `rolling`, or a number of DDIM calls.

    Raises:
        ConfigError: it is none of these.
    """
    if name == "full" or name == "rolling":
        return name
    if name.isdecimal() and 1 <= int(name) <= sampler.K:
        return int(name)
    raise ConfigError(
        f"sampler is '{name}', expected full, rolling or 1 to {sampler.K} DDIM calls."
    )


def feelings(states: States, last_action: np.ndarray, default_joint_pos: np.ndarray) -> np.ndarray:
    """What a decoder takes beside a latent, `[N, 93]`: the terms `policy.latent.ROBOT_TERMS`.

    Args:
        states: `[N, ...]`, with joints.
        last_action: `[N, 29]`, raw, the one before; 0 at the start.
        default_joint_pos: `[29]`, rad, of the model's drives.
    """
    assert states.joint_pos is not None and states.joint_vel is not None
    velocities = (
        quat_rotate_inverse(states.root_quat, value)
        for value in (states.root_lin_vel, states.root_ang_vel)
    )
    joints = states.joint_pos - default_joint_pos, states.joint_vel
    return np.concatenate([*velocities, *joints, last_action], 1).astype(np.float32)


class Controller:
    """A model in the loop of N robots: remembers their last states and gives their next actions.

    A model of latents plans latents. Its decoder makes an action of the latent that was planned for
    this step and of the newest state, so that a plan may be late while the action is not.

    Attributes:
        sample: the window of the last tick, in the network's numbers.
        frame: the now frame of that window, in the world.
    """

    sample: Sample
    frame: Frame

    def __init__(
        self, model: GuidedModel, num_envs: int, *, seed: int | Sequence[int] = 0,
        method: Method = "full", guide: Guide | None = None,
    ) -> None:  # fmt: skip
        """A controller without a past; call `reset` before the first `act`.

        Args:
            model: what to run.
            num_envs: N.
            seed: of the sampler's noise: one for the batch, or N, for each robot its own; then its
                noise does not depend on how many others there are.
            method: `full` (20 calls a tick), `rolling` (15), or a number of DDIM calls.
            guide: moves the estimate of the clean states in every call, as features of the model's
                representation, in float32; see `sampler.sample`.
        """
        self.model, self.num_envs, self.method, self.guide = model, num_envs, method, guide
        self._default_joint_pos = np.array(model.drives["default_joint_pos"], np.float32)
        many = isinstance(seed, Sequence)
        self._rng = Streams.seeded(seed) if many else np.random.default_rng(seed)
        self._past: States | None = None
        self._rolling = RollingSampler(self._denoise, model.action_size, guide=self._bounded)
        self._begin_latents()

    def _begin_latents(self) -> None:
        self._last_action = np.zeros((self.num_envs, g1.NUM_JOINTS), np.float32)
        self._planned: deque[np.ndarray] = deque()

    def reset(self, states: States) -> None:
        """Begin with robots that have been in `states [N, ...]` for a while."""
        self._past = States(
            *(np.repeat(value[:, None], PAST, 1) for value in states if value is not None)
        )
        self._rolling.reset()
        self._begin_latents()

    def act(self, states: States, *, ahead: int = 0) -> np.ndarray:
        """Raw actions `[N, 29]`, project order, for robots that are in `states [N, ...]` now.

        Call it once a control step: it takes the states for those one step after the last. With
        `ahead`, the actions planned for that many steps later, when they take that long to arrive.
        Of a model of latents, the actions of now by the latents that were planned so many steps
        ago; before there are any, by those of the first plan.
        """
        with one_blas_thread():
            self._draw(self.remember(states), PAST + ahead)
        planned = self.model.unscale_action(self.sample.actions[:, NOW + ahead])
        if self.model.decoder is None:
            return planned
        if not self._planned:
            first = self.model.unscale_action(self.sample.actions[:, NOW : NOW + ahead])
            self._planned.extend(first[:, i] for i in range(ahead))
        self._planned.append(planned)
        return self.decode(self._planned.popleft(), states)

    def decode(self, latent: np.ndarray, states: States) -> np.ndarray:
        """Raw actions `[N, 29]` of latents `[N, Z]`, for robots in `states [N, ...]`."""
        assert self.model.decoder is not None
        felt = feelings(states, self._last_action, self._default_joint_pos)
        self._last_action = self.model.decoder(np.concatenate([latent, felt], 1))
        return self._last_action

    def plan_from(self, past: States, count: int) -> np.ndarray:
        """Raw actions `[N, count, 29]` of now and of the control steps after it.

        For robots whose last states are `past [N, PAST, ...]`, the present one last; so it may be
        called at any time, and remembers nothing. Of a model of latents it gives latents.
        """
        self._past = past
        with one_blas_thread():
            self._draw(self._encoded(past), PAST + count - 1)
        return self.model.unscale_action(self.sample.actions[:, NOW : NOW + count])

    def _draw(self, past: np.ndarray, action_steps: int) -> None:
        """Sample the window that begins with `past [N, PAST, S]`, as the network has it."""
        if self.method == 1 and self.guide is not None:
            warnings.warn(
                "sampler 1 ignores guidance: the only call gives the actions before states are "
                "moved; use 2 calls or more.", BMWarning, stacklevel=3,
            )  # fmt: skip
        if self.method == "rolling":
            self.sample = self._rolling(past, self._rng)
            return
        steps = sampler.K if self.method == "full" else int(self.method)
        self.sample = sampler.sample(
            self._denoise, past, self.model.action_size, self._rng, steps=steps,
            guide=self._bounded, action_steps=action_steps,
        )  # fmt: skip

    def remember(self, states: States) -> np.ndarray:
        """Shift the states in; returns the past as the network has it, `[N, PAST, S]`."""
        if self._past is None:
            self.reset(states)
        assert self._past is not None
        self._past = States(
            *(
                np.concatenate([old[:, 1:], new[:, None]], 1)
                for old, new in zip(self._past, states, strict=True)
                if old is not None and new is not None
            )
        )
        return self._encoded(self._past)

    def _encoded(self, past: States) -> np.ndarray:
        self.frame = now_frame(past, NOW)
        features = self.model.representation.encode(past, NOW)
        return self.model.scale(features).astype(np.float32)

    def plan(self) -> States:
        """The states of the last window, past ones included, in the world. `[N, L, ...]`."""
        return self.model.representation.decode(self.model.unscale(self.sample.states), self.frame)

    def _denoise(self, *window: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        states, actions = self.model.denoise(*window)
        return states, self.model.bound_action(actions)

    def _bounded(self, states: np.ndarray, levels: np.ndarray) -> np.ndarray:
        return self.model.bound(states, self.guide, levels)
