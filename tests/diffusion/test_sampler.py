"""Schedule and samplers against their closed forms on Gaussian data, where all is linear."""

import numpy as np
import pytest

from bm_envs.diffusion import sampler
from bm_envs.diffusion.sampler import (
    LENGTH,
    SCHEDULE,
    K,
    RollingSampler,
    posterior,
    sample,
)
from bm_envs.errors import ConfigError
from bm_envs.tasks.guided.states import NOW, PAST

MEAN, STD = 0.7, 0.5
S, A = 3, 2


def gaussian_estimate(x, level):
    """`E[x_0 | x_k]` of data N(MEAN, STD^2)."""
    abar = SCHEDULE.abar[level]
    gain = STD**2 * np.sqrt(abar) / (abar * STD**2 + 1 - abar)
    return MEAN + gain * (x - np.sqrt(abar) * MEAN)


def gaussian_denoiser(states, actions, state_levels, action_levels):
    return tuple(
        gaussian_estimate(x, level[..., None]).astype(np.float32)
        for x, level in ((states, state_levels), (actions, action_levels))
    )


def chain_std():
    """Standard deviation at the end of a DDPM chain on that data, step by step."""
    variance = 1.0
    for k in reversed(range(K)):
        abar = SCHEDULE.abar[k]
        gain = STD**2 * np.sqrt(abar) / (abar * STD**2 + 1 - abar)
        slope = SCHEDULE.from_clean[k] * gain + SCHEDULE.from_noisy[k]
        variance = slope**2 * variance + SCHEDULE.variance[k]
    return np.sqrt(variance)


def test_schedule_is_the_published_one():
    """Figures of the prototype's schedule at some levels, worked by hand from its formula."""
    table = {  # k: beta, abar, variance, c1, c2
        0: (0.007993, 0.992007, 0.0, 1.0, 0.0),
        1: (0.020075, 0.972093, 0.005750, 0.71647, 0.28351),
        9: (0.135922, 0.493844, 0.115061, 0.20301, 0.78689),
        14: (0.289725, 0.144272, 0.269800, 0.15259, 0.78482),
        19: (0.999000, 0.000006, 0.992952, 0.07777, 0.03143),
    }
    s = SCHEDULE
    for k, expected in table.items():
        found = (s.beta[k], s.abar[k], s.variance[k], s.from_clean[k], s.from_noisy[k])
        np.testing.assert_allclose(found, expected, atol=6e-6)  # half a unit of the last digit
    before = np.append(1.0, s.abar[:-1])
    # Of a clean sample the posterior's mean is the clean sample at the level below.
    np.testing.assert_allclose(s.from_clean + s.from_noisy * np.sqrt(s.abar), np.sqrt(before),
                               rtol=1e-12)  # fmt: skip
    np.testing.assert_allclose(1 - s.beta, s.abar / before, rtol=1e-12)


def add_noise(clean, levels, noise):
    """Tokens `[..., D]` at levels `[...]`, by the equation of the module's text."""
    abar = SCHEDULE.abar[levels][..., None]
    return (np.sqrt(abar) * clean + np.sqrt(1 - abar) * noise).astype(np.float32)


def test_noise_and_posterior_agree_with_bayes():
    """Down from level k given x_0 is as up to level k - 1 directly: same mean and deviation."""
    rng = np.random.default_rng(0)
    n = 200_000
    clean = np.full((n, 1), 1.3, np.float32)
    for k in (1, 7, 15, 19):
        at = np.full(n, k)
        noisy = add_noise(clean, at, rng.standard_normal((n, 1)))
        down = posterior(noisy, clean, at, rng)
        abar = SCHEDULE.abar[k - 1]
        assert down.mean() == pytest.approx(np.sqrt(abar) * 1.3, abs=4 / np.sqrt(n))
        assert down.std() == pytest.approx(np.sqrt(1 - abar), rel=4 / np.sqrt(2 * n))
    np.testing.assert_array_equal(posterior(noisy, clean, np.zeros(n, int), rng), clean)


def test_ddpm_samples_the_gaussian():
    rng = np.random.default_rng(1)
    past = np.zeros((2000, PAST, S), np.float32)
    found = sample(gaussian_denoiser, past, A, rng)
    expected = chain_std()
    # 20 steps are too few for the data's own deviation: the chain's is what is asked for.
    assert expected == pytest.approx(STD, rel=0.15) and expected != pytest.approx(STD, rel=0.01)
    for values in (found.states[:, PAST:], found.actions):
        n = values.size
        assert values.mean() == pytest.approx(MEAN, abs=4 * STD / np.sqrt(n))
        assert values.std() == pytest.approx(expected, rel=4 / np.sqrt(2 * n))


@pytest.mark.parametrize("steps", [1, 2, 5, 10, 19])
def test_ddim_of_fewer_steps(steps):
    """Without noise between the calls it maps the first noise linearly; one call gives the mean."""
    past = np.zeros((500, PAST, S), np.float32)
    found = sample(gaussian_denoiser, past, A, np.random.default_rng(2), steps=steps)
    slope = 1.0
    levels = np.linspace(K - 1, 0, steps).round().astype(int)
    for k, following in zip(levels, [*levels[1:], -1], strict=True):
        at, to = SCHEDULE.abar[k], 1.0 if following < 0 else SCHEDULE.abar[following]
        gain = STD**2 * np.sqrt(at) / (at * STD**2 + 1 - at)
        slope *= np.sqrt(to) * gain + np.sqrt(1 - to) * (1 - np.sqrt(at) * gain) / np.sqrt(1 - at)
    n = found.actions.size
    # At level 19 a share of 0.0025 of the mean is in the noise already.
    assert found.actions.mean() == pytest.approx(MEAN, abs=4 * STD / np.sqrt(n) + 0.003)
    assert found.actions.std() == pytest.approx(abs(slope), rel=4 / np.sqrt(2 * n))
    if steps == 10:
        assert abs(slope) == pytest.approx(STD, rel=0.15)


def test_clean_and_noise_follow_from_each_other():
    """Noise implied by a clean estimate brings it back, up to level 17; what float32 leaves."""
    rng = np.random.default_rng(0)
    clean, noise = rng.standard_normal((2, 4000, S)).astype(np.float32)
    for level in range(K):
        noisy = add_noise(clean, np.full(4000, level), noise)
        at = SCHEDULE.abar[level]
        implied = (noisy - np.sqrt(at) * clean) / np.sqrt(1 - at)
        back = (noisy - np.sqrt(1 - at) * implied.astype(np.float32)) / np.sqrt(at)
        # Rounding of 6e-8 of numbers up to 4, over sqrt(abar): 0.16 at level 17, 0.0025 at 19.
        assert np.abs(back - clean).max() < 1e-6 / np.sqrt(at)
        np.testing.assert_allclose(sampler._ddim(noisy, clean, level, level), noisy, atol=2e-6)


def test_wrong_numbers_of_steps():
    for steps in (0, K + 1):
        with pytest.raises(ConfigError, match=f"steps is {steps}, expected 1 to 20 calls"):
            sample(gaussian_denoiser, np.zeros((1, PAST, S), np.float32), A, None, steps=steps)  # type: ignore[arg-type]


class Recorder:
    """A denoiser that knows the answer, and remembers what it was asked."""

    def __init__(self, states, actions):
        self.clean = states.astype(np.float32), actions.astype(np.float32)
        self.calls = []

    def __call__(self, states, actions, state_levels, action_levels):
        self.calls.append(tuple(x.copy() for x in (states, actions, state_levels, action_levels)))
        return self.clean


@pytest.fixture
def known():
    rng = np.random.default_rng(3)
    return Recorder(rng.normal(size=(4, LENGTH, S)), rng.normal(size=(4, LENGTH, A)))


@pytest.mark.parametrize("steps", [K, 7])
def test_the_past_is_put_in_at_level_0_before_every_call(known, steps):
    past = np.random.default_rng(4).normal(size=(4, PAST, S)).astype(np.float32)
    found = sample(known, past, A, np.random.default_rng(5), steps=steps)
    assert len(known.calls) == steps
    for states, _, state_levels, action_levels in known.calls:
        np.testing.assert_array_equal(states[:, :PAST], past)
        assert not state_levels[:, :PAST].any()
        assert (state_levels[:, PAST:] == action_levels[0, 0]).all()
    np.testing.assert_array_equal(found.states[:, :PAST], past)
    np.testing.assert_array_equal(found.states[:, PAST:], known.clean[0][:, PAST:])
    np.testing.assert_array_equal(found.actions, known.clean[1])


def test_levels_of_a_rolling_tick():
    """The prototype's table: first and last row of each stream, first tick and later ones."""
    ahead = np.maximum(np.arange(LENGTH) - NOW, 0)
    states, actions = RollingSampler.rows(first=True)
    assert len(states) == len(actions) == 20
    assert (states[0] == 19).all() and not states[-1].any()
    assert (actions[0] == 19).all() and (actions[-1] == ahead).all()
    states, actions = RollingSampler.rows(first=False)
    assert len(states) == len(actions) == 15
    assert states[0].tolist() == [14] * 19 + [19] and states[-1].tolist() == [0] * 19 + [10]
    assert actions[0].tolist() == [11] * 4 + [12, 13, 14, 15, 16, 17, 18] + [19] * 9
    assert (actions[11] == ahead).all() and (actions[11:] == ahead).all()
    assert (np.diff(states, axis=0) >= -1).all() and (np.diff(actions, axis=0) >= -1).all()


def test_rolling_with_the_answer_known_executes_it(known):
    rolling = RollingSampler(known, A)
    rng = np.random.default_rng(6)
    past = np.zeros((4, PAST, S), np.float32)
    for tick in range(6):
        known.calls.clear()
        found = rolling(past, rng)
        assert len(known.calls) == (20 if tick == 0 else 15)
        np.testing.assert_array_equal(found.actions[:, NOW], known.clean[1][:, NOW])
    rolling.reset()
    known.calls.clear()
    rolling(past, rng)
    assert len(known.calls) == 20


def test_what_a_rolling_tick_keeps():
    """Levels fit, and a state's noise is drawn once: its iterate stays until it is the present."""
    rolling = RollingSampler(gaussian_denoiser, A)
    rng = np.random.default_rng(7)
    past = np.zeros((1, PAST, S), np.float32)
    for _ in range(3):
        rolling(past, rng)
    before = rolling._kept
    rolling(past, rng)
    after = rolling._kept
    assert before is not None and after is not None
    np.testing.assert_array_equal(after.states[:, NOW:-1], before.states[:, PAST:])
    assert (after.states[:, -1] != before.states[:, -1]).all()
    # Actions eight steps ahead and more are pure noise, nearer ones go down a level each tick until
    # they are the present.
    np.testing.assert_array_equal(after.actions[:, 11:-1], before.actions[:, 12:])
    assert (after.actions[:, NOW:11] != before.actions[:, PAST:12]).all()
    np.testing.assert_array_equal(after.actions[:, :NOW], before.actions[:, 1:PAST])


def test_rolling_samples_the_gaussian_as_one_whole_chain_does():
    """An action takes all its levels, spread over ticks: its marginal is the chain's."""
    rolling = RollingSampler(gaussian_denoiser, A)
    rng = np.random.default_rng(8)
    past = np.zeros((3000, PAST, S), np.float32)
    for _ in range(24):  # so that what entered at the end has become the present
        found = rolling(past, rng)
    action = found.actions[:, NOW]
    n = action.size
    assert action.mean() == pytest.approx(MEAN, abs=4 * STD / np.sqrt(n))
    # Its last step takes the estimate of level 0, as the whole chain's does.
    assert action.std() == pytest.approx(chain_std(), rel=4 / np.sqrt(2 * n))
    states = found.states[:, PAST:-1]
    assert states.mean() == pytest.approx(MEAN, abs=4 * STD / np.sqrt(states.size / 16))


@pytest.mark.parametrize("make", ["whole", "rolling"])
def test_a_guide_moves_the_samples_its_way(make):
    def guide(clean, levels):
        assert not levels[:, :PAST].any()
        return clean - 0.1 * (clean - 2.0)  # towards 2

    rng = np.random.default_rng(9)
    past = np.zeros((500, PAST, S), np.float32)
    if make == "whole":
        found = sample(gaussian_denoiser, past, A, rng, guide=guide)
    else:
        found = RollingSampler(gaussian_denoiser, A, guide=guide)(past, rng)
    assert found.states[:, PAST:-1].mean() > MEAN + 0.1
    assert found.actions[:, NOW].mean() == pytest.approx(MEAN, abs=0.1)  # reads no states here
    np.testing.assert_array_equal(found.states[:, :PAST], past)


def test_equal_seeds_give_equal_samples(known):
    past = np.zeros((2, PAST, S), np.float32)
    one, two = (sample(gaussian_denoiser, past, A, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(one.actions, two.actions)
    assert one.actions.dtype == np.float32
