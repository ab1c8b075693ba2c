"""What the tracking task holds of its robots: all that changes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bm_envs.arrays import EVERYONE, NUMPY, Array, Arrays
from bm_envs.errors import ConfigError
from bm_envs.tasks.track.rows import J, Reference, Shown, row_size, shown_size

# Fields that are saved, and their names in saved states, which are those of version 0.1.
SAVED = {
    "clip_id": "clip_id", "frame": "frame", "episode_step": "episode_step", "action": "action",
    "last_action": "_last_action", "default_joint_pos": "default_joint_pos",
    "next_push": "_next_push", "stale_pos": "_stale_pos", "stale_axes": "_stale_axes",
}  # fmt: skip
# Likewise; only where actions are delayed.
SAVED_DELAYS = {"action_delay": "action_delay", "sent": "_sent"}
# Likewise; version 0.1 did not save it.
SAVED_LATER = {"build": "build"}
SAVED_SCALES = {"disturbance": "disturbance", "failure_distance_scale": "leash"}


BUILD = 4  # numbers of a robot's build


@dataclass(eq=False)
class State:
    """Arrays of N robots; they stay in place, so that others may hold on to them.

    The two scales are numbers where the arrays are NumPy's, and tensors without axes where they are
    torch's; `TrackTask` has properties that set them.
    """

    clip_id: Array
    """`[N]`, the clip that each robot plays."""
    frame: Array
    """`[N]`, the present frame t of the clip, with which the robot is compared."""
    first_row: Array
    """`[N]`, row of the clip's first frame in the tables."""
    last_frame: Array
    """`[N]`, the clip's last frame."""
    row: Array
    """`[N]`, row of the tables at the present frame."""
    reference: Reference
    """The reference at frame t."""
    shown: Shown
    """The reference at frame t + lead, which observations show."""
    episode_step: Array
    """`[N]`, control steps since the episode began."""
    next_push: Array
    """`[N]`, the `episode_step` at which the next push comes."""
    action: Array
    """`[N, J]`, raw, of the last step."""
    last_action: Array
    """`[N, J]`, of the step before."""
    older_action: Array
    """`[N, J]`, of the step before that; kept where a reward wants it, as the next."""
    last_joint_vel: Array
    """`[N, J]`, rad/s, before the last step."""
    default_joint_pos: Array
    """`[N, J]`, rad, joint targets of an action of zero, with each robot's own error."""
    build: Array
    """`[N, 4]`, what was drawn for each robot: its feet's friction, and the shift of its torso's
    centre of mass, m; zeros without randomization. A model may learn from it; no observation has
    it."""
    sent: Array
    """`[D + 1, N, J]`, rad, the last joint targets, the newest first; D is the longest delay."""
    action_delay: Array
    """`[N]`, control steps that each robot waits for its targets, 0 to D."""
    stale_pos: Array
    """`[N, 3]`, m, world: the anchor at the last observation, of which targets may be made."""
    stale_axes: Array
    """`[N, 3, 3]`, its axes as rows."""
    disturbance: Array | float
    """Scale of start noise, observation noise and pushes."""
    failure_distance_scale: Array | float
    """Scale of the distance from the reference at which an episode fails."""

    @classmethod
    def zeros(cls, num_envs: int, longest_delay: int, arrays: Arrays, num_joints: int = J) -> State:
        """A state of robots that have not begun."""
        n, zeros = num_envs, arrays.zeros
        whole = {
            name: zeros((n,), "int64")
            for name in (
                "clip_id", "frame", "first_row", "last_frame", "row", "episode_step", "next_push",
                "action_delay",
            )
        }  # fmt: skip
        joints = {
            name: zeros((n, num_joints))
            for name in (
                "action", "last_action", "older_action", "last_joint_vel", "default_joint_pos",
            )
        }  # fmt: skip
        return cls(
            **whole, **joints, build=zeros((n, BUILD)),
            sent=zeros((longest_delay + 1, n, num_joints)),
            reference=Reference(zeros((n, row_size(num_joints)))),
            shown=Shown(zeros((n, shown_size(num_joints)))),
            stale_pos=zeros((n, 3)), stale_axes=zeros((n, 3, 3)),
            disturbance=arrays.scale(1.0), failure_distance_scale=arrays.scale(1.0),
        )  # fmt: skip

    def save(self) -> dict[str, np.ndarray]:
        """Copies of all that a continuation needs; the rest follows from the tables."""
        names = self._saved() | SAVED_SCALES
        return {key: np.array(NUMPY.array(getattr(self, name))) for name, key in names.items()}

    def load(self, saved: dict[str, np.ndarray], arrays: Arrays) -> None:
        """Take over what `save` returned.

        Raises:
            ConfigError: it is of other robots.
        """
        for name, key in self._saved().items():
            if key not in saved and name in SAVED_LATER:
                continue
            value = getattr(self, name)
            if tuple(value.shape) != saved[key].shape:
                raise ConfigError(
                    f"Saved environment state has {key} of shape {saved[key].shape}, expected "
                    f"{tuple(value.shape)}."
                )
            arrays.put(value, EVERYONE, arrays.array(saved[key]))
        for name, key in SAVED_SCALES.items():
            setattr(self, name, arrays.scale(saved[key].item(), getattr(self, name)))

    def _saved(self) -> dict[str, str]:
        delays = SAVED_DELAYS if len(self.sent) > 1 else {}
        return SAVED | SAVED_LATER | delays
