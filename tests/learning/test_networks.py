"""Networks of trainers: what the normalizer has seen, and what left-right symmetry holds."""

import numpy as np
import torch

from bm_envs.learning import networks
from bm_envs.robots import g1
from bm_envs.robots.observation_terms import CRITIC_TERMS, POLICY_TERMS, mirror_map


def test_normalizer_gives_mean_and_variance_of_all_it_has_seen():
    network = networks.Network((4, 8, 1), "elu", 1.0)
    torch.manual_seed(0)
    data = torch.randn(1000, 4) * torch.tensor([1.0, 5.0, 0.1, 2.0]) + 3.0
    for part in data.split([10, 500, 90, 400]):
        network.update_normalizer(part)
    # float32 sums over a thousand values.
    torch.testing.assert_close(network.obs_mean, data.mean(0), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(network.obs_var, data.var(0, unbiased=False), rtol=1e-4, atol=1e-6)


def test_a_symmetric_normalizer_counts_the_reflections_as_well():
    mirror = networks.as_mirror(mirror_map(POLICY_TERMS))
    network = networks.Network((160, 8, 1), "elu", 1.0, (mirror, networks.UNCHANGED))
    torch.manual_seed(0)
    data = torch.randn(500, 160) * torch.rand(160) * 5 + 3.0
    for part in data.split([10, 490]):
        network.update_normalizer(part)
    both = torch.cat([data, networks.reflected(data, mirror)])
    assert network.obs_count == 1000
    # float32 sums over a thousand values.
    torch.testing.assert_close(network.obs_mean, both.mean(0), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(network.obs_var, both.var(0, correction=0), rtol=1e-4, atol=1e-5)


def test_symmetric_policy_acts_mirrored_on_the_mirrored_and_learns_so():
    torch.manual_seed(0)
    q0, scale = (a.astype(np.float32) for a in (g1.DEFAULT_JOINT_POS, g1.ACTION_SCALE))
    actor = networks.TrackingPolicy(POLICY_TERMS, (32, 16), q0, scale, init_std=1.0)
    seen = networks.as_mirror(mirror_map(POLICY_TERMS))
    joints = networks.as_mirror(g1.mirror_map())
    obs = torch.randn(64, 160)
    actor.update_normalizer(torch.randn(100, 160) + 1.0)
    optimizer = torch.optim.Adam(actor.parameters(), lr=0.01)
    before = actor.mean(obs).detach()
    for _ in range(20):  # pulled to targets that are not symmetric
        error = actor.mean(obs) - torch.randn(29) + actor.log_std
        optimizer.zero_grad()
        (error**2).mean().backward()
        actor.symmetrize_gradients()
        optimizer.step()
    after = actor.mean(obs).detach()
    assert (after - before).abs().mean() > 0.1
    # float32 sums of some hundred terms, and twenty steps of rounding.
    torch.testing.assert_close(
        actor.mean(networks.reflected(obs, seen)), networks.reflected(after, joints),
        atol=1e-4, rtol=1e-3,
    )  # fmt: skip
    torch.testing.assert_close(actor.log_std, actor.log_std[joints[0]], atol=1e-6, rtol=0)


def test_symmetric_critic_values_the_mirrored_alike():
    torch.manual_seed(0)
    seen = networks.as_mirror(mirror_map(CRITIC_TERMS))
    critic = networks.tracking_critic((32, 16))
    obs = torch.randn(64, 286)
    critic.update_normalizer(obs)
    assert critic(critic.normalize(obs)).std() > 0.1
    torch.testing.assert_close(
        critic(critic.normalize(networks.reflected(obs, seen))), critic(critic.normalize(obs)),
        atol=1e-5, rtol=1e-4,
    )  # fmt: skip


def test_networks_without_mirrors_are_left_as_they_are():
    torch.manual_seed(0)
    network = networks.Network((4, 8, 2), "elu", 1.0, init_std=0.5)
    network.mean(torch.randn(10, 4)).sum().backward()
    (network.log_std.sum() * torch.tensor([1.0, 3.0])).sum().backward()
    before = [value.grad.clone() for value in network.parameters()]
    network.symmetrize_gradients()
    assert all(map(torch.equal, before, [value.grad for value in network.parameters()]))
    torch.testing.assert_close(network.log_std.detach().exp(), torch.full((2,), 0.5))
