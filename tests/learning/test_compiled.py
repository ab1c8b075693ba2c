"""learning/native.c: values and gradients of its kernels against the definition in torch."""

import copy
import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from robot_states import some_states

sys.path.insert(0, str(Path(__file__).parents[2] / "algos"))
import wm_track as wm  # noqa: E402

from bm_envs.envs import TrackVectorEnv  # noqa: E402
from bm_envs.errors import BMWarning  # noqa: E402
from bm_envs.learning import compiled, noise, predictions, rollouts  # noqa: E402
from bm_envs.learning.compiled import NEWEST, kernels  # noqa: E402
from bm_envs.learning.imagination import ReferenceTables, observation  # noqa: E402
from bm_envs.learning.networks import Network  # noqa: E402
from bm_envs.learning.noise import even_numbers  # noqa: E402
from bm_envs.learning.parts import is_symmetric  # noqa: E402
from bm_envs.learning.replay_buffer import Starts  # noqa: E402
from bm_envs.learning.world_model import State, WorldModel  # noqa: E402
from bm_envs.motion.library import load_motions  # noqa: E402
from bm_envs.robots.g1 import G1  # noqa: E402
from bm_envs.robots.registry import ROBOTS  # noqa: E402
from bm_envs.robots.robot import order_map  # noqa: E402
from bm_envs.tasks.track.config import TrackConfig  # noqa: E402

needs_kernels = pytest.mark.skipif(kernels() is None, reason="the package was not compiled")
CPU = torch.device("cpu")


@pytest.fixture(params=range(NEWEST + 1), ids=["plain", "AVX2", "AVX-512"])
def instructions(request):
    """Kernels for some instructions, where the processor has them."""
    libraries = [kernels(robot) for robot in ROBOTS.values()]
    chosen = {library.native_choose(request.param) for library in libraries}
    if chosen == {request.param}:
        yield request.param
    for library in libraries:
        library.native_choose(NEWEST)
    if chosen != {request.param}:
        pytest.skip("this processor does not have the instructions")


def without_kernels(monkeypatch):
    for module in (noise, predictions, rollouts):
        monkeypatch.setattr(module, "kernels", lambda *_: None)


def shaken(network, generator, symmetric=False):
    """A network whose outputs, biases and normalizer are not those it begins with."""
    for layer in network.layers:
        for value in (layer.weight, layer.bias):
            value.data += 0.05 * torch.randn(value.shape, generator=generator)
    if symmetric:
        network.symmetrize([value.data for value in network.layers.parameters()])
    assert is_symmetric(network) == symmetric
    network.obs_mean += torch.randn(network.obs_mean.shape, generator=generator)
    network.obs_var *= 0.2 + 2 * torch.rand(network.obs_var.shape, generator=generator)
    return network


def shaken_model(config, seed=0, symmetric=False):
    generator = torch.Generator().manual_seed(seed)
    model = WorldModel(
        config.model_hidden, config.task.decimation, symmetry=config.symmetry,
        robot=config.task.model.table,
    )  # fmt: skip
    shaken(model.network, generator, symmetric), shaken(model.linear, generator, symmetric)
    model.scale.uniform_(0.1, 1.0, generator=generator)
    return model


def states(kind, count, seed=0, robot=G1):
    """`qpos` and `qvel` of robots as drawn, or of robots that have come to grief."""
    joints = order_map(G1.joint_names, robot.joint_names)
    qpos, qvel = (
        np.concatenate([value[:, :first], value[:, first + joints]], 1)
        for value, first in zip(some_states(count, seed), (7, 6), strict=True)
    )
    if kind == "extreme":
        rng = np.random.default_rng(seed)
        qpos[:, :3] *= 30
        qpos[:, 7:] *= rng.choice([1e-6, 1.0, 20.0], (count, 1))
        qvel *= rng.choice([0.0, 1e-4, 40.0], (count, 1))
    return torch.from_numpy(qpos).float(), torch.from_numpy(qvel).float()


def assert_close(actual, expected, share, name=""):
    """Up to a share of the size of the whole tensor."""
    assert actual.shape == expected.shape and torch.isfinite(expected).all(), name
    size = expected.square().mean().sqrt().item()
    off = (actual - expected).abs().max().item()
    assert off <= share * size, f"{name}: {off:.3g} off, of size {size:.3g}"


# --- the definition -------------------------------------------------------------------------------


def of_flat(numbers):
    """States of `[B, 76]`."""
    parts = numbers.split((3, 9, 3, 3, 29, 29), 1)
    return State(parts[0], parts[1].view(-1, 3, 3), *parts[2:])


def test_the_definition_has_the_gradient_of_finite_differences():
    config = wm.Config(model_hidden=(4,))
    model = shaken_model(config).double()
    qpos, qvel = (torch.from_numpy(value) for value in some_states(2))
    numbers = torch.cat([part.flatten(1) for part in State.of(qpos, qvel)], 1).requires_grad_()
    reference = ReferenceTables(load_motions(["walk"]), CPU)
    shown = reference.at(torch.tensor([3, 9]), torch.tensor([90, 90]))
    shown = type(shown)(shown.rows.double())
    target = torch.randn(2, 29, dtype=torch.float64, requires_grad=True)

    build = torch.randn(2, 4, dtype=torch.float64)

    def looked(numbers, target):
        state = of_flat(numbers)
        local = model.local(state)
        names = TrackConfig().observations
        seen = observation(names, state, local, shown, target, torch.zeros(2, 29).double())
        return torch.cat([seen, model.inputs(state, local, target, build)], 1)

    def stepped(numbers, rates):
        return torch.cat([v.flatten(1) for v in model.integrate(of_flat(numbers), rates)], 1)

    assert torch.autograd.gradcheck(looked, (numbers, target), eps=1e-7, atol=1e-4, fast_mode=True)
    rates = torch.randn(2, 70, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(stepped, (numbers, rates), fast_mode=True)


# --- kernels against the definition ---------------------------------------------------------------


class Case:
    """Imagined rollouts of a policy in a model, to be computed by kernels or by torch."""

    def __init__(
        self, kind="drawn", batch=37, horizon=5, bfloat16=False, symmetric=False, robot=G1,
        **changes,
    ):  # fmt: skip
        config = wm.Config()
        self.config = dataclasses.replace(
            config, hidden=(32, 18), model_hidden=(34, 16), policy_horizon=horizon,
            **{"task": config.task.on_robot(robot.name)} | changes,
        )  # fmt: skip
        env = TrackVectorEnv(2, "walk", config=self.config.task, threads=1)
        torch.manual_seed(0)
        self.learner = wm.PolicyLearner(self.config, env.task, CPU)
        env.close()
        generator = torch.Generator().manual_seed(1)
        self.symmetric = symmetric
        shaken(self.learner.actor, generator, symmetric), shaken(self.learner.critic, generator)
        self.model = shaken_model(self.config, symmetric=symmetric)
        self.model.use_bfloat16 = bfloat16
        qpos, qvel = states(kind, batch, robot=robot)
        rows, joints = torch.arange(batch, dtype=torch.int32), robot.num_joints
        self.starts = Starts(
            qpos, qvel, torch.randn(batch, joints, generator=generator),
            0.1 * torch.randn(batch, joints, generator=generator),
            torch.randn(batch, 4, generator=generator), 3 * rows,
            torch.full((batch,), 80, dtype=torch.int32).maximum(3 * rows),
        )  # fmt: skip
        self.noise = self.learner.imagination.disturbances.draw(batch, 1.0, generator)

    def __call__(self, by_kernels):
        """The rollout, and gradients of the policy's parameters by its loss."""
        actor, imagination = self.learner.actor, self.learner.imagination
        assert imagination.compiled.takes(actor, self.model, self.starts)
        with pytest.MonkeyPatch.context() as patch:
            if not by_kernels:
                patch.setattr(imagination.compiled, "takes", lambda *_: False)
            rollout = imagination(actor, self.model, self.starts, self.noise)
        loss = self.learner.loss(rollout, self.model)
        gradients = torch.autograd.grad(loss, list(actor.parameters()))
        if self.symmetric and not by_kernels:  # theirs is so by itself
            actor.symmetrize(gradients)
        return rollout, gradients


def compare(case, share):
    (actual, gradients), (expected, others) = case(True), case(False)
    assert torch.equal(actual.counted, expected.counted)
    assert 0 < expected.counted.mean() < 1  # premise: some clips end
    for name in ("cost", "distance"):
        assert_close(getattr(actual, name), getattr(expected, name), share, name)
    if case.config.critic:
        assert_close(actual.obs, expected.obs, share, "obs")
    for i, (one, other) in enumerate(zip(gradients, others, strict=True)):
        assert other.abs().max() > 0
        assert_close(one, other, share, f"gradient {i}")


@needs_kernels
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("critic", [False, True])
@pytest.mark.parametrize("kind", ["drawn", "extreme"])
def test_imagined_rollouts_are_the_definitions(kind, critic, symmetric, instructions):
    # float32 sums of a few hundred terms in another order, five steps on; where robots have come to
    # grief angles are of hundreds of rad, whose sine has lost three more digits, and gradients
    # grow: 10^7 times in four steps, 10^12 times in five.
    horizon, share = (5, 2e-5) if kind == "drawn" else (4, 1e-2)
    compare(Case(kind, horizon=horizon, critic=critic, symmetric=symmetric), share)


@needs_kernels
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("robot", [r for r in ROBOTS.values() if r is not G1], ids=lambda r: r.name)
def test_imagined_rollouts_of_other_robots_are_the_definitions(robot, symmetric, instructions):
    compare(Case(symmetric=symmetric, robot=robot, critic=True), 2e-5)  # as above


@needs_kernels
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("batch", [1, 16, 17])
def test_any_number_of_robots_is_imagined(batch, symmetric):
    case = Case(batch=batch, symmetric=symmetric)
    case.starts = case.starts._replace(last_row=case.starts.row + 3)
    compare(case, 2e-5)


@needs_kernels
def test_other_observations_and_settings_are_imagined():
    task = wm.Config().task
    names = ("joint_vel", "command", "actions", "base_ang_vel", "motion_anchor_ori_b", "joint_pos")
    for change in (
        {"observations": names}, {"lead": 0},
        {"rewards": {"action_rate": -0.5, "joint_limit": -3.0, "body_ang_vel": 4.0}},
    ):  # fmt: skip
        for symmetric in (False, True):
            compare(Case(task=task.override(change), recovery=0.5, symmetric=symmetric), 2e-5)


@needs_kernels
@pytest.mark.parametrize("symmetric", [False, True])
def test_in_bfloat16_rollouts_are_the_definitions_up_to_its_rounding(symmetric):
    """A number has eight bits there, and sums of layers are rounded at other places."""
    compare(Case(bfloat16=True, symmetric=symmetric), 0.1)
    # What that leaves of sums over the batch: as far from float32 as the definition is.
    fine, coarse = Case(symmetric=symmetric), Case(bfloat16=True, symmetric=symmetric)
    truth = fine(False)[1]
    off = [
        [((g - t).norm() / t.norm()).item() for g, t in zip(coarse(by)[1], truth, strict=True)]
        for by in (True, False)
    ]
    assert max(off[0]) < 1.5 * max(off[1])


def prediction(model, kind, kernels_there, batch=21, steps=4, symmetric=False):
    """Cost, errors, and gradients of a model's predictions."""
    true = [State.of(*states(kind, batch, k)) for k in range(steps + 1)]
    targets = torch.randn(steps, batch, 29, generator=torch.Generator().manual_seed(0))
    predict = predictions.prediction_errors if kernels_there else WorldModel.prediction_errors
    build = torch.randn(batch, 4, generator=torch.Generator().manual_seed(1))
    cost, off = predict(model, true, targets, build)
    weights = torch.linspace(0.0, 1.0, cost.numel()).view_as(cost)
    parameters = [*model.network.parameters(), *model.linear.parameters()]
    gradients = torch.autograd.grad((weights * cost).sum(), parameters)
    if symmetric and not kernels_there:
        count = len(list(model.network.parameters()))
        model.network.symmetrize(gradients[:count]), model.linear.symmetrize(gradients[count:])
    return cost, off, gradients


@needs_kernels
@pytest.mark.parametrize(
    ("kind", "bfloat16", "share"),
    [("drawn", False, 1e-4), ("extreme", False, 1e-2), ("drawn", True, 0.15)],
)
@pytest.mark.parametrize("symmetric", [False, True])
def test_predictions_are_the_definitions(kind, bfloat16, share, symmetric, instructions):
    """The largest gradients are 14 times the mean size: 84 roundings of them are 1.4e-4 at worst.

    Sums are not in the same order every time: 120 repeats were off by up to 2.9e-5. In bfloat16 a
    symmetric model rounds other numbers, sums and differences, and the farthest is off by 0.11.
    """
    config = dataclasses.replace(wm.Config(), model_hidden=(34, 16))
    model = shaken_model(config, symmetric=symmetric)
    model.use_bfloat16 = bfloat16
    actual, expected = (
        prediction(model, kind, by, symmetric=symmetric) for by in (True, False)
    )  # fmt: skip
    for name, one, other in zip(("cost", "off"), actual, expected, strict=False):
        assert_close(one, other, share, name)
    for i, (one, other) in enumerate(zip(actual[2], expected[2], strict=True)):
        assert_close(one, other, share, f"gradient {i}")


@needs_kernels
def test_a_robot_that_is_no_number_has_no_cost_and_spoils_no_other():
    case = Case()
    expected, _ = case(True)
    case.starts.qpos[20, 9] = float("nan")
    rollout, gradients = case(True)
    assert rollout.cost[:, 20].isnan().all() and gradients[0].isnan().any()
    others = torch.arange(37) != 20
    assert torch.equal(rollout.cost[:, others], expected.cost[:, others])


# --- that nothing is left from before -------------------------------------------------------------


@needs_kernels
def test_two_rollouts_may_wait_for_their_gradients():
    case, other = Case(), Case()
    other.learner = case.learner  # the same owner of room
    other.starts = other.starts._replace(qvel=other.starts.qvel + 1)
    expected = [one(True)[1] for one in (case, other)]
    policy = case.learner.actor
    losses = [
        case.learner.loss(case.learner.imagination(policy, c.model, c.starts, c.noise), c.model)
        for c in (case, other)
    ]
    for loss, gradients in zip(losses, expected, strict=True):
        found = torch.autograd.grad(loss, list(policy.parameters()))
        assert all(torch.equal(a, b) for a, b in zip(found, gradients, strict=True))


@needs_kernels
def test_the_same_rollout_has_the_same_numbers():
    case = Case(bfloat16=True)
    (one, first), (other, second) = case(True), case(True)
    assert torch.equal(one.cost, other.cost)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def learned(updates, **changes):
    """Weights of both learners after some updates in a row, each by the other's new ones."""
    torch.manual_seed(0)
    config = dataclasses.replace(
        wm.Config(), hidden=(16, 8), model_hidden=(16, 8), policy_horizon=4, model_batch=24,
        policy_batch=20, model_horizon=3, model_updates=1, **changes,
    )  # fmt: skip
    clips = load_motions(["walk"])
    robots = wm.make_robots(clips, config.task, 4, wm.TrackerRunConfig(threads=1), 0)
    policy, dynamics = wm.PolicyLearner(config, robots.task, CPU), wm.ModelLearner(config, CPU)
    model = copy.deepcopy(dynamics.model).requires_grad_(False)
    buffer = wm.ReplayBuffer(40, 4, CPU)
    collector = wm.ReplayCollector(robots, config.action_noise, 0.75, 0)
    collector.run(policy.actor, buffer, 30)
    dynamics.model.update_normalizer(*buffer.newest_transitions(20))
    policy.update_normalizer(collector.obs)
    losses = []
    for _ in range(updates):
        losses.append(dynamics.learn(buffer, 1e-3)["losses/model"])
        model.load_state_dict(dynamics.model.state_dict())
        starts = buffer.starts((1, 20), dynamics.generator)
        losses.append(policy.learn(model, starts, 0.0, 1e-3, 0)["losses/policy"])
    robots.env.close()
    return losses, [v for net in (dynamics.model, policy.actor) for v in net.parameters()]


@needs_kernels
@pytest.mark.parametrize("critic", [False, True])
def test_many_updates_in_a_row_learn_what_the_definition_learns(critic, monkeypatch):
    """With weights, a model or a normalizer of before the losses would stay where they are."""
    losses, weights = learned(12, critic=critic)
    without_kernels(monkeypatch)
    expected, others = learned(12, critic=critic)
    assert abs(expected[-1] / expected[1] - 1) > 1e-3  # premise: it has learned something
    # Adam divides a gradient by its size: 1e-6 of it, added up over updates.
    np.testing.assert_allclose(losses, expected, rtol=2e-4)
    for one, other in zip(weights, others, strict=True):
        assert (one - other).abs().max() < 2e-4


# --- what is left to torch ------------------------------------------------------------------------


def test_what_the_kernels_do_not_know_is_left_to_torch():
    config = wm.Config()
    case = Case()
    takes, actor = case.learner.imagination.compiled.takes, case.learner.actor
    there = kernels() is not None
    assert takes(actor, case.model, case.starts) == there
    doubled = case.starts._replace(qpos=case.starts.qpos.double())
    assert not takes(actor, case.model, doubled)
    tanh = Network((160, 8, 29), "tanh", 1.0)
    assert not takes(tanh, case.model, case.starts)
    assert not takes(copy.deepcopy(actor).double(), case.model, case.starts)
    assert not takes(actor, copy.deepcopy(case.model).double(), case.starts)

    class Other(WorldModel):
        pass

    assert not takes(actor, Other((8,), 2), case.starts)
    optional = Case(task=config.task.override({"rewards": {"foot_contact": -0.5}}))
    assert not optional.learner.imagination.compiled.takes(actor, case.model, case.starts)


def test_without_kernels_it_is_said_how_much_slower_that_is(monkeypatch):
    without_kernels(monkeypatch)
    with pytest.warns(BMWarning, match="compiled part is missing.*times as long; install the"):
        case = Case()
    assert not case.learner.imagination.compiled.takes(case.learner.actor, case.model, case.starts)


@needs_kernels
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("OUTPUTS", "is for other numbers"), ("Misses", "from another version of learning/native"),
    ],
)  # fmt: skip
def test_a_library_of_other_numbers_is_not_used(change, sentence, monkeypatch):
    monkeypatch.setattr(compiled, change, 71 if change == "OUTPUTS" else compiled.Costs)
    with pytest.warns(RuntimeWarning, match=sentence):
        assert compiled.kernels.__wrapped__() is None


# --- noise ----------------------------------------------------------------------------------------


def test_even_numbers_are_even():
    generator = torch.Generator().manual_seed(3)
    numbers = even_numbers((50, 40, 163), generator)
    other = even_numbers((50, 40, 163), generator)
    again = even_numbers((50, 40, 163), torch.Generator().manual_seed(3))
    assert numbers.dtype == torch.float32 and torch.equal(numbers, again)
    assert numbers.min() >= -1 and numbers.max() <= 1
    flat, count = numbers.flatten().double(), numbers.numel()
    # Five standard deviations of each figure.
    assert abs(flat.mean()) < 5 * (1 / 3 / count) ** 0.5
    assert abs(flat.square().mean() - 1 / 3) < 5 * (4 / 45 / count) ** 0.5
    shares = torch.histc(flat, 64, -1, 1) / count
    assert (shares - 1 / 64).abs().max() < 5 * (1 / 64 / count) ** 0.5
    for lag in (1, 2, 16, 163, 160 * 128):
        assert abs((flat[lag:] * flat[:-lag]).mean()) < 5 / 3 / (count - lag) ** 0.5
    assert abs((flat * other.flatten()).mean()) < 5 / 3 / count**0.5


@needs_kernels
def test_noise_does_not_depend_on_the_instructions():
    drawn = []
    for most in range(NEWEST + 1):
        kernels().native_choose(most)
        drawn.append(even_numbers((3, 7), torch.Generator().manual_seed(0)))
    kernels().native_choose(NEWEST)
    assert all(torch.equal(one, drawn[0]) for one in drawn)
