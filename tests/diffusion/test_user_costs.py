"""Costs of one's own: derivatives in the world, loading, every refusal, what a run says of one."""

import re
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from stand_in_model import Model, still

from bm_envs.diffusion.costs import Joystick, frame_of, guide
from bm_envs.diffusion.model import load_model
from bm_envs.diffusion.sampler import LENGTH
from bm_envs.diffusion.steering import Pilot, Steering
from bm_envs.diffusion.user_costs import Loaded, OwnCost, PlanCost, load_cost, with_gradient
from bm_envs.envs import GuidedVectorEnv
from bm_envs.errors import BMWarning, ConfigError
from bm_envs.robots import g1
from bm_envs.rotations import quat_yaw
from bm_envs.tasks.guided.robots import Robots
from bm_envs.tasks.guided.states import (
    NOW,
    PAST,
    REPRESENTATIONS,
    Frame,
    States,
    now_frame,
    representation,
)

ROOT = Path(__file__).resolve().parents[2]
COSTS = ROOT / "benchmarks" / "costs"
REP = representation("body_pos")
FUTURE = LENGTH - PAST
HAND, FOOT = "left_wrist_yaw_link", "right_ankle_roll_link"


def features(rep=REP, count=2, seed=0):
    return np.random.default_rng(seed).normal(0, 0.4, (count, LENGTH, rep.size))


def frames(count):
    rng = np.random.default_rng(5)
    origin = np.c_[rng.uniform(-3, 3, (count, 2)), np.zeros(count)]
    return Frame(origin, rng.uniform(-3, 3, count))


def cost_of(function, count=2, time=0.0):
    return PlanCost(function, frames(count), time)


def everything(plan):
    """A number of all that a plan has in the world, of no symmetry."""
    point = torch.tensor([0.7, -0.3, 1.1])
    return (
        ((plan.link(HAND) - point) ** 2).sum((1, 2))
        + torch.sin(plan.link(FOOT)).sum((1, 2))
        + (plan.pos[..., 0] * plan.pos[..., 1]).sum(1)
        + (torch.cos(plan.heading) * plan.ahead).sum(1)
        + (plan.velocity[..., 0] ** 3).sum(1)
        + (plan.ang_vel * torch.tensor([0.1, 0.2, 0.3])).sum((1, 2))
        + (plan["root_lin_vel"][..., 1] ** 2).sum(1)
        + plan.now_pos.sum(1)
        + plan.now_heading
        + plan.time
    )


@with_gradient
def hand_by_hand(plan):
    """The hand of `everything`, its gradient written down."""
    off = plan.link(HAND) - [0.7, -0.3, 1.1]
    value = (off**2).sum((1, 2)) + (plan.pos[..., 0] * plan.pos[..., 1]).sum(1)
    by_pos = np.zeros_like(plan.pos)
    by_pos[..., 0], by_pos[..., 1] = plan.pos[..., 1], plan.pos[..., 0]
    return value, {HAND: 2 * off, "pos": by_pos}


@pytest.mark.parametrize("name", REPRESENTATIONS)
@pytest.mark.parametrize("function", [everything, hand_by_hand])
def test_the_gradient_is_the_values_derivative(name, function):
    """Central differences in every number of some steps; h and tolerance as in test_costs.py."""
    rep, h = REPRESENTATIONS[name], 1e-6
    x = features(rep)
    gradient = cost_of(function).gradient(x, rep)
    assert gradient.shape == x.shape and not gradient[:, :PAST].any()
    one = Frame(*(value[:1] for value in frames(2)))
    many = Frame(*(np.repeat(value, 2 * rep.size, 0) for value in one))
    shifts = h * np.concatenate([np.eye(rep.size), -np.eye(rep.size)])
    for step in (PAST, 11, LENGTH - 1):
        windows = np.repeat(x[:1], len(shifts), 0)
        windows[:, step] += shifts
        up, down = np.split(PlanCost(function, many).value(windows, rep), 2)
        np.testing.assert_allclose(gradient[0, step], (up - down) / (2 * h), atol=5e-7)


@pytest.mark.parametrize("name", REPRESENTATIONS)
def test_a_plan_is_in_the_world(name):
    """Read from features that real states were written as, wherever the robots are."""
    robots = Robots(2, Model({}, still(0.0)).drives or DRIVES, threads=1)
    rng = np.random.default_rng(2)
    qpos = np.tile([0.0, 0.0, 0.76, 1.0, 0.0, 0.0, 0.0, *g1.DEFAULT_JOINT_POS], (2, 1))
    qpos[:, :2] = rng.uniform(-3, 3, (2, 2))
    qpos[:, 3:7] = [[np.cos(1.1), 0, 0, np.sin(1.1)], [np.cos(-0.4), 0, 0, np.sin(-0.4)]]
    robots.reset(qpos, rng.normal(0, 0.3, (2, 35)))
    past = []
    for _ in range(LENGTH):
        past.append(robots.states())
        robots.step(rng.normal(0, 0.5, (2, 29)))
    states = States(*(np.stack(values, 1) for values in zip(*past, strict=True)))
    rep, frame = REPRESENTATIONS[name], now_frame(states, NOW)
    x = rep.encode(states, NOW).astype(float)
    plan = PlanCost(hand_by_hand, frame, np.array([1.0, 2.0])).plan(x, rep)
    near = dict(atol=2e-5)  # of float32 states
    np.testing.assert_allclose(plan.pos, states.root_pos[:, PAST:], **near)
    np.testing.assert_allclose(plan.velocity, states.root_lin_vel[:, PAST:], **near)
    np.testing.assert_allclose(plan.ang_vel, states.root_ang_vel[:, PAST:], **near)
    np.testing.assert_allclose(plan.now_pos, states.root_pos[:, NOW], **near)
    np.testing.assert_allclose(plan.now_heading, quat_yaw(states.root_quat[:, NOW]), **near)
    turned = plan.heading - quat_yaw(states.root_quat[:, PAST:])
    np.testing.assert_allclose(np.angle(np.exp(1j * turned)), 0, **near)
    hand = states.body_pos[:, PAST:, g1.BODY_NAMES.index(HAND)]
    np.testing.assert_allclose(plan.link(HAND), hand, **near)
    assert plan.time.tolist() == [1.0, 2.0]
    np.testing.assert_allclose(plan.ahead, 0.02 * np.arange(1, FUTURE + 1))
    at = frame_of(states.root_pos[:, NOW], states.root_quat[:, NOW])
    np.testing.assert_allclose(at.origin, frame.origin, **near)
    np.testing.assert_allclose(at.yaw, frame.yaw, **near)


DRIVES = None


@pytest.fixture(scope="module", autouse=True)
def drives():
    global DRIVES
    DRIVES = load_model("guided_body_pos").drives
    return DRIVES


def test_the_error_of_walking_is_the_joysticks():
    """Of robots that lean nowhere, anywhere in the world."""
    x = features()
    x[..., REP.blocks["root_rot"]] *= [0.0, 0.0, 1.0]
    x[:, NOW, REP.blocks["root_rot"]] = 0.0
    x[:, NOW, REP.blocks["root_pos"]] *= [0.0, 0.0, 1.0]
    goal, rate = np.array([[0.6, 0.1], [-0.3, 0.0]]), np.array([0.5, -0.8])

    def walk(plan):
        return plan.walk_error(*torch.tensor(goal.T), torch.tensor(rate))

    truth = Joystick(goal, rate, consistent=1.0, turn=1.0)
    np.testing.assert_allclose(cost_of(walk).value(x, REP), truth.value(x, REP))
    slopes = [cost.gradient(x, REP) for cost in (cost_of(walk), truth)]
    upright = [REP.blocks["root_rot"].start, REP.blocks["root_rot"].start + 1]
    for slope in slopes:
        slope[..., upright] = 0.0  # the heading answers to a lean, by a little
    np.testing.assert_allclose(*slopes, atol=1e-12)


def test_by_hand_and_by_torch_are_one():
    def by_torch(plan):
        off = plan.link(HAND) - torch.tensor([0.7, -0.3, 1.1])
        return (off**2).sum((1, 2)) + (plan.pos[..., 0] * plan.pos[..., 1]).sum(1)

    x = features()
    for method in ("value", "gradient"):
        found = [getattr(cost_of(f), method)(x, REP) for f in (by_torch, hand_by_hand)]
        np.testing.assert_allclose(*found, atol=1e-6)  # the point is float32


def test_a_robot_that_diverged_asks_for_nothing_and_disturbs_nobody():
    x = features(count=3)
    x[1, 7] = np.nan
    frame = frames(3)
    frame.origin[2] = np.inf
    cost = PlanCost(everything, frame)
    gradient = cost.gradient(x, REP)
    assert gradient[0].any() and not gradient[1:].any()
    assert cost.value(x, REP)[1:].tolist() == [0, 0]


def test_a_guide_takes_a_hand_to_a_height():
    def high(plan):
        return torch.relu(1.0 - plan.link(HAND)[..., 2]).square().sum(1)

    for rep in REPRESENTATIONS.values():
        x = features(rep).astype(np.float32)
        moved = x
        for _ in range(8):  # joints do not move a hand in straight lines
            moved = guide(cost_of(high), rep, 1.0, scaling="even_share")(
                moved, np.full((2, LENGTH), 9)
            )
        before, after = (cost_of(high).value(v, rep) for v in (x, moved))
        assert (after < 0.1 * before).all(), rep.name
        np.testing.assert_array_equal(moved[:, :PAST], x[:, :PAST])


# --- loading --------------------------------------------------------------------------------------

LOW = """
def low(plan):
    return ((plan.pos[..., 2] - 0.7) ** 2).sum(1)

def outcome(plan):
    return {"pelvis_m": plan.pos[..., 2].mean(1)}

HEIGHT = 0.7
"""


def written(folder, text, name="my_cost.py"):
    path = folder / name
    path.write_text(text)
    return path


def test_costs_of_files_and_modules(tmp_path, monkeypatch):
    path = written(tmp_path, LOW, "random.py")  # the name of another module
    found = load_cost(f"{path}:low")
    assert found.function.__name__ == "low" and found.reference == "random.py:low"
    assert found.outcome.__name__ == "outcome" and hasattr(sys.modules["random"], "choice")
    monkeypatch.chdir(tmp_path)
    assert load_cost("random.py:low").function is not found.function
    written(tmp_path, LOW, "one_of_mine.py")
    monkeypatch.syspath_prepend(tmp_path)
    assert load_cost("one_of_mine:low").function.__module__ == "one_of_mine"


@pytest.mark.parametrize(
    ("reference", "sentence"),
    [
        ("low", "cost is 'low', expected file.py:function or module:function."),
        ("f.py:", "cost is 'f.py:', expected file.py:function or module:function."),
        ("f.py:a b", "cost is 'f.py:a b', expected file.py:function or module:function."),
        ("none.py:low", "none.py: no such file, expected one with the function of --cost."),
        ("my_cost.py:lov",
         "Unknown function of my_cost.py 'lov'; did you mean 'low'? Known: low, outcome."),
        ("empty.py:low", "empty.py has no function, expected 'low' in it."),
        ("folder.py:low", "folder.py: is no file, expected one with the function of --cost."),
        (".mine:low", "cost is '.mine:low', expected file.py:function or module:function."),
        ("my_cost.py:HEIGHT", "cost 'HEIGHT' of my_cost.py is float, expected a function."),
        ("no_such_thing.at_all:low",
         "cost is of module 'no_such_thing.at_all', which is not there; a file is named as "
         "path/to/file.py:function."),
        ("syntax.py:low", "syntax.py (syntax.py, line 2) raises SyntaxError: unmatched ']'."),
        ("broken.py:low",
         "broken.py (broken.py, line 2) raises ZeroDivisionError: division by zero."),
        ("needs.py:low",
         "needs.py (needs.py, line 1) raises ModuleNotFoundError: No module named 'no_such_one'."),
        ("leaves.py:low", "leaves.py (leaves.py, line 1) raises SystemExit: 3."),
    ],
)  # fmt: skip
def test_what_cannot_be_loaded_is_one_sentence(tmp_path, monkeypatch, reference, sentence):
    monkeypatch.chdir(tmp_path)
    written(tmp_path, LOW)
    written(tmp_path, "def low(plan):\n    return ]", "syntax.py")
    written(tmp_path, "\nx = 1 / 0\n", "broken.py")
    written(tmp_path, "import no_such_one\n", "needs.py")
    written(tmp_path, "raise SystemExit(3)\n", "leaves.py")
    written(tmp_path, "", "empty.py")
    (tmp_path / "folder.py").mkdir()
    with pytest.raises(ConfigError) as caught:
        load_cost(reference)
    assert str(caught.value) == sentence


# --- refusals of a function -----------------------------------------------------------------------


def scalar(plan):
    return plan.pos.sum()


def by_step(plan):
    return plan.pos[..., 2]


def nan(plan):
    return (plan.pos[..., 2] - 1e6).log().sum(1)


def constant(plan):
    return torch.ones(len(plan.time))


def number(plan):
    return 3.0


def pair(plan):
    return plan.pos[..., 2].sum(1), {"pos": 0}


def fails(plan):
    return plan.pos[..., 7].sum(1)


def exits(plan):
    sys.exit("no")


def unknown_link(plan):
    return plan.link("left_hand")[..., 2].sum(1)


def joints(plan):
    return plan["joint_pos"].square().sum((1, 2))


@with_gradient
def no_pair(plan):
    return plan.pos[..., 2].sum(1)


@with_gradient
def no_slopes(plan):
    return np.zeros(len(plan.time)), {}


@with_gradient
def wrong_slope(plan):
    return np.zeros(len(plan.time)), {"heading": np.zeros(3)}


@with_gradient
def unknown_slope(plan):
    return np.zeros(len(plan.time)), {"poss": np.zeros(3)}


@with_gradient
def nan_slope(plan):
    return np.zeros(len(plan.time)), {"pos": plan.pos + np.nan}


def changed(plan):
    height = plan.pos[..., 2].exp()
    value = height.sum(1)
    height.mul_(0)
    return value


def own_leaf(plan):
    return torch.zeros(len(plan.time), requires_grad=True)


def coarse(plan):
    return plan.pos[..., 2].sum(1).to(torch.bfloat16)


def imaginary(plan):
    return plan.pos[..., 2].sum(1).to(torch.complex128)


def huge(plan):
    return 1e300 * plan.pos[..., 2].sum(1)


class Odd(BaseException):
    def __str__(self):
        raise ValueError


def odd(plan):
    raise Odd


@with_gradient
def number_for_a_name(plan):
    return np.zeros(len(plan.time)), {3: plan.pos}


@with_gradient
def imaginary_slope(plan):
    return np.zeros(len(plan.time)), {"pos": plan.pos * 1j}


def line_of(function, offset=1):
    return f"(test_user_costs.py, line {function.__code__.co_firstlineno + offset})"


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (scalar, "cost 'scalar' returns shape (), expected [2], one value for each robot: sum over "
                 "the steps and axes, and not over the robots."),
        (by_step, "cost 'by_step' returns shape (2, 16), expected [2], one value for each robot: "
                  "sum over the steps and axes, and not over the robots."),
        (nan, "value of cost 'nan' is not finite everywhere, expected finite numbers of shape "
              "[2]."),
        (constant, "cost 'constant' returns a value that does not depend on the plan, expected one "
                   "made of plan.pos, plan.heading, plan.link(...) or the like by operations of "
                   "torch."),
        (number, "cost 'number' returns float, expected a torch tensor [N], one value for each "
                 "robot."),
        (pair, "cost 'pair' returns a tuple, expected its value [N]; a function that returns its "
               "own gradient must be marked @with_gradient."),
        (fails, f"cost 'fails' {line_of(fails)} raises IndexError: index 7 is out of bounds for "
                "dimension 1 with size 3."),
        (exits, f"cost 'exits' {line_of(exits)} raises SystemExit: no."),
        (unknown_link, f"cost 'unknown_link' {line_of(unknown_link)}: Unknown body 'left_hand'; "
                       "did you mean 'left_"),
        (joints, f"cost 'joints' {line_of(joints)}: 'joint_pos' is a block of joint_rot, and this "
                 "model's states are body_pos; what both have is named in docs/own_cost.md."),
        (no_pair, "cost 'no_pair' returns ndarray, expected the value and a dict of gradients, as "
                  "it is marked with_gradient."),
        (no_slopes, "cost 'no_slopes' returns no gradient, expected one by what its value depends "
                    "on."),
        (wrong_slope, "gradient by 'heading' of cost 'wrong_slope' has shape (3,), expected finite "
                      "numbers of shape [2, 16]."),
        (unknown_slope, "Unknown quantity of a plan 'poss'; did you mean 'pos'"),
        (changed, "cost 'changed' cannot be differentiated by torch: one of the variables needed "
                  "for gradient computation has been modified by an inplace operation; expected "
                  "operations that make new tensors and change none."),
        (own_leaf, "cost 'own_leaf' returns a value that does not depend on the plan, expected one "
                   "made of plan.pos, plan.heading, plan.link(...) or the like by operations of "
                   "torch."),
        (coarse, "cost 'coarse' returns a torch.bfloat16 tensor, torch.strided, on cpu, expected "
                 "torch.float32 or torch.float64, strided, on cpu."),
        (imaginary, "cost 'imaginary' returns a torch.complex128 tensor, torch.strided, on cpu, "
                    "expected torch.float32 or torch.float64, strided, on cpu."),
        (odd, f"cost 'odd' {line_of(odd)} raises Odd."),
        (number_for_a_name, "Unknown quantity of a plan '3'; known: "),
        (imaginary_slope, "gradient by 'pos' of cost 'imaginary_slope' are not numbers, expected "
                          "finite numbers of shape [2, 16, 3]."),
        (nan_slope, "gradient by 'pos' of cost 'nan_slope' is not finite everywhere, expected "
                    "finite numbers of shape [2, 16, 3]."),
    ],
)  # fmt: skip
def test_a_function_that_is_no_cost_is_one_sentence(function, sentence):
    with pytest.raises(ConfigError) as caught:
        cost_of(function).gradient(features(), REP)
    said = str(caught.value)
    whole = function not in (unknown_slope, unknown_link, number_for_a_name)
    assert (said if whole else said[: len(sentence)]) == sentence


def test_a_gradient_beyond_float32_is_one_sentence():
    """Plans are in float32 in a run; where the run begins, they are in float64."""
    with pytest.raises(ConfigError) as caught:
        cost_of(huge).gradient(features().astype(np.float32), REP)
    assert str(caught.value) == (
        "gradient of cost 'huge' is beyond 3e+38, expected smaller numbers: divide the cost by its "
        "scale."
    )
    named = crouch(0.7)
    named.__name__ = "two\nlines\x1b[31m"
    assert cost_of(named).name == "cost 'two?lines?[31m'"


def test_missing_torch_is_told_at_once_and_not_needed_by_hand(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ConfigError, match=re.escape(
        "cost 'everything' is differentiated by the package torch: pip install 'bm-envs[train]', "
        "or return the gradient yourself."
    )):  # fmt: skip
        cost_of(everything)
    assert cost_of(hand_by_hand).gradient(features(), REP).any()


def test_a_number_is_no_function():
    with pytest.raises(ConfigError, match="^PlanCost: function is 3, expected a function.$"):
        cost_of(3)


# --- in a run -------------------------------------------------------------------------------------


def stand_in(name="body_pos"):
    """Its data hold -1 to 1 of everything, and the pelvis at 0.68 to 0.79 m."""
    model = Model(DRIVES, still(0.0), name)
    height = model.representation.blocks["root_pos"].start + 2
    model.range[0][height], model.range[1][height] = 0.68, 0.79
    return model


def crouch(height):
    def crouch(plan):
        return ((plan.pos[..., 2] - height) ** 2).sum(1)

    return crouch


def watched(function, ticks=60, model=None, outcome=None, at=0.75):
    """A cost that has looked at robots which stand still."""
    model = model or stand_in()
    rep = model.representation
    own = OwnCost(Loaded(function, outcome), model, 2)
    robots = Robots(2, model.drives, threads=1)
    qpos = np.array([0.0, 0.0, at, 1.0, 0.0, 0.0, 0.0, *g1.DEFAULT_JOINT_POS])
    robots.reset(np.tile(qpos, (2, 1)), np.zeros((2, 35)))
    states = robots.states()
    window = States(*(np.repeat(v[:, None], LENGTH, 1) for v in states))
    x = rep.encode(window, NOW)
    for tick in range(ticks):
        time = np.full(2, 0.02 * (tick - 5))
        own.observe(x, states, time, np.array([True, tick < 40]))
    return own


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (0.60, "cost 'crouch' asks root_pos z for 0.60 m; the training data hold 0.68 to 0.79 m."),
        (0.95, "cost 'crouch' asks root_pos z for 0.95 m; the training data hold 0.68 to 0.79 m."),
        (0.70, None),
    ],
)  # fmt: skip
def test_what_the_data_do_not_hold_is_said_once(asked, said):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        own = watched(crouch(asked), ticks=150)
        own.conclude()
    assert [str(w.message) for w in caught] == ([said] if said else [])
    assert all(w.category is BMWarning for w in caught)
    (beyond,) = own.row()["beyond_data"] or [None]
    if said:
        assert beyond == {
            "feature": "root_pos z", "asked": pytest.approx(asked), "low": 0.68, "high": 0.79,
            "unit": "m",
        }  # fmt: skip
    else:
        assert beyond is None


def test_a_joint_is_named_with_its_range():
    def bent(plan):
        return ((plan["joint_pos"][..., g1.JOINT_NAMES.index("left_elbow_joint")] - 2) ** 2).sum(1)

    with pytest.warns(BMWarning, match=(
        "^cost 'bent' asks left_elbow_joint for 2.00 rad; the training data hold -1.00 to 1.00 ra"
    )):  # fmt: skip
        watched(bent, model=stand_in("joint_rot"))


def test_a_cost_that_asks_for_nothing_is_said():
    def nothing(plan):
        return torch.relu(plan.pos[..., 2] - 5.0).sum(1)

    own = watched(nothing)
    assert own.row()["asks_nothing"] is True
    with pytest.warns(BMWarning, match="^cost 'nothing' asks for nothing: its gradient was zero"):
        own.conclude()


def test_what_was_executed_is_valued_as_a_plan_is():
    """Robots that stand still at 0.75 m, against the sum by hand; one stops to count."""

    def outcome(plan):
        return {"height_m": plan.pos[..., 2].mean(1)}

    own = watched(crouch(0.70), outcome=outcome)
    row = own.row()
    assert row["mean_executed"] == pytest.approx(16 * 0.05**2, rel=1e-4)
    assert row["mean_planned"] == pytest.approx(16 * 0.05**2, rel=1e-4)
    assert row["outcome"] == {"height_m": pytest.approx(0.75)}
    np.testing.assert_allclose(own.executed(), 16 * 0.05**2, rtol=1e-4)
    assert row["strength"] == 0.5 and row["asks_nothing"] is False


def test_an_outcome_that_is_none_is_one_sentence():
    for bad, sentence in (
        (3, "outcome beside cost 'crouch' returns int, expected a dict of NumPy arrays"),
        ({"x": np.zeros(5)}, "'x' of outcome beside cost 'crouch' has shape (5,), expected"),
        ({"x": ["a", "b"]}, "'x' of outcome beside cost 'crouch' are not numbers, expected"),
        ({"x": [[1], [1, 2]]}, "'x' of outcome beside cost 'crouch' are not numbers, expected"),
        ({"a\nb": [None, None]}, "'a?b' of outcome beside cost 'crouch' are not numbers"),
    ):
        with pytest.raises(ConfigError, match=f"^{re.escape(sentence)}"):
            OwnCost(Loaded(crouch(0.7), lambda plan, bad=bad: bad), stand_in(), 2)
    with pytest.raises(ConfigError, match="^cost_strength is 1.5, expected 0 to 1, the share"):
        OwnCost(Loaded(crouch(0.7)), stand_in(), 2, strength=1.5)


def test_a_robot_without_an_outcome_does_not_count():
    """JSON has no number for it."""

    def outcome(plan):
        height = plan.pos[..., 2].mean(1)
        return {"one": [np.nan, 2.0], "none": height * np.nan, "far": height / 0.0}

    with np.errstate(divide="ignore"):
        row = watched(crouch(0.70), outcome=outcome).row()
    assert row["outcome"] == {"one": 2.0, "none": None, "far": None}


@pytest.mark.parametrize("task", ["walk_perturb", "joystick"])
def test_a_pilot_asks_for_it_beside_the_task(task):
    model = stand_in()
    env = GuidedVectorEnv(2, task, threads=1, autoreset_mode="disabled")
    env.reset(seed=0)
    height = model.representation.blocks["root_pos"].start + 2
    x = np.zeros((2, LENGTH, model.width), np.float32)
    moved = {}
    for strength in (0.0, 1.0):
        own = OwnCost(Loaded(crouch(0.7)), model, 2, strength)
        steering = Steering(scaling="even_share", correct_s=np.inf)
        found = Pilot(env.task, model, steering, own).guide()
        moved[strength] = x if found is None else found(x, np.full((2, LENGTH), 9))
    np.testing.assert_allclose(moved[1.0][:, PAST:, height], 0.7, atol=2e-5)
    assert not moved[0.0][..., height].any()
    assert moved[1.0][..., : height - 2].any() == moved[0.0][..., : height - 2].any()
    assert moved[0.0].any() == (task == "joystick")
    # After a push of twice what counts as one, a quarter is asked of that robot (in float32).
    pilot = Pilot(env.task, model, Steering(scaling="even_share", correct_s=np.inf, recover_at=0.2),
                  OwnCost(Loaded(crouch(0.7)), model, 2, 1.0))  # fmt: skip
    env.simulator.push(np.array([1]), np.array([[0.4, 0.0, 0.0]]), np.zeros((1, 3)))
    less = pilot.guide()(x, np.full((2, LENGTH), 9))[:, PAST:, height]
    np.testing.assert_allclose(less, np.repeat([[0.7], [0.175]], less.shape[1], 1), rtol=2e-4)
    env.close()


# --- the page -------------------------------------------------------------------------------------


@pytest.fixture
def page(tmp_path):
    """The page's functions as a reader would save them."""
    text = (ROOT / "docs" / "own_cost.md").read_text()
    north, by_hand, in_python = re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)
    assert "guide(" in in_python, "it is run with the other pages"
    return written(tmp_path, north, "north.py"), written(tmp_path, by_hand, "hand.py")


@pytest.mark.parametrize("name", ["guided_body_pos", "guided_joint_rot"])
def test_the_pages_first_cost_is_a_cost(page, name):
    model = load_model(name)
    rep = model.representation
    own = OwnCost(load_cost(f"{page[0]}:walk_north"), model, 2)
    x = np.tile(np.mean(model.range, 0), (2, LENGTH, 1)).astype(np.float32)
    # One faces north and walks so; the other faces east, and is asked to turn left and go on.
    way = rep.blocks["root_lin_vel"].start
    x[:, :, rep.blocks["root_rot"]] = x[:, :, rep.blocks["root_ang_vel"]] = 0
    x[0, :, way : way + 2] = [0.4, 0.0]
    place = rep.blocks["root_pos"].start
    x[:, :, place : place + 2] = 0.0
    x[0, :, place] = 0.4 * 0.02 * (np.arange(LENGTH) - NOW)
    cost = own.at(Frame(np.zeros((2, 3)), np.array([np.pi / 2, 0.0])), 0.0)
    value = cost.value(x, rep)
    assert value[0] < 1e-9 and value[1] > 1
    moved = guide(cost, rep, 1.0, scaling="even_share")(x, np.full((2, LENGTH), 9))
    turn = rep.blocks["root_ang_vel"].start + 2
    np.testing.assert_allclose(moved[1, PAST:, turn], 0.6, atol=1e-3)
    assert cost.value(moved, rep)[1] < 1e-3


def test_the_pages_cost_without_torch_is_right(page, monkeypatch):
    """Its gradient against autograd of the same."""

    def hand_up(plan):
        low = torch.clamp(plan.link("right_wrist_yaw_link")[..., 2] - 0.80, max=0.0)
        return low.square().sum(1)

    x = features()
    expected = cost_of(hand_up).value(x, REP), cost_of(hand_up).gradient(x, REP)
    monkeypatch.setitem(sys.modules, "torch", None)
    cost = cost_of(load_cost(f"{page[1]}:hand_up").function)
    np.testing.assert_allclose(cost.value(x, REP), expected[0])
    np.testing.assert_allclose(cost.gradient(x, REP), expected[1], atol=1e-12)


def test_the_pages_ranges_and_names_are_the_models():
    text = (ROOT / "docs" / "own_cost.md").read_text()
    models = {name: load_model(name) for name in ("guided_body_pos", "guided_joint_rot")}
    blocks = {name: model.representation.blocks for name, model in models.items()}
    body, joint = blocks["guided_body_pos"], blocks["guided_joint_rot"]
    wrist = body["body_pos"].start + 3 * g1.BODY_NAMES.index("left_wrist_yaw_link") + 2
    knee = joint["joint_pos"].start + g1.JOINT_NAMES.index("left_knee_joint")
    for row, name, index in (
        ("height of the pelvis, m", "guided_body_pos", body["root_pos"].start + 2),
        ("velocity forward, m/s", "guided_body_pos", body["root_lin_vel"].start),
        ("velocity to the side, m/s", "guided_joint_rot", joint["root_lin_vel"].start + 1),
        ("wrist (`left_wrist_yaw_link`) above the floor, m", "guided_body_pos", wrist),
        ("knee angle, rad", "guided_joint_rot", knee),
    ):
        low, high = (bound[index] for bound in models[name].range)
        assert f"| {row} | {low:.2f} | {high:.2f} |" in text


# --- the examples ---------------------------------------------------------------------------------

EXAMPLES = [("face_a_point", "face_a_point"), ("pelvis_low", "pelvis_low")]


@pytest.mark.parametrize("name", ["guided_body_pos", "guided_joint_rot"])
@pytest.mark.parametrize(("file", "function"), EXAMPLES)
def test_an_examples_own_step_lowers_it_within_the_data(file, function, name):
    """On states from the middle of a model's data; no warning of what they do not hold."""
    model = load_model(name)
    rep = model.representation
    loaded = load_cost(f"{COSTS / file}.py:{function}")
    own = OwnCost(loaded, model, 2)
    x = np.tile(np.mean(model.range, 0), (2, LENGTH, 1)).astype(np.float32)
    cost = own.at(frames(2), 0.0)
    moved = guide(cost, rep, 1.0, scaling="even_share")(x, np.full((2, LENGTH), 9))
    assert (cost.value(moved, rep) < 0.2 * cost.value(x, rep)).all()
    low, high = model.range
    asked = np.abs(moved - x) > 0.01 * (high - low)
    assert asked[:, PAST:].any()
    assert not (asked & ((moved < low) | (moved > high))).any()
    assert loaded.outcome is not None
