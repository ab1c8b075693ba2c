"""Windows of roll-outs, as a diffusion model learns from them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bm_envs.diffusion.rollouts import Rollouts
from bm_envs.diffusion.sampler import LENGTH
from bm_envs.errors import ConfigError
from bm_envs.learning.networks import Mirror, as_mirror, reflected
from bm_envs.policy.latent import latent_mirror
from bm_envs.robots import g1
from bm_envs.tasks.guided.states import PAST, Representation, States, states_of

PORTION = 256  # episodes whose links are computed at once


class Windows:
    """Windows of `LENGTH` steps, each out of one episode.

    Windows in whose future the robot is pushed are left out, unless `shoved_futures` is set. A
    push in a window's past does not matter.

    Attributes:
        action_size: numbers of an action: 29, or of a latent.
    """

    def __init__(
        self, episodes: Rollouts, rep: Representation, device: torch.device,
        shoved_futures: bool = False, latents: bool = False,
    ) -> None:  # fmt: skip
        """Windows of some episodes.

        Args:
            episodes: whole ones.
            rep: of the states.
            device: where they lie.
            shoved_futures: keep windows in whose future the robot is pushed.
            latents: the actions are the policy's latents.
        """
        self._rep = rep
        # Links are computed in float64: of some episodes at a time, so that they fit into memory.
        portions = (episodes[first : first + PORTION] for first in range(0, len(episodes), PORTION))
        parts = [states_of(part.qpos, part.qvel) for part in portions]
        self._states = States(*(
            torch.as_tensor(np.concatenate(values), device=device)
            for values in zip(*parts, strict=True)
        ))  # fmt: skip
        actions = episodes.latent if latents else episodes.action
        if actions is None:
            raise ConfigError("These roll-outs have no latents, expected those of dagger_vae.py.")
        self._actions = torch.as_tensor(actions, device=device)
        self.action_size = actions.shape[-1]
        starts = episodes.qpos.shape[1] - LENGTH + 1
        if starts < 1:
            raise ConfigError(
                f"Episodes have {episodes.qpos.shape[1]} steps, expected {LENGTH} or more."
            )
        futures = np.arange(starts)[:, None] + np.arange(PAST - 1, LENGTH - 1)
        taken = shoved_futures | ~episodes.pushed[:, futures].any(2)  # [E, starts]
        self._places = torch.as_tensor(np.argwhere(taken), device=device)
        if not len(self._places):
            raise ConfigError(
                "In the future of every window the robot is pushed, expected some without."
            )
        self._offsets = torch.arange(LENGTH, device=device)
        self._mirrors: list[Mirror] = []  # of states and of actions
        of_actions = latent_mirror(self.action_size) if latents else g1.mirror_map()
        for pair in (rep.mirror, of_actions):
            index, sign = as_mirror(pair)
            self._mirrors.append((index.to(device), sign.to(device)))

    def __len__(self) -> int:
        return len(self._places)

    def batch(self, index: Tensor, mirror: bool) -> tuple[Tensor, Tensor]:
        """Features of states `[B, L, S]` and actions `[B, L, A]` of windows `index [B]`.

        With `mirror`, the windows' mirror images follow them, so that there are 2 B.
        """
        episode, start = self._places[index].unbind(1)
        at = episode[:, None], start[:, None] + self._offsets
        states = States(*(value[at] for value in self._states if value is not None))
        features, actions = self._rep.encode(states, PAST - 1), self._actions[at]
        if mirror:
            features, actions = (
                torch.cat([values, reflected(values, its_mirror)])
                for values, its_mirror in zip((features, actions), self._mirrors, strict=True)
            )
        return features, actions
