"""`benchmarks/retarget_solvers.py`: two implementations of one inverse kinematics agree."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import people
import pytest
import warm_python

from bm_envs.errors import ConfigError
from bm_envs.motion import retarget
from bm_envs.motion.library import load_motion
from bm_envs.motion.skeletons import body_motion, find_mapping
from bm_envs.results import check_result

pytest.importorskip("mink", reason="retargeting needs the extra 'retarget'")
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
import retarget_solvers  # noqa: E402


@pytest.fixture(scope="module")
def walker():
    person = people.robot_as_person(load_motion("walk[2:2.4]"))
    return replace(person, fps=50.0)


def test_both_find_the_same_motion_where_no_limit_is_in_the_way(walker):
    """Tasks, weights and Jacobians are written twice; both minimise the same sum of squares."""
    wanted = retarget.targets(body_motion(walker, find_mapping(walker)))
    weights = retarget.Weights()
    one, two = (solver(wanted, weights) for solver in retarget_solvers.SOLVERS.values())
    # Each frame ends at a step under 1e-4 m or rad, so that near to the minimum.
    np.testing.assert_allclose(one[:, :3], two[:, :3], atol=1e-4)
    np.testing.assert_allclose(one[:, 7:], two[:, 7:], atol=1e-4)
    assert np.abs(np.diff(one[:, 7:], axis=0)).max() > 1e-2, "premise: it moves"


def test_the_command(walker, tmp_path, capsys):
    path = tmp_path / "walk.bvh"
    path.write_text(people.bvh_text(walker))
    out = tmp_path / "o.json"
    retarget_solvers.main(retarget_solvers.Config((path,), repeats=1, json=out))
    assert "walk" in capsys.readouterr().out
    value = json.loads(out.read_text())
    assert [row["solver"] for row in value["rows"]] == ["mink", "newton"]
    value["commit"], value["command"] = "0" * 40, "python benchmarks/retarget_solvers.py walk.bvh"
    check_result(value, "o.json")


def test_the_command_refuses(tmp_path):
    with pytest.raises(ConfigError, match="Expected one BVH file or more"):
        retarget_solvers.Config(())
    with pytest.raises(ConfigError, match="repeats is 0, expected 1 or more"):
        retarget_solvers.Config((Path("a.bvh"),), repeats=0)
    with pytest.raises(ConfigError, match="is a folder, expected the name of a file for --json"):
        retarget_solvers.main(retarget_solvers.Config((Path("a.bvh"),), json=tmp_path))
    done = warm_python.run(
        [sys.executable, str(ROOT / "benchmarks" / "retarget_solvers.py"), "none.bvh"],
        capture_output=True, text=True, timeout=300, cwd=tmp_path,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (
        2, "error: none.bvh: does not exist, expected a .bvh file.\n"
    )  # fmt: skip
