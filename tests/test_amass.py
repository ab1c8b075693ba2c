"""SMPL-family motions, against SciPy's rotations and a robot that walks as a person."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import people
import pytest
from scipy.spatial.transform import Rotation

from bm_envs.errors import MotionError
from bm_envs.motion.amass import JOINTS, read_amass
from bm_envs.motion.clip import load_npz
from bm_envs.motion.skeletons import find_mapping

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))
import retarget as tool  # noqa: E402

FRAMES = 12
PARENTS = [-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19]
"""The first 22 entries of SMPL's `kintree_table`, typed from its documentation."""


@pytest.fixture
def files(tmp_path):
    """A random motion of a random body, its NPZ and its skeleton file."""
    rng = np.random.default_rng(0)
    rest = np.concatenate([rest_pose(), np.zeros((2, 3))]) + rng.normal(size=(24, 3)) / 50
    arrays = {
        "poses": rng.uniform(-2, 2, (FRAMES, 156)), "trans": rng.normal(size=(FRAMES, 3)),
        "betas": np.zeros(16), "mocap_framerate": np.array(120.0), "gender": np.array("neutral"),
    }  # fmt: skip
    np.savez(tmp_path / "a.npz", **arrays)
    (tmp_path / "body.json").write_text(json.dumps({"joints": rest.tolist()}))
    return tmp_path, arrays, rest


def test_where_the_joints_are(files):
    folder, arrays, rest = files
    person = read_amass(folder / "a.npz", folder / "body.json")
    assert [parent for _, parent in JOINTS] == PARENTS
    assert (person.fps, person.num_frames, len(person.names)) == (120.0, FRAMES, 22)
    assert find_mapping(person).name == "SMPL"
    pos, quat = person.world()
    for t in range(FRAMES):
        turns, points = {}, {}
        for joint, parent in enumerate(PARENTS):
            local = Rotation.from_rotvec(arrays["poses"][t, 3 * joint : 3 * joint + 3])
            if parent < 0:
                turns[joint], points[joint] = local, arrays["trans"][t] + rest[0]
            else:
                turns[joint] = turns[parent] * local
                points[joint] = points[parent] + turns[parent].apply(rest[joint] - rest[parent])
            np.testing.assert_allclose(pos[t, joint], points[joint], atol=1e-12)
            found = people.rotation(quat[t, joint])
            assert (found.inv() * turns[joint]).magnitude() < 1e-7


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"trans": ...},
            "lacks trans, expected the layout of AMASS: poses, trans, mocap_framerate.",
        ),
        ({"mocap_framerate": ...}, "lacks mocap_framerate, expected the layout of AMASS"),
        ({"poses": np.zeros((12, 60))}, "poses has type float64 and shape (12, 60), expected numb"),
        ({"poses": np.zeros((12, 67))}, "poses has type float64 and shape (12, 67), expected numb"),
        ({"trans": np.zeros((12, 2))}, "trans has type float64 and shape (12, 2), expected numbe"),
        ({"trans": np.zeros((9, 3))}, "poses and trans have 12 and 9 frames, expected 3 to"),
        ({"trans": np.full((12, 3), np.inf)}, "holds NaN or infinity, expected finite numbers."),
        ({"mocap_framerate": np.zeros(2)}, "mocap_framerate has type float64 and shape (2,)"),
        ({"mocap_framerate": 0}, "its rate is 0 Hz, expected 1 to 10000."),
        ({"trans": np.array([object()] * 12)}, "holds pickled Python objects, which are never"),
    ],
)
def test_a_file_that_is_wrong(files, changes, sentence):
    folder, arrays, _ = files
    path = folder / "b.npz"
    np.savez(path, **{k: v for k, v in (arrays | changes).items() if v is not ...})
    with pytest.raises(MotionError) as caught:
        read_amass(path, folder / "body.json")
    said = str(caught.value)
    assert said.startswith(f"{path}: ") and sentence in said and "\n" not in said, said


def test_the_skeleton_is_the_users_to_bring(files):
    folder, _, rest = files
    path = folder / "a.npz"
    with pytest.raises(MotionError) as caught:
        read_amass(path, None)
    assert str(caught.value) == (
        f"{path}: has no skeleton, which is in the licensed body model; expected the 22 joints of"
        " its rest pose in a JSON file (--skeleton)."
    )
    for value, sentence in (
        ({}, "lacks 'joints', expected the positions of the rest pose's joints."),
        ({"joints": rest[:20].tolist()}, "joints has 20 positions, expected 22 or more"),
        ({"joints": rest[:, :2].tolist()}, "joints is no array of N x 3 finite numbers."),
        ({"joints": [["a", 1, 2]] * 22}, "joints is no array of N x 3 finite numbers."),
    ):
        body = folder / "bad.json"
        body.write_text(json.dumps(value))
        with pytest.raises(MotionError) as caught:
            read_amass(path, body)
        assert str(caught.value).startswith(f"{body}: {sentence}")


def test_a_person_of_the_family_on_the_robot(tmp_path):
    """Standing and raising the arms ahead: the robot stands, and its arms go up from its sides."""
    pytest.importorskip("mink", reason="retargeting needs the extra 'retarget'")
    rest = rest_pose()
    frames = 61
    poses, trans = np.zeros((frames, 66)), np.zeros((frames, 3))
    upright = Rotation.from_euler("x", 90, degrees=True)  # the model's y up to the file's z up
    poses[:, :3] = upright.as_rotvec()
    trans[:] = upright.apply(rest[0]) - rest[0] + (0, 0, 1.2)
    names = [name for name, _ in JOINTS]
    share = np.linspace(0.0, 1.0, frames)[:, None]
    for side, sign in (("left", 1.0), ("right", -1.0)):
        joint = names.index(f"{side}_shoulder")
        # From hanging (a quarter turn about z from the T-pose) to pointing ahead (model's +z).
        hang, ahead = (Rotation.from_rotvec(v) for v in (
            (0.0, 0.0, -sign * np.pi / 2), (0.0, -sign * np.pi / 2, 0.0)))  # fmt: skip
        way = (ahead * hang.inv()).as_rotvec()
        turns = Rotation.from_rotvec(share * way) * hang
        poses[:, 3 * joint : 3 * joint + 3] = turns.as_rotvec()
    np.savez(tmp_path / "a.npz", poses=poses, trans=trans, mocap_frame_rate=60.0)
    (tmp_path / "body.json").write_text(json.dumps({"joints": rest.tolist()}))
    out = tmp_path / "o.npz"
    tool.main(tool.Config(tmp_path / "a.npz", out, skeleton=tmp_path / "body.json"))
    clip = load_npz(out)
    assert clip.foot_contact.all()
    height = Rotation.from_quat(clip.body_quat_w[:, 0][:, [1, 2, 3, 0]]).apply([0, 0, 1.0])[:, 2]
    assert height.min() > 0.99
    from bm_envs.robots import g1

    body = {name: i for i, name in enumerate(g1.BODY_NAMES)}
    for side in ("left", "right"):
        arm = clip.body_pos_w[:, body[f"{side}_wrist_yaw_link"]]
        arm = arm - clip.body_pos_w[:, body[f"{side}_shoulder_roll_link"]]
        arm = arm / np.linalg.norm(arm, axis=1, keepdims=True)
        # Half a degree is smoothing at the ends; the line of a stretched arm is 3 degrees off it.
        assert arm[0, 2] < -0.97 and arm[-1, 0] > 0.97, side


def rest_pose():
    """A T-pose of 22 joints in round numbers, y up and z ahead: no body model's."""
    side = {
        "hip": (0.1, -0.08, 0), "knee": (0.1, -0.48, 0), "ankle": (0.1, -0.88, 0),
        "foot": (0.1, -0.94, 0.13), "collar": (0.08, 0.42, 0), "shoulder": (0.18, 0.45, 0),
        "elbow": (0.45, 0.45, 0), "wrist": (0.7, 0.45, 0),
    }  # fmt: skip
    middle = {"pelvis": 0.0, "spine1": 0.1, "spine2": 0.24, "spine3": 0.3, "neck": 0.5, "head": 0.6}
    rest = []
    for name, _ in JOINTS:
        if name in middle:
            rest.append((0.0, middle[name], 0.0))
        else:
            which, _, part = name.partition("_")
            x, y, z = side[part]
            rest.append((x if which == "left" else -x, y, z))
    return np.array(rest, float)


def test_the_tree_of_the_family_and_bvh_are_one(files, tmp_path):
    """Written as BVH and read again, the person has its joints in the same places."""
    from bm_envs.motion.bvh import read_bvh

    folder, *_ = files
    person = read_amass(folder / "a.npz", folder / "body.json")
    # A BVH lists joints depth first.
    order, stack = [], [0]
    while stack:
        joint = stack.pop()
        order.append(joint)
        stack += [j for j, p in reversed(list(enumerate(person.parents))) if p == joint]
    path = tmp_path / "b.bvh"
    path.write_text(people.bvh_text(replace(person, source="")))
    back = read_bvh(path)
    assert list(back.names) == [person.names[j] for j in order]
    np.testing.assert_allclose(back.world()[0], person.world()[0][:, order], atol=1e-6)
