"""diffusion/box.py: what a guide moves out of the range of the training data is counted."""

import numpy as np
import pytest
from stand_in_model import Model, still

from bm_envs.diffusion.box import Box
from bm_envs.diffusion.costs import Joystick, guide
from bm_envs.diffusion.model import CLIP, load_model
from bm_envs.diffusion.sampler import LENGTH
from bm_envs.tasks.guided.states import PAST

FUTURE = LENGTH - PAST


def counted(forward, level, *, strength=1.0, active=(True, True)):
    """The box after one call that guides two robots, of which one stands, to `forward` m/s."""
    model = Model({}, still(0.0))  # its data lie between -1 and 1
    box = Box(model, 2)
    box.active[:] = active
    cost = Joystick(np.array([[forward, 0.0], [0.5, 0.0]]), np.zeros(2), turn=0.0)
    features = np.zeros((2, LENGTH, model.width), np.float32)
    levels = np.full((2, LENGTH), level)
    move = guide(cost, model.representation, strength, scaling="even_share", watch=box)
    move(features, levels)
    return box


def test_half_of_two_robots_leaves_the_box():
    box = counted(1.5, 11)
    assert box.share() == 0.5
    assert box.by_feature() == {"root_lin_vel 0": 0.5}
    assert box.moved.sum() == 2 * FUTURE


def test_noisier_calls_and_robots_that_fell_do_not_count():
    assert counted(1.5, 12).share() is None
    assert counted(1.5, 11, active=(True, False)).share() == 1.0
    assert counted(1.5, 11, active=(False, True)).share() == 0.0


def test_what_is_not_moved_does_not_count():
    box = counted(1.5, 5, strength=0.0)
    assert box.share() is None and box.by_feature() == {}


def test_counts_add_up_over_calls():
    model = Model({}, still(0.0))
    box = Box(model, 1)
    features, levels = np.zeros((1, LENGTH, model.width)), np.full((1, LENGTH), 3)
    step = np.zeros_like(features)
    step[:, PAST, 0] = 0.5
    for size in (1.0, 3.0, 3.0):
        box(features, size * step, levels)
    assert box.share() == pytest.approx(2 / 3)
    step[:, :PAST] = 5.0  # what is known is not moved, whatever the step says
    box(features, step, levels)
    assert box.moved.sum() == 4


@pytest.mark.parametrize("name", ["guided_body_pos", "guided_joint_rot"])
def test_the_range_of_a_model_is_narrower_than_its_cut(name):
    """The pelvis of walking robots is 0.68 to 0.79 m high, and a cut is a tenth further out."""
    model = load_model(name)
    low, high = model.range
    height = model.representation.blocks["root_pos"].start + 2
    assert 0.66 < low[height] < 0.70 and 0.78 < high[height] < 0.81
    far = np.full((1, LENGTH, model.representation.size), 1e3, np.float32)
    cut = model.unscale(model.bound(model.scale(far)))
    np.testing.assert_allclose(cut[0, 0] - high, (CLIP - 1) * 0.5 * (high - low), rtol=2e-2)
