"""SMPL-family motions, against SciPy's rotations and a robot that walks as a person."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import people
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from bm_envs.errors import MotionError
from bm_envs.motion.amass import JOINTS, read_amass
from bm_envs.motion.clip import load_npz
from bm_envs.motion.feasibility import examine
from bm_envs.motion.skeletons import body_motion, find_mapping
from bm_envs.robots import g1

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
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
        ({"mocap_framerate": "60"}, "mocap_framerate has type <U2 and shape (), expected numbers"),
        ({"mocap_framerate": np.nan}, "its rate is nan Hz, expected 1 to 10000."),
        ({"mocap_framerate": 1e300}, "its rate is 1e+300 Hz, expected 1 to 10000."),
        ({"fps": 30.0}, "has several rates (mocap_framerate 120, fps 30 Hz), expected one."),
        ({"mocap_framerate": ..., "dt": 0.0}, "dt is 0 s, expected 0.0001 to 1."),
        ({"poses": np.zeros((12, 22, 3, 3))}, "poses has type float64 and shape (12, 22, 3, 3), e"),
        (
            {"poses": np.zeros((12, 63))},
            "expected numbers: (T, 66 or more), 3 a joint with the roo",
        ),
        ({"poses": np.zeros((12, 156), "U4")}, "poses has type <U4 and shape (12, 156), expected"),
        ({"poses": ...}, "lacks poses, expected the layout of AMASS"),
        ({"poses": ..., "root_orient": np.zeros((12, 3))}, "lacks pose_body, expected the layout"),
        (
            {"poses": ..., "root_orient": np.zeros((9, 3)), "pose_body": np.zeros((12, 63))},
            "root_orient and pose_body and trans have 9 and 12 and 12 frames, expected 3 to",
        ),
        ({"poses": np.full((12, 156), 40.0)}, "in 100% of the frames a joint turns by more than a"),
        (
            {"trans": np.full((12, 3), 950.0)},
            "trans is 950 m over the origin (median), expected at",
        ),
        ({"trans": np.full((12, 3), 95.0)}, "it looks like mm or cm, and m are read."),
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
        ({"joints": [["1", "1", "2"]] * 22}, "joints is no array of N x 3 finite numbers."),
        ({"joints": [[True, False, True]] * 22}, "joints is no array of N x 3 finite numbers."),
        ({"joints": [*rest.tolist()[:-1], [1.0]]}, "joints is no array of N x 3 finite numbers."),
        ({"joints": None}, "joints is no array of N x 3 finite numbers."),
        ({"joints": [[float("nan")] * 3] * 22}, "joints is no array of N x 3 finite numbers."),
        ({"joints": (1000 * rest_pose()).tolist()}, "left_hip and left_ankle are 800 m apart, exp"),
        ({"joints": np.zeros((22, 3)).tolist()}, "left_hip and left_ankle are 0 m apart, expect"),
        (
            {"joints": rest_pose()[:, [0, 2, 1]].tolist()},
            "from the feet to the neck is 0 0 1.38, expected up along y:",
        ),
    ):
        body = folder / "bad.json"
        body.write_text(json.dumps(value))
        with pytest.raises(MotionError) as caught:
            read_amass(path, body)
        assert str(caught.value).startswith(f"{body}: {sentence}")


def test_a_megabyte_of_zeros_packed_to_a_kilobyte(files):
    folder, *_ = files
    for name, poses in (("rows", np.zeros((400_000, 66), np.int8)),
                        ("columns", np.zeros((12, 900_000), np.int8))):  # fmt: skip
        path = folder / f"{name}.npz"
        np.savez_compressed(path, poses=poses, trans=np.zeros((12, 3)), mocap_framerate=60.0)
        assert path.stat().st_size < 2**20
        with pytest.raises(
            MotionError, match=r"expected at most 2097152 numbers in a file of this"
        ):
            read_amass(path, folder / "body.json")


@pytest.mark.parametrize("what", [
    "22 joints", "24 joints", "55 joints", "by joint", "in two parts", "fps", "dt", "float32",
    "big endian", "with more in it", "no shape", "told",
])  # fmt: skip
def test_other_spellings_of_the_same_motion(files, what):
    folder, arrays, _ = files
    truth = read_amass(folder / "a.npz", folder / "body.json")
    poses, other, fps = arrays["poses"], dict(arrays), None
    if what.endswith("joints"):
        joints = int(what[:2])
        other["poses"] = np.pad(poses, ((0, 0), (0, 9)))[:, : 3 * joints]
    elif what == "by joint":
        other["poses"] = poses.reshape(FRAMES, 52, 3)
    elif what == "in two parts":
        del other["poses"]
        other |= {"root_orient": poses[:, :3], "pose_body": poses[:, 3:66]}
    elif what in ("fps", "dt", "told"):
        del other["mocap_framerate"]
        other |= {"fps": {"fps": np.array([120])}, "dt": {"dt": 1 / 120}}.get(what, {})
        fps = 120.0 if what == "told" else None
    elif what == "float32":
        other["poses"] = poses.astype(np.float32)
    elif what == "big endian":
        other["poses"] = np.asfortranarray(poses.astype(">f8"))
    elif what == "no shape":
        del other["betas"], other["gender"]
    else:  # nothing of it is read
        other["gender"] = np.array({"a": print}, object)
    np.savez(folder / "b.npz", **other)
    person = read_amass(folder / "b.npz", folder / "body.json", fps)
    assert person.fps == pytest.approx(120.0) and person.up == "z"
    tolerance = 1e-6 if what == "float32" else 0.0  # eps of float32 times angles of 2 rad and parts
    np.testing.assert_allclose(person.world()[0], truth.world()[0], atol=tolerance)
    if what == "told":
        with pytest.raises(
            MotionError, match="mocap_framerate says the rate .120 Hz., expected --i"
        ):
            read_amass(folder / "a.npz", folder / "body.json", 60.0)


# Whatever a rotation in place of the true one makes of the axes, it is a question.
@pytest.mark.parametrize(("axis", "turn"), [("y", 0), ("-y", 180), ("-z", -90)])
def test_exports_that_are_not_z_up(files, axis, turn):
    folder, arrays, _ = files
    poses = np.zeros((FRAMES, 66))
    poses[:, 0] = np.radians(turn)
    np.savez(folder / "b.npz", **(arrays | {"poses": poses, "trans": np.zeros((FRAMES, 3))}))
    (folder / "body.json").write_text(json.dumps({"joints": rest_pose().tolist()}))
    person = read_amass(folder / "b.npz", folder / "body.json")
    with pytest.raises(MotionError) as caught:
        body_motion(person, find_mapping(person))
    assert f"up is z by the file's layout and {axis} by the motion" in str(caught.value)
    body = body_motion(person, find_mapping(person), axis)
    up = people.rotation(body.pelvis_quat).apply([0.0, 0.0, 1.0])
    np.testing.assert_allclose(up, np.tile([0, 0, 1.0], (FRAMES, 1)), atol=1e-9)


@given(st.dictionaries(
    st.sampled_from(["poses", "trans", "root_orient", "pose_body", "fps", "dt", "mocap_framerate"]),
    st.tuples(
        st.sampled_from(["f8", "f4", "i1", "u8", "U3", "S2", "?", "c8", "M8[s]", "V4"]),
        st.lists(st.sampled_from([0, 1, 3, 12, 22, 63, 66, 156]), max_size=4),
        st.sampled_from([0.0, 1.0, -60.0, 1e300, np.nan]),
    ), max_size=5,
))  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_any_arrays_are_read_or_refused_in_a_sentence(tmp_path_factory, given_arrays):
    folder = tmp_path_factory.getbasetemp()
    (folder / "fuzz.json").write_text(json.dumps({"joints": rest_pose().tolist()}))
    arrays = {"poses": np.zeros((12, 66)), "trans": np.zeros((12, 3)), "fps": 30.0}
    for key, (dtype, shape, value) in given_arrays.items():
        if np.prod(shape) > 1e6:
            continue
        array = np.zeros(shape, dtype)
        if np.dtype(dtype).kind == "f":
            with np.errstate(over="ignore"):
                array = array + np.array(value, dtype)
        arrays[key] = array
    path = folder / "fuzz.npz"
    np.savez(path, **arrays)
    try:
        person = read_amass(path, folder / "fuzz.json")
    except MotionError as error:
        said = str(error)
        assert said.startswith(f"{path}: ") and said.endswith(".") and said.isprintable()
    else:
        assert 1 <= person.fps <= 10_000 and np.isfinite(person.world()[0]).all()


def test_the_page_s_person_on_the_robot(tmp_path, monkeypatch):
    """What `docs/retarget.md` makes: the arms go up to the front and down, the knees bend."""
    pytest.importorskip("mink", reason="retargeting needs the extra 'retarget'")
    page = Path(__file__).resolve().parents[2] / "docs" / "retarget.md"
    (code,) = re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.M | re.S)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "page", "exec"), {"__name__": "page"})
    tool.main(tool.Config(Path("person.npz"), Path("o.npz"), skeleton=Path("body.json")))
    clip = load_npz(tmp_path / "o.npz")
    assert clip.foot_contact.all() and examine(clip).flags == {}
    middle = clip.num_frames // 2
    body = {name: i for i, name in enumerate(g1.BODY_NAMES)}
    # The pelvis goes down by a leg's share: 1 - cos(0.6), of 0.62 m.
    drop = clip.body_pos_w[0, 0, 2] - clip.body_pos_w[middle, 0, 2]
    assert drop == pytest.approx(0.62 * (1 - np.cos(0.6)), abs=0.02)
    for side in ("left", "right"):
        arm = (clip.body_pos_w[:, body[f"{side}_wrist_yaw_link"]]
               - clip.body_pos_w[:, body[f"{side}_shoulder_roll_link"]])  # fmt: skip
        arm = arm / np.linalg.norm(arm, axis=1, keepdims=True)
        # 75 degrees down from the T-pose, then 75 degrees to the front.
        assert arm[0, 2] < -0.93 and arm[middle, 0] > 0.93


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
