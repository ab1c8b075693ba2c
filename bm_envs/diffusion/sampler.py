"""Sampling windows of states and actions from a denoiser: schedule, DDPM, DDIM, rolling, guidance.

A window holds `LENGTH` state tokens and as many action tokens; step `NOW` is the present, earlier
ones are the past. Every token has a noise level k = 0 .. K-1 of its own, with

    x_k = sqrt(abar_k) x_0 + sqrt(1 - abar_k) eps,

so that level 0 is not clean but nearly so; "done" is a step below it. A denoiser is any function

    (states [B, L, S], actions [B, M, A], state_levels [B, L], action_levels [B, M])
        -> (states, actions) as they were without noise, same shapes

in normalised numbers, float32; M is L, or less for the first M actions alone, where the denoiser
lets none depend on later ones. The past states are known: they are put in before every call, at
level 0. Past actions are generated like all others. A guide moves the estimate of the clean states
between the denoiser's call and the step to the next level, which is where a cost's gradient acts.

Source: arXiv 2508.08241v1, sec. IV; schedule, levels per token and rolling from the authors'
prototype (`WhoKnowsssss/diffusion_implementation`); DDIM: Song et al., ICLR 2021.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from bm_envs.errors import ConfigError, unknown_name
from bm_envs.tasks.guided.states import NOW, PAST
from bm_envs.tasks.guided.streams import Source

LENGTH = 20  # steps of a window, the known ones included
K = 20  # noise levels

Denoiser = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
Guide = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""`(clean states [B, L, ...], their levels [B, L]) -> clean states`, moved."""


class Schedule(NamedTuple):
    """Figures of the levels, float64, `[K]` each."""

    beta: np.ndarray
    """Variance that goes from level k - 1 to k: `1 - abar_k / abar_{k-1}`."""
    abar: np.ndarray
    """Share of the signal's variance that is left."""
    from_clean: np.ndarray
    """c1 of the posterior's mean `c1 x_0 + c2 x_k`."""
    from_noisy: np.ndarray
    """c2 of the same."""
    variance: np.ndarray
    """Variance of the posterior at level k - 1, given x_0 and x_k; 0 for k = 0."""


def cosine_schedule(steps: int = K) -> Schedule:
    """The cosine schedule of Nichol and Dhariwal (2021), s = 0.008, beta at most 0.999."""
    signal = np.cos((np.arange(steps + 1) / steps + 0.008) / 1.008 * np.pi / 2) ** 2
    beta = np.minimum(1 - signal[1:] / signal[:-1], 0.999)
    abar = np.cumprod(1 - beta)
    before = np.append(1.0, abar[:-1])
    return Schedule(
        beta, abar, beta * np.sqrt(before) / (1 - abar),
        (1 - before) * np.sqrt(1 - beta) / (1 - abar), beta * (1 - before) / (1 - abar),
    )  # fmt: skip


SCHEDULE = cosine_schedule()


def guidance_steps(name: str, last: int = K - 1) -> np.ndarray:
    """How far a guide goes in a call at each level, before its strength. `[K]`, 0 above `last`.

    Of a cost's own step, which brings that cost to its minimum (`costs.own_step`), `share` takes
    k / (K - 1) and `even_share` all of it.

    The others are factors of the cost's gradient. `linear` is k / (K - 1). `score` follows the
    score of data times exp(-cost) exactly where the denoiser is (1 - abar) / sqrt(abar); `noise`
    moves the estimated noise by the gradient, its root over that; `variance` is the posterior's, as
    in classifier guidance; `constant` is 1. `score` and `noise` are 400 and 400 times a step of 1
    at the noisiest level, where nothing of the signal is left: use them with `last` 14 or so.

    Raises:
        ConfigError: no such name.
    """
    if name not in _GUIDANCE_STEPS:
        raise ConfigError(unknown_name("guidance scaling", name, _GUIDANCE_STEPS))
    return np.where(np.arange(K) <= last, _GUIDANCE_STEPS[name], 0.0)


SHARES = ("share", "even_share")
"""Scalings whose strength is a share of a cost's own step, 0 to 1."""
_GUIDANCE_STEPS = {
    "share": np.arange(K) / (K - 1),
    "even_share": np.ones(K),
    "linear": np.arange(K) / (K - 1),
    "score": (1 - SCHEDULE.abar) / np.sqrt(SCHEDULE.abar),
    "noise": np.sqrt((1 - SCHEDULE.abar) / SCHEDULE.abar),
    "variance": SCHEDULE.variance,
    "constant": np.ones(K),
}


class Sample(NamedTuple):
    """A window from the sampler, normalised."""

    states: np.ndarray
    """States. `[B, L, S]`."""
    actions: np.ndarray
    """Actions, of which `actions[:, NOW]` is to be executed. `[B, M, A]`."""


def sample(
    denoiser: Denoiser, past: np.ndarray, action_size: int, rng: Source, *,
    steps: int = K, guide: Guide | None = None, action_steps: int = LENGTH,
) -> Sample:  # fmt: skip
    """A window that begins with `past`, from noise alone.

    Args:
        denoiser: see above.
        past: `[B, PAST, S]`, states up to the present, normalised.
        action_size: A.
        rng: source of the noise: a generator, or `Streams` of as many as there are windows.
        steps: calls of the denoiser: `K` is DDPM; fewer are DDIM (no noise between the calls) at
            levels spread evenly over all of them.
        guide: moves the estimate of the clean states in every call.
        action_steps: M. `PAST` is enough for the action that is to be executed now.

    Raises:
        ConfigError: `steps` is not 1 to `K`.
    """
    if not 1 <= steps <= K:
        raise ConfigError(f"steps is {steps}, expected 1 to {K} calls of the denoiser.")
    count = len(past)
    states = _noise(rng, (count, LENGTH, past.shape[-1]))
    actions = _noise(rng, (count, action_steps, action_size))
    levels = np.linspace(K - 1, 0, steps).round().astype(np.int64)
    for level, following in zip(levels, [*levels[1:], -1], strict=True):
        at = np.full((count, LENGTH), level), np.full((count, action_steps), level)
        clean = _call(denoiser, past, states, actions, *at, guide)
        states, actions = (
            posterior(x, x0, levels_of, rng) if steps == K else _ddim(x, x0, level, following)
            for x, x0, levels_of in zip((states, actions), clean, at, strict=True)
        )
    states[:, :PAST] = past
    return Sample(states, actions)


def posterior(noisy: np.ndarray, clean: np.ndarray, levels: np.ndarray, rng: Source) -> np.ndarray:
    """Tokens `[..., D]` one level down, drawn given the estimate of the clean ones. float32."""
    c1, c2, variance = (
        table[levels][..., None].astype(np.float32)
        for table in (SCHEDULE.from_clean, SCHEDULE.from_noisy, SCHEDULE.variance)
    )
    return c1 * clean + c2 * noisy + np.sqrt(variance) * _noise(rng, noisy.shape)


def _ddim(noisy: np.ndarray, clean: np.ndarray, level: int, following: int) -> np.ndarray:
    """From one level to another below it, -1 being done, along the noise that `clean` implies."""
    if following < 0:
        return clean
    at, to = SCHEDULE.abar[level], SCHEDULE.abar[following]
    noise = (noisy - np.float32(np.sqrt(at)) * clean) / np.float32(np.sqrt(1 - at))
    return np.float32(np.sqrt(to)) * clean + np.float32(np.sqrt(1 - to)) * noise


class RollingSampler:
    """Control tick after control tick, each from what the one before left half denoised.

    A tick takes 15 calls (20 the first time, or after `reset`). What is kept of a tick is, for each
    token, its iterate on the level that it starts from in the next one: future states all start
    from level `STATE_LEVEL`, an action j steps ahead from `ACTION_LEVEL + j`. Tokens move one place
    towards the past per tick and pure noise enters at the end. So states get new noise once, when
    they enter, and plans change smoothly; a guide has 15 calls per tick on unchanged noise.

    The iterates of root blocks are of the previous tick's frame; the shift in 20 ms is small
    against their noise, and the prototype leaves it as well.
    """

    STATE_LEVEL = 14
    ACTION_LEVEL = 11

    def __init__(self, denoiser: Denoiser, action_size: int, *, guide: Guide | None = None) -> None:
        """Arguments as of `sample`."""
        self._denoiser, self._action_size = denoiser, action_size
        self.guide = guide
        self._kept: Sample | None = None

    def reset(self) -> None:
        """Forget what was kept: the next tick starts from noise."""
        self._kept = None

    def __call__(self, past: np.ndarray, rng: Source) -> Sample:
        """The window of this tick, which begins with `past [B, PAST, S]`."""
        count = len(past)
        states = _noise(rng, (count, LENGTH, past.shape[-1]))
        actions = _noise(rng, (count, LENGTH, self._action_size))
        first = self._kept is None
        if self._kept is not None:
            states[:, :-1], actions[:, :-1] = self._kept
        state_rows, action_rows = self.rows(first)
        kept = states[:, 1:].copy(), actions[:, 1:].copy()
        clean = states, actions
        ahead = np.maximum(np.arange(LENGTH) - NOW, 0)
        start_levels = (
            np.full(LENGTH - 1, self.STATE_LEVEL),
            np.minimum(self.ACTION_LEVEL + ahead[:-1], K - 1),
        )
        for row in range(len(state_rows)):
            noisy = states, actions
            levels = state_rows[row], action_rows[row]
            for keep, tokens, level, start in zip(kept, noisy, levels, start_levels, strict=True):
                due = level[1:] == start
                keep[:, due] = tokens[:, 1:][:, due]
            state_levels, action_levels = (
                np.broadcast_to(level, (count, LENGTH)) for level in levels
            )
            clean = _call(
                self._denoiser, past, states, actions, state_levels, action_levels, self.guide
            )
            if row + 1 < len(state_rows):
                following = state_rows[row + 1], action_rows[row + 1]
                states, actions = (
                    # A token whose level does not change waits with its noise.
                    np.where((after < level)[:, None], posterior(x, x0, level, rng), x)
                    for x, x0, level, after in zip(noisy, clean, levels, following, strict=True)
                )
        self._kept = Sample(*kept)
        result = Sample(*(tokens.copy() for tokens in clean))
        result.states[:, :PAST] = past
        return result

    @classmethod
    def rows(cls, first: bool) -> tuple[np.ndarray, np.ndarray]:
        """Levels of states and of actions in every call of a tick. `[calls, L]` each."""
        ahead = np.maximum(np.arange(LENGTH) - NOW, 0)
        if first:
            states, actions, calls = np.full(LENGTH, K - 1), K - 1 + ahead, K
        else:
            # The newest state is to be at STATE_LEVEL ten calls from now.
            states = np.where(np.arange(LENGTH) == LENGTH - 1, 10, 0) + cls.STATE_LEVEL
            actions, calls = cls.ACTION_LEVEL + ahead, cls.STATE_LEVEL + 1
        down = np.arange(calls)[:, None]
        # Actions end at their distance from the present and wait there.
        return np.clip(states - down, 0, K - 1), np.clip(actions - down, ahead, K - 1)


# --- parts ----------------------------------------------------------------------------------------


def _noise(rng: Source, shape: tuple[int, ...]) -> np.ndarray:
    return rng.standard_normal(shape, dtype=np.float32)


def _call(
    denoiser: Denoiser, past: np.ndarray, states: np.ndarray, actions: np.ndarray,
    state_levels: np.ndarray, action_levels: np.ndarray, guide: Guide | None,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Clean states and actions by one call, with the past put in at level 0."""
    state_levels = state_levels.copy()
    states[:, :PAST], state_levels[:, :PAST] = past, 0
    clean_states, clean_actions = denoiser(states, actions, state_levels, action_levels)
    if guide is not None:
        clean_states = guide(clean_states, state_levels)
    return clean_states, clean_actions
