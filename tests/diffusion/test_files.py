"""What models, guided policies and roll-outs share: the drives that their files state."""

import json

import numpy as np
import pytest

from bm_envs.diffusion.files import DRIVES, check_drive, drive_metadata
from bm_envs.errors import PolicyError
from bm_envs.robots import g1
from bm_envs.tasks.guided.robots import drives_of
from bm_envs.tasks.track.config import ActuationConfig


def test_the_robots_own_drives_pass_and_survive_a_file():
    drives = drives_of(ActuationConfig())
    assert drives.keys() == DRIVES.keys()
    for name, text in drive_metadata(drives).items():
        assert check_drive(name, json.loads(text)) == tuple(float(v) for v in drives[name])


@pytest.mark.parametrize("name", DRIVES)
def test_what_no_drive_of_the_robot_has_is_refused(name):
    values = [float(v) for v in np.ones(g1.NUM_JOINTS)]
    for wrong in (values[:-1], [*values[:-1], 1e9], [*values[:-1], float("nan")]):
        with pytest.raises(PolicyError):
            check_drive(name, wrong)
    for no_list in (None, "1", {"a": 1}, [*values[:-1], True], [*values[:-1], "1"]):
        assert check_drive(name, no_list) is None
