"""The diffusion models that ship with the package: they load, say what they are, and walk."""

import json
import zipfile

import numpy as np
import pytest

from bm_envs.diffusion.controller import Controller
from bm_envs.diffusion.model import FILE, load_model
from bm_envs.motion.library import LAFAN1
from bm_envs.policy import SHIPPED
from bm_envs.policy.shipping import LICENCE
from bm_envs.tasks.guided.robots import Robots
from bm_envs.tasks.guided.starts import moving_frames

NAMES = sorted(path.parent.name for path in SHIPPED.glob(f"*/{FILE}"))
HUMAN = "guided_human"  # in the folder policies/


def test_a_model_ships():
    assert "guided_body_pos" in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_files_are_small_and_say_what_they_are(name):
    model = load_model(name)
    assert model.name == name and model.representation.name == name.removeprefix("guided_")
    assert model.path.stat().st_size < 4e6
    assert not zipfile.is_zipfile(model.path)  # no pickle of weights either
    record = json.loads((model.path.parent / "policy.json").read_text())
    assert record["licence"] == "learned from motions under Apache-2.0"
    assert record["network"]["sha256"] == model.sha256
    assert record["training"]["commit"] and record["training"]["wall_s"] > 0
    clips = [f"walk_on_{seed}[0:60]" for seed in range(8)]
    assert model.clips_of_experts() == {"walks_on": clips}
    assert {path.name for path in model.path.parent.iterdir()} == {FILE, "policy.json"}


@pytest.mark.clone
def test_the_model_of_recorded_walks_tells_its_data_and_its_licence():
    model = load_model(HUMAN)
    assert model.representation.name == "body_pos" and model.path.stat().st_size < 4e6
    assert not zipfile.is_zipfile(model.path)
    record = json.loads((model.path.parent / "policy.json").read_text())
    assert record["licence"] == LICENCE and record["network"]["sha256"] == model.sha256
    assert record["training"]["commit"] and record["training"]["wall_s"] > 0
    licences = {clip["licence"] for part in record["data"] for clip in part["clips"]}
    assert licences == {LAFAN1.licence, "Apache-2.0"}
    for part in record["data"]:
        assert 0 < part["accepted"] <= part["tried"] and part["settings"]["noise_scale"] > 0
        for figure in part["coverage"].values():
            assert sum(figure["share"]) == pytest.approx(1, abs=1e-3)  # four digits of each
    assert {path.name for path in model.path.parent.iterdir()} == {FILE, "policy.json"}


@pytest.mark.slow
@pytest.mark.parametrize("name", [*NAMES, pytest.param(HUMAN, marks=pytest.mark.clone)])
def test_two_seconds_in_the_world(name):
    """Four robots from frames of a walk, no reference, ten calls of the network a tick."""
    model = load_model(name, threads=2)
    qpos, qvel = moving_frames(("walk",), 0.4)
    chosen = np.linspace(100, len(qpos) - 100, 4).astype(int)
    robots = Robots(4, model.drives, threads=2)
    robots.reset(qpos[chosen], qvel[chosen])
    controller = Controller(model, 4, seed=0, method=10)
    for _ in range(100):
        action = controller.act(robots.states())
        assert action.shape == (4, 29) and np.isfinite(action).all()
        robots.step(action)
    assert not robots.is_down().any()
    # What it plans begins where the robot is: the past is given, and the future goes on from it.
    plan = controller.plan()
    step = np.linalg.norm(plan.root_pos[:, 4] - plan.root_pos[:, 3], axis=1)
    assert step.max() < 0.05  # at walking speed 0.01 m in 20 ms
    robots.close()
