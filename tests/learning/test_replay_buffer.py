"""learning/replay_buffer.py: which steps are held, which are drawn, and what goes on."""

import pytest
import torch

from bm_envs.learning.replay_buffer import ReplayBuffer, Starts


def drawn(buffer, batch, steps, generator=None):
    """Windows from places drawn evenly."""
    generator = generator or torch.Generator().manual_seed(0)
    return buffer.windows(*buffer.draw((batch,), steps, generator).unbind(-1), steps)


def numbered_buffer(steps, length=10, robots=3, ends=()):
    """Every state tells its step and its robot."""
    buffer = ReplayBuffer(length, robots, torch.device("cpu"))
    for t in range(steps):
        qpos = torch.zeros(robots, 36)
        qpos[:, 0], qpos[:, 1], qpos[:, 3] = t, torch.arange(robots), 1.0
        rows = torch.full((robots,), t)
        zeros, build = torch.zeros(robots, 29), torch.arange(4.0 * robots).view(robots, 4)
        done = torch.tensor([(t, n) in ends for n in range(robots)])
        buffer.add(Starts(qpos, torch.zeros(robots, 35), zeros, zeros, build, rows, rows + 9),
                   torch.full((robots, 29), float(t)), done)  # fmt: skip
    return buffer


@pytest.mark.parametrize("steps", [7, 10, 23])
def test_windows_are_consecutive_steps_of_one_robot_that_are_held(steps):
    buffer = numbered_buffer(steps)
    states, targets, build, valid = drawn(buffer, 500, 4)
    begin = states[0].pos[:, 0]
    for k, state in enumerate(states):
        assert torch.equal(state.pos[:, 0], begin + k)
        assert torch.equal(state.pos[:, 1], states[0].pos[:, 1])
    for k, target in enumerate(targets):
        assert torch.equal(target[:, 0], begin + k)
    assert valid.all()
    assert torch.equal(build[:, 0], 4 * states[0].pos[:, 1])
    oldest = max(0, steps - 10)
    assert set(begin.tolist()) == set(range(oldest, steps - 4))  # the last state is held, too
    assert set(states[0].pos[:, 1].tolist()) == {0, 1, 2}


def test_windows_end_where_an_episode_does():
    buffer = numbered_buffer(10, ends={(4, 1)})
    states, _, _, valid = drawn(buffer, 500, 4)
    begin, robot = states[0].pos[:, 0], states[0].pos[:, 1]
    for k in range(4):
        # The step that ends an episode leads into the next one's first state.
        cut = (robot == 1) & (begin <= 4) & (begin + k >= 4)
        assert torch.equal(valid[k] == 0, cut)
    assert cut.any()


def test_starts_are_drawn_evenly():
    buffer = numbered_buffer(23)
    starts = buffer.starts((30, 100), torch.Generator().manual_seed(0))
    assert starts.qpos.shape == (30, 100, 36) and torch.equal(starts.last_row, starts.row + 9)
    counts = torch.bincount((starts.row.flatten() - 13) * 3 + starts.qpos[..., 1].flatten().long())
    assert len(counts) == 30
    # Chi-square with 29 degrees of freedom: above 70 with probability 3e-5.
    assert ((counts - 100.0) ** 2 / 100).sum() < 70


def test_a_buffer_goes_on_from_its_state():
    buffer = numbered_buffer(23)
    other = ReplayBuffer(10, 3, torch.device("cpu"))
    other.set_state(buffer.get_state())
    for one in (buffer, other):
        one.generator = torch.Generator().manual_seed(1)
    first, second = (drawn(one, 50, 3, one.generator) for one in (buffer, other))
    assert all(torch.equal(a, b) for a, b in zip(first[0][0], second[0][0], strict=True))
    part = numbered_buffer(4)
    again = ReplayBuffer(10, 3, torch.device("cpu"))
    again.set_state(part.get_state())
    assert again.written == 4 and torch.equal(again.qpos, part.qpos)
