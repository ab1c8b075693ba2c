"""The denoiser's network: which token reads which, levels, sizes."""

import dataclasses

import numpy as np
import pytest
import torch

from bm_envs.diffusion.network import PUBLISHED, Denoiser, NetworkConfig
from bm_envs.diffusion.sampler import LENGTH
from bm_envs.errors import ConfigError
from bm_envs.tasks.guided.states import NOW, PAST

SIZE = NetworkConfig(width=32, layers=2, heads=2)


@pytest.fixture(params=[2, 3])
def network(request):
    torch.manual_seed(0)
    made = Denoiser(12, dataclasses.replace(SIZE, layers=request.param)).eval()
    for parameter in made.parameters():  # so that every path carries something
        torch.nn.init.normal_(parameter, std=0.2)
    return made


def outputs(network, *, state=None, action=None, blocks=None):
    """States and actions for a fixed input with one token changed."""
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(1, LENGTH, 12, generator=generator)
    actions = torch.randn(1, LENGTH, 29, generator=generator)
    if state is not None:
        states[0, state] += 1
    if action is not None:
        actions[0, action] += 1
    levels = torch.zeros(1, LENGTH, dtype=torch.int64)
    with torch.no_grad():
        return network(states, actions, levels, levels)


def test_states_never_see_actions(network):
    plain = outputs(network)[0]
    for i in (0, NOW, LENGTH - 1):
        assert torch.equal(outputs(network, action=i)[0], plain)


def test_actions_see_no_later_actions_and_all_states(network):
    plain = outputs(network)[1]
    assert torch.equal(outputs(network, action=NOW + 1)[1][:, NOW], plain[:, NOW])
    assert not torch.equal(outputs(network, action=NOW - 1)[1][:, NOW], plain[:, NOW])
    # What becomes of the states reaches the present action, through states that have read it.
    assert not torch.equal(outputs(network, state=LENGTH - 1)[1][:, NOW], plain[:, NOW])


def test_with_one_layer_the_future_does_not_reach_the_action(network):
    network.blocks = network.blocks[:1]
    plain = outputs(network)[1]
    assert torch.equal(outputs(network, state=LENGTH - 1)[1][:, NOW], plain[:, NOW])
    assert not torch.equal(outputs(network, state=NOW)[1][:, NOW], plain[:, NOW])


def test_what_history_and_horizon_hide_reaches_nothing():
    torch.manual_seed(0)
    network = Denoiser(12, dataclasses.replace(SIZE, history=2, horizon=3)).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    plain = outputs(network)
    for hidden in (0, NOW - 2, NOW + 4, LENGTH - 1):
        states, actions = outputs(network, state=hidden)
        assert torch.equal(actions, plain[1])
        others = np.arange(LENGTH) != hidden
        assert torch.equal(states[:, others], plain[0][:, others])
    assert torch.equal(outputs(network, action=NOW - 2)[1][:, NOW], plain[1][:, NOW])
    for seen in (NOW - 1, NOW + 3):
        assert not torch.equal(outputs(network, state=seen)[1][:, NOW], plain[1][:, NOW])


def test_each_token_has_a_level_of_its_own(network):
    levels = torch.zeros(1, LENGTH, dtype=torch.int64)
    other = levels.clone()
    other[0, 7] = 9
    zeros = torch.zeros(1, LENGTH, 12), torch.zeros(1, LENGTH, 29)
    with torch.no_grad():
        plain, changed = network(*zeros, levels, levels), network(*zeros, levels, other)
    assert torch.equal(plain[0], changed[0])
    assert torch.equal(plain[1][:, :7], changed[1][:, :7])
    assert not torch.equal(plain[1][:, 7], changed[1][:, 7])


def test_sizes_are_the_published_ones():
    """The prototype's counts, of its architecture in both of its sizes."""
    small = Denoiser(192, NetworkConfig())
    assert sum(p.numel() for p in small.parameters()) == 1_690_397
    large = Denoiser(384, PUBLISHED)
    assert sum(p.numel() for p in large.parameters()) == 19_308_061


def test_the_first_actions_do_without_the_later_ones(network):
    """A window short of actions gives the same states and actions."""
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(2, LENGTH, 12, generator=generator)
    actions = torch.randn(2, LENGTH, 29, generator=generator)
    levels = torch.randint(20, (2, LENGTH), generator=generator)
    with torch.no_grad():
        whole = network(states, actions, levels, levels)
        first = network(states, actions[:, :PAST], levels, levels[:, :PAST])
    assert first[1].shape == (2, PAST, 29)
    # Sums over masked tokens, which are zeros, may be grouped otherwise: rounding of float32.
    torch.testing.assert_close(first[0], whole[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(first[1], whole[1][:, :PAST], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("layers", 1, "2 or more"), ("heads", 0, "1 or more"),
        ("width", 30, r"a multiple of 4 \* heads = 16"), ("dropout", 1.0, r"a share in \[0, 1\)"),
        ("history", 0, "1 to 4"), ("history", 5, "1 to 4"), ("horizon", 17, "1 to 16"),
    ],
)  # fmt: skip
def test_sizes_that_cannot_be(name, value, expected):
    with pytest.raises(ConfigError, match=f"{name} is {value}, expected {expected}"):
        NetworkConfig(**{name: value})
