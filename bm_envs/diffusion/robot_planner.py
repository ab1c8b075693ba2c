"""A guided model that plans for one robot outside the environments: last states in, actions out.

No simulator of the environments and no task of theirs is used. Costs, steering and the transforms
of states are those of `benchmarks/guided.py`, which was measured with them. Loading and running
needs ONNX Runtime and no torch.
"""

from __future__ import annotations

import numpy as np

from bm_envs.diffusion.controller import Controller, Method
from bm_envs.diffusion.errands import Errand, own_motion
from bm_envs.diffusion.feedback import Feedback, predicted_velocity
from bm_envs.diffusion.model import GuidedModel
from bm_envs.diffusion.sampler import Guide
from bm_envs.diffusion.steering import Steering, guide_by, steering_for
from bm_envs.errors import ConfigError
from bm_envs.robots import g1
from bm_envs.tasks.guided.states import NOW, PAST, Frame, States, now_frame, states_of

AHEAD = 4  # actions of a plan: of now and of three control steps after it


class RobotPlanner:
    """Plans for one robot; what `bm_envs.deploy.planned.Planner` describes.

    Attributes:
        name: of the model.
        errand: what the robot is asked for.
        past: states that a plan is made from.
        ahead: actions of a plan.
        steps: control steps, the stop at the end included.
        drives: of the model, `[29]` each.
        origin: yaw frame of where the robot was at its first plan.
    """

    origin: Frame

    def __init__(
        self, model: GuidedModel, errand: Errand, *, seed: int = 0, method: Method = 10,
        steering: Steering | None = None,
    ) -> None:  # fmt: skip
        """Make a planner, and plan once for a robot that stands: a first call takes longer.

        Args:
            model: what plans.
            errand: what the robot is asked for.
            seed: of the sampler's noise.
            method: `full` (20 calls of the network in a plan), or a number of DDIM calls.
            steering: None: what was chosen for the model's representation.

        Raises:
            ConfigError: the method is `rolling`, which needs a plan in every control step.
        """
        if method == "rolling":
            raise ConfigError(
                "sampler is 'rolling', expected 'full' or a number of calls: a plan may be left "
                "out, and rolling continues the one of the step before."
            )
        self._model, self._steering = model, steering_for(model, steering)
        self._controller = Controller(model, 1, seed=seed, method=method)
        self.name, self.errand, self.drives = model.name, errand, model.drives
        self.past, self.ahead, self.steps = PAST, AHEAD, errand.all_steps
        self._feedback: Feedback | None = None
        self._step = 0
        qpos = np.concatenate([(0, 0, 0.76, 1, 0, 0, 0), g1.DEFAULT_JOINT_POS])
        standing = _window(np.tile(qpos, (PAST, 1)), np.zeros((PAST, 35)))
        Controller(model, 1, method=method).plan_from(standing, AHEAD)

    def plan(self, qpos: np.ndarray, qvel: np.ndarray, step: int) -> np.ndarray:
        """Raw actions `[AHEAD, 29]` of control step `step` and of those after it, project order.

        Args:
            qpos: `[PAST, 36]` of the last control steps, the present one last.
            qvel: `[PAST, 35]`, likewise, as in `states_of`.
            step: which control step it is; steps may be left out.
        """
        past = _window(qpos, qvel)
        frame = now_frame(past, NOW)
        if self._feedback is None:
            self._feedback, self.origin = Feedback(self._steering, qvel[NOW:, :2]), frame
            self._step = step - 1
        # Of the control steps for which there was no plan, too.
        new = min(max(step - self._step, 1), PAST)
        self._step = step
        steady = np.ones(1)
        for k in range(PAST - new, PAST):
            steady = self._feedback.steady(qvel[k : k + 1, :2])
        self._controller.guide = self._guide(step, frame, steady)
        actions = self._controller.plan_from(past, AHEAD)[0]
        predicted = predicted_velocity(self._model, self._controller.sample)
        for k in range(PAST - new, PAST):
            self._feedback.observe(predicted, own_motion(qpos[k : k + 1], qvel[k : k + 1]))
        return actions

    def _guide(self, step: int, frame: Frame, steady: np.ndarray) -> Guide | None:
        assert self._feedback is not None
        if not self._steering.strength:
            return None
        cost = self.errand.cost(step, self.origin, frame, self._steering, steady)
        if cost is None:
            return None
        return guide_by(self._feedback.corrected(cost), self._model, self._steering)


def _window(qpos: np.ndarray, qvel: np.ndarray) -> States:
    """States `[1, PAST, ...]`."""
    return states_of(qpos[None], qvel[None])
