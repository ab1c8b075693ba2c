"""Policies of latents: arrays, file and mirror images say the same."""

import dataclasses

import numpy as np
import onnx
import pytest

from bm_envs.errors import PolicyError
from bm_envs.policy import PolicySpec, load_policy, write_onnx
from bm_envs.policy.latent import (
    FELT,
    REFERENCE_TERMS,
    SEEN,
    LatentPolicy,
    arrays_of,
    decoder_mirror,
    latent_from_policy,
    latent_mirror,
    layers_from,
)
from bm_envs.policy.network import Layers
from bm_envs.robots import g1
from bm_envs.robots.observation_terms import POLICY_TERMS, mirror_map, size

Z = 6


def layers(sizes, seed):
    rng = np.random.default_rng(seed)
    return Layers(
        rng.normal(size=sizes[0]), rng.uniform(0.5, 2.0, sizes[0]),
        tuple(rng.normal(size=(b, a)) / a**0.5 for a, b in zip(sizes, sizes[1:], strict=False)),
        tuple(rng.normal(size=b) for b in sizes[1:]),
    )  # fmt: skip


@pytest.fixture(scope="module")
def policy():
    return LatentPolicy(layers((SEEN, 16, 2 * Z), 0), layers((Z + FELT, 20, 29), 1))


@pytest.fixture(scope="module")
def spec():
    table = g1.G1
    return PolicySpec.for_g1(
        POLICY_TERMS, default_joint_pos=table.default_joint_pos, action_scale=table.action_scale,
        stiffness=table.stiffness, damping=table.damping,
    )  # fmt: skip


@pytest.fixture(scope="module")
def file(policy, spec, tmp_path_factory):
    path = tmp_path_factory.mktemp("latent") / "policy.onnx"
    write_onnx(path, policy, spec, None)
    return path


def test_the_parts_are_the_whole_observation():
    assert SEEN == size(REFERENCE_TERMS) == 67 and SEEN + FELT == size(POLICY_TERMS) == 160


def test_the_file_does_what_the_arrays_do(policy, file):
    """The runtime adds the same float32 products in another order."""
    obs = np.random.default_rng(2).normal(size=(7, 160)).astype(np.float32)
    loaded = load_policy(file)
    np.testing.assert_allclose(loaded(obs), policy(obs), atol=1e-4)
    assert loaded.batched


def test_the_action_is_the_decoder_of_the_latent_and_the_rest(policy):
    """Written out by hand: two layers, ELU between, the mean of the latent alone."""
    obs = np.random.default_rng(3).normal(size=(4, 160))

    def by_hand(net, x):
        x = (x - net.obs_mean) / net.obs_scale
        x = x @ net.weights[0].T + net.biases[0]
        x = np.where(x > 0, x, np.exp(x) - 1)
        return x @ net.weights[1].T + net.biases[1]

    latent = by_hand(policy.encoder, obs[:, :67])[:, :Z]
    np.testing.assert_allclose(policy.latent(obs), latent, atol=1e-5)
    action = by_hand(policy.decoder, np.concatenate([latent, obs[:, 67:]], 1))
    np.testing.assert_allclose(policy(obs), action, atol=1e-5)


def test_the_file_gives_its_latent_and_the_arrays_back(policy, file):
    assert [v.name for v in onnx.load(file).graph.output] == ["actions", "latent"]
    again = latent_from_policy(file)
    obs = np.random.default_rng(4).normal(size=(3, 160))
    np.testing.assert_array_equal(again.latent(obs), policy.latent(obs))
    np.testing.assert_array_equal(again(obs), policy(obs))


def test_another_tracker_has_no_latent():
    assert latent_from_policy(load_policy("walk").path) is None


def test_arrays_of_a_network_make_it_again(policy):
    again = layers_from(arrays_of(policy.decoder, "d_"), "d_")
    x = np.random.default_rng(5).normal(size=(2, Z + FELT))
    np.testing.assert_array_equal(again(x), policy.decoder(x))
    arrays = arrays_of(policy.decoder, "d_")
    del arrays["d_bias_1"]
    with pytest.raises(PolicyError, match="lacks the constant 'd_bias_1'"):
        layers_from(arrays, "d_")


def test_mirrors_undo_themselves_and_join_the_observations_own():
    for index, sign in (latent_mirror(Z), decoder_mirror(Z)):
        x = np.random.default_rng(6).normal(size=len(index))
        np.testing.assert_array_equal(sign * (sign * x[index])[index], x)
    index, sign = decoder_mirror(Z)
    whole_index, whole_sign = mirror_map(POLICY_TERMS)
    np.testing.assert_array_equal(index[Z:] - Z, whole_index[SEEN:] - SEEN)
    np.testing.assert_array_equal(sign[Z:], whole_sign[SEEN:])


@pytest.mark.parametrize(
    ("encoder", "decoder"),
    [((SEEN, 2 * Z + 1), (Z + FELT, 29)), ((SEEN, 2 * Z), (Z + FELT + 1, 29)),
     ((SEEN + 1, 2 * Z), (Z + FELT, 29)), ((SEEN, 2 * Z), (Z + FELT, 28))],
)  # fmt: skip
def test_parts_that_do_not_fit_are_refused(encoder, decoder):
    with pytest.raises(PolicyError, match="Encoder and decoder take"):
        LatentPolicy(layers(encoder, 0), layers(decoder, 1))


def test_it_needs_the_observations_of_the_publication(policy, spec, tmp_path):
    swapped = dataclasses.replace(
        spec, observation_names=(*POLICY_TERMS[1:], POLICY_TERMS[0]), observation_history_lengths=()
    )
    with pytest.raises(PolicyError, match="needs the G1's 160 observations, in order"):
        write_onnx(tmp_path / "p.onnx", policy, swapped, None)
    assert not (tmp_path / "p.onnx").exists()
