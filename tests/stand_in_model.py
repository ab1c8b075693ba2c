"""A stand-in for a trained diffusion model."""

from pathlib import Path

import numpy as np

from bm_envs.tasks.guided.states import NOW, PAST, representation


class Model:
    """Stands in for a trained one: its clean estimates are whatever `answer` says."""

    def __init__(self, drives, answer, name="body_pos"):
        self.representation = representation(name)
        self.drives, self.answer = drives, answer
        self.width, self.name, self.path = self.representation.size, "stand-in", Path("none")
        self.action_size, self.decoder = 29, None
        self.range = np.full(self.width, -1.0), np.full(self.width, 1.0)

    def denoise(self, states, actions, state_levels, action_levels):
        return self.answer(states, actions, state_levels, action_levels)

    def scale(self, features):
        return np.asarray(features, np.float32)

    unscale = unscale_action = bound_action = scale

    def bound(self, states, guide=None, levels=None):
        return self.scale(states if guide is None else guide(states, levels))


def still(action):
    """An answer: the states go on as they are now, the action is always the same."""

    def answer(states, actions, state_levels, action_levels):
        states = states.copy()
        states[:, PAST:] = states[:, NOW : NOW + 1]
        return states, np.broadcast_to(np.float32(action), actions.shape).copy()

    return answer
