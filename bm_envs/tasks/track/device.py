"""Robots that track on the engine's own device: torch tensors, and no robot waits for the host.

`TrackTask` does the work, for all robots under masks, so that a control step is the same sequence
of kernels whatever happens in it. On a GPU it is captured once, physics and task together, and
replayed as one CUDA graph. Draws are the device's own, so that a seed gives other episodes there.

Episodes end and begin in the same step, as with `autoreset_mode="same_step"`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bm_envs.arrays import EVERYONE
from bm_envs.backends.base import Simulator, make_simulator
from bm_envs.errors import ConfigError
from bm_envs.motion.clip import Clip
from bm_envs.tasks.track.config import TrackConfig
from bm_envs.tasks.track.task import TrackTask

WARM_UP = 3  # steps before a capture, in which all kernels are loaded and all memory is taken


@dataclass
class DeviceStep:
    """What one step did. Tensors of the environment, overwritten by the next step."""

    obs: Tensor
    """`[N, O]`, of the episode that goes on or has just begun."""
    critic_obs: Tensor
    """`[N, C]`, likewise."""
    reward: Tensor
    """`[N]`."""
    values: Tensor
    """`[N, R]`, the signed terms whose sum the reward is."""
    terminated: Tensor
    """`[N]` bool."""
    truncated: Tensor
    """`[N]` bool."""
    final_critic_obs: Tensor
    """`[N, C]`, of the episode that the step belonged to; of an ended one the last."""


def _of_task(name: str) -> property:
    """What the task has by that name."""
    return property(lambda self: getattr(self.task, name), doc=f"See `TrackTask.{name}`.")


class DeviceTrack:
    """N robots of an engine with torch tensors, tracking one or several clips.

    Attributes:
        task: the tracking task; its arrays are tensors on `device`, some of which are here, too.
        generator: source of every draw.
        scale: `[29]`, rad per unit of action.
    """

    clip_id = _of_task("clip_id")
    frame = _of_task("frame")
    episode_step = _of_task("episode_step")
    action = _of_task("action")
    default_joint_pos = _of_task("default_joint_pos")
    reference = _of_task("reference")
    sampler = _of_task("sampler")
    # Tensors without axes, which may be filled.
    disturbance = _of_task("disturbance")
    failure_distance_scale = leash = _of_task("failure_distance_scale")

    def __init__(
        self, num_envs: int, clips: Sequence[Clip], config: TrackConfig, *, seed: int,
        backend: str = "mujoco_warp", device: str | None = None,
    ) -> None:  # fmt: skip
        """Robots in no particular state; call `reset` first.

        Raises:
            ConfigError: the engine's arrays are NumPy's.
            BackendUnavailable: as `make_simulator`.
        """
        self.task = task = TrackTask(clips, config, num_envs)
        settings = dataclasses.replace(task.simulator_config(), device=device)
        self.simulator: Simulator = make_simulator(backend, settings)
        if not isinstance(self.simulator.root_pos, Tensor):
            raise ConfigError(f"backend is '{backend}', expected one whose arrays are torch's.")
        task.attach(self.simulator)
        self.config, self.num_envs = config, num_envs
        self.device = on = self.simulator.root_pos.device
        self.generator = torch.Generator(on).manual_seed(seed)
        self.scale = torch.tensor(task.action_scale, device=on)

        def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(num_envs, *shape, dtype=dtype, device=on)

        self._action_in = torch.zeros_like(task.action)
        self._out = DeviceStep(
            obs=zeros(task.observation_size), critic_obs=zeros(task.critic_size), reward=zeros(),
            values=zeros(len(task.reward_names)), terminated=zeros(dtype=torch.bool),
            truncated=zeros(dtype=torch.bool), final_critic_obs=zeros(task.critic_size),
        )  # fmt: skip
        self._graph: torch.cuda.CUDAGraph | None = None
        # Isaac Lab captures its physics itself, and not into a graph of ours.
        self._can_capture = self.device.type == "cuda" and hasattr(self.simulator, "capturing")
        self._steps = 0

    # --- what users call ------------------------------------------------------------------------

    def reset(self) -> tuple[Tensor, Tensor]:
        """Begin anew with every robot; observations of policy `[N, O]` and critic `[N, C]`."""
        self.task.startup(self.generator)
        self.task.reset(torch.ones_like(self._out.terminated), self.generator)
        self._observe()
        return self._out.obs, self._out.critic_obs

    @torch.no_grad()
    def step(self, action: Tensor) -> DeviceStep:
        """Apply raw actions `[N, 29]` to all robots, and begin anew with those that have ended."""
        self._action_in.copy_(action)
        if self._graph is None and self._can_capture and self._steps >= WARM_UP:
            self._graph = self._captured()
        if self._graph is None:
            self._step()
        else:
            self._graph.replay()
        self._steps += 1
        return self._out

    @torch.no_grad()
    def tracking_errors(self) -> dict[str, Tensor]:
        """`terms.tracking_errors` of the present states; robots that have just begun have none."""
        return self.task.tracking_errors()

    def close(self) -> None:
        """Free the engine's resources."""
        self._graph = None
        self.simulator.close()

    # --- state ---------------------------------------------------------------------------------

    def get_state(self) -> dict[str, np.ndarray]:
        """All that a continuation needs."""
        state = self.task.get_state()
        for name in ("obs", "critic_obs"):
            state[name] = getattr(self._out, name).cpu().numpy().copy()
        state["generator"] = self.generator.get_state().numpy()
        return state | {f"simulator.{k}": v for k, v in self.simulator.get_state().items()}

    def set_state(self, state: dict[str, np.ndarray]) -> tuple[Tensor, Tensor]:
        """Continue from what `get_state` returned; the observations of then."""
        prefix = "simulator."
        self.simulator.set_state(
            {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}
        )
        self.task.set_state(state)
        for name in ("obs", "critic_obs"):
            getattr(self._out, name).copy_(torch.from_numpy(state[name]))
        self.generator.set_state(torch.from_numpy(state["generator"]))
        return self._out.obs, self._out.critic_obs

    # --- a step, as kernels that never wait for the host ----------------------------------------

    def _captured(self) -> torch.cuda.CUDAGraph:
        """`_step` as a CUDA graph."""
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self.generator)
        capture = torch.cuda.graph(graph, capture_error_mode="thread_local")
        with capture, self.simulator.capturing():  # type: ignore[attr-defined]
            self._step()
        return graph

    def _step(self) -> None:
        """One step of `_action_in` into `_out`."""
        task, out = self.task, self._out
        result = task.step(self._action_in)
        for name in ("reward", "values", "terminated", "truncated"):
            getattr(out, name).copy_(getattr(result, name))
        done = out.terminated | out.truncated
        task.push(self.generator, ~done)
        out.final_critic_obs.copy_(_finite(task.critic_observation(EVERYONE)))
        task.reset(done, self.generator)
        self._observe()  # what robots that go on show is what it was

    def _observe(self) -> None:
        """Observations of all robots into `_out`, finite in any case."""
        policy, critic = self.task.observe(EVERYONE, self.generator)
        self._out.obs.copy_(_finite(policy))
        self._out.critic_obs.copy_(_finite(critic))


def _finite(values: Tensor) -> Tensor:
    return values.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
