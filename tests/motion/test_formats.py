"""Motion files of other projects: joblib and plain pickles, ProtoMotions' NPZ, and hostile ones."""

import bz2
import gzip
import io
import os
import pickle
import re
import zlib
from collections import OrderedDict
from pathlib import Path

import joblib
import motion_samples
import numpy as np
import people
import pytest

from bm_envs.errors import MotionError
from bm_envs.motion import formats, pickles
from bm_envs.motion.csv import read_csv
from bm_envs.motion.library import load_motion, load_motions
from bm_envs.robots import g1

FRAMES, FPS = 60, 30.0
WRISTS = [name for name in g1.JOINT_NAMES if "wrist" in name]
# The order of the 23 joints of KungfuBot, ASAP and HuB, typed from PBHC's robot file
# `g1_23dof_lock_wrist.xml`: legs, waist, arms to the elbow.
LEG = ("hip_pitch", "hip_roll", "hip_yaw", "knee", "ankle_pitch", "ankle_roll")
ARM = ("shoulder_pitch", "shoulder_roll", "shoulder_yaw", "elbow")
NAMES_23 = (
    *(f"left_{name}_joint" for name in LEG), *(f"right_{name}_joint" for name in LEG),
    "waist_yaw_joint", "waist_roll_joint", "waist_pitch_joint",
    *(f"left_{name}_joint" for name in ARM), *(f"right_{name}_joint" for name in ARM),
)  # fmt: skip


def motion(joints=23, fps=FPS, seed=0):
    """One clip as those projects write it, and the CSV rows of the same frames."""
    pos, quat, joint_pos = motion_samples.states(FRAMES, FPS, seed)
    xyzw = quat[:, [1, 2, 3, 0]]
    if joints == 23:
        for name in WRISTS:
            joint_pos[:, g1.JOINT_NAMES.index(name)] = 0.0  # the default pose's
        dof = joint_pos[:, [g1.JOINT_NAMES.index(name) for name in NAMES_23]]
    else:
        dof = joint_pos
    value = {
        "root_trans_offset": pos, "root_rot": xyzw.astype(np.float64), "dof": dof,
        "smpl_joints": np.zeros((FRAMES, 24, 3), np.float32), "fps": fps,
        "contact_mask": np.ones((FRAMES, 2)),
    }  # fmt: skip
    return value, np.hstack([pos, xyzw, joint_pos])


@pytest.fixture
def same_as(tmp_path):
    """Asserts that a clip is what the CSV reader makes of the rows, to the digits of float32."""

    def check(clip, rows, fps=FPS):
        path = tmp_path / "truth.csv"
        path.write_text("".join(",".join(map(repr, map(float, row))) + "\n" for row in rows))
        truth = read_csv(path, input_fps=fps)
        assert (clip.fps, clip.num_frames) == (50.0, truth.num_frames)
        np.testing.assert_allclose(clip.joint_pos, truth.joint_pos, atol=1e-6)
        np.testing.assert_allclose(clip.body_pos_w, truth.body_pos_w, atol=1e-6)
        np.testing.assert_allclose(clip.body_lin_vel_w, truth.body_lin_vel_w, atol=1e-4)

    return check


@pytest.mark.parametrize("joints", [23, 29])
@pytest.mark.parametrize("compress", [0, 3, ("gzip", 3), ("bz2", 3), ("xz", 3), ("lzma", 3)])
def test_joblib(tmp_path, same_as, joints, compress):
    value, rows = motion(joints)
    path = tmp_path / "kick.pkl"
    joblib.dump({"Side_kick": value}, path, compress=compress)
    clip = load_motion(path)
    same_as(clip, rows)
    assert (clip.name, clip.source, clip.licence) == ("Side_kick", "kick.pkl", "not stated")


@pytest.mark.parametrize("protocol", range(0, pickle.HIGHEST_PROTOCOL + 1))
def test_plain_pickles_of_every_protocol(tmp_path, same_as, protocol):
    value, rows = motion(29)
    value["fps"] = np.float64(FPS)
    value["root_trans_offset"] = np.asfortranarray(value["root_trans_offset"])
    value["dof"] = value["dof"].astype(">f8")
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(OrderedDict(clip=value), protocol))
    same_as(load_motion(path), rows)


@pytest.mark.parametrize("protocol", [2, 4])
def test_joblib_of_both_kinds_of_stream(tmp_path, same_as, protocol):
    """With frames and without, arrays in Fortran's order and views that are neither."""
    value, rows = motion(29)
    value["root_trans_offset"] = np.asfortranarray(value["root_trans_offset"])
    value["dof"] = np.repeat(value["dof"], 2, axis=0)[::2]
    path = tmp_path / "a.pkl"
    joblib.dump({"clip": value}, path, protocol=protocol)
    same_as(load_motion(path), rows)


def test_what_is_read_is_what_joblib_reads(tmp_path):
    """Any tree of plain values and arrays, against the library's own loader."""
    rng = np.random.default_rng(0)
    tree = {
        "i": 3, "f": -0.5, "none": None, "text": "a\u00e9", "bytes": b"\x00\xff", "yes": True,
        "list": [1, [2.5, ()], {"k": (1, 2)}], "float32": rng.normal(size=(4, 3)).astype("f4"),
        "int": np.arange(6).reshape(2, 3, 1), "bool": np.array([True, False]), "empty":
        np.zeros((0, 5)), "scalar": np.float32(1.5), "words": np.array(["left", "right"]),
        "zero": np.array(2.0), "big": rng.normal(size=20_000),
    }  # fmt: skip
    for compress in (0, 3):
        joblib.dump(tree, tmp_path / "t.pkl", compress=compress)
        found, truth = pickles.read_pickle(tmp_path / "t.pkl"), joblib.load(tmp_path / "t.pkl")
        assert list(found) == list(truth)
        for key, wanted in truth.items():
            if isinstance(wanted, np.ndarray):
                array = pickles.as_array(found[key])
                assert array is not None and array.dtype == wanted.dtype
                np.testing.assert_array_equal(array, wanted)
            else:
                assert found[key] == wanted


def test_gmrs_pickle_and_csv(tmp_path, same_as):
    value, rows = motion(29)
    path = tmp_path / "walk.pkl"
    flat = {"fps": 30, "root_pos": value["root_trans_offset"], "root_rot": value["root_rot"],
            "dof_pos": value["dof"], "local_body_pos": None, "link_body_list": None}  # fmt: skip
    path.write_bytes(pickle.dumps(flat))
    same_as(load_motion(path), rows)
    assert load_motion(path).name == "walk"


def test_angles_from_rotation_vectors(tmp_path, same_as):
    """`pose_aa` alone: root, 23 joints about their axes, three links more, as PBHC has them."""
    value, rows = motion(23)
    axes = np.array([g1.JOINTS[g1.JOINT_NAMES.index(name)].axis for name in NAMES_23])
    pose = np.zeros((FRAMES, 27, 3))
    pose[:, 0] = people.rotation(value["root_rot"][:, [3, 0, 1, 2]]).as_rotvec()
    pose[:, 1:24] = value["dof"][..., None] * axes
    bare = {"root_trans_offset": value["root_trans_offset"], "pose_aa": pose, "fps": 30}
    joblib.dump({"clip": bare}, tmp_path / "a.pkl")
    same_as(load_motion(tmp_path / "a.pkl"), rows)
    pose[7, 4, 0] += 0.1  # of a knee, which turns about y
    joblib.dump({"clip": bare}, tmp_path / "a.pkl")
    with pytest.raises(MotionError, match="pose_aa does not turn about the axes of the 29 joints"):
        load_motion(tmp_path / "a.pkl")


def test_joints_are_mapped_by_names_that_are_there(tmp_path, same_as):
    value, rows = motion(29)
    order = np.random.default_rng(0).permutation(29)
    value["dof"] = value["dof"][:, order]
    value["dof_names"] = [g1.JOINT_NAMES[i] for i in order]
    joblib.dump({"clip": value}, tmp_path / "a.pkl")
    same_as(load_motion(tmp_path / "a.pkl"), rows)
    value["dof_names"][0] = "tail_joint"
    joblib.dump({"clip": value}, tmp_path / "a.pkl")
    with pytest.raises(MotionError, match="its joint names are not the 29 of robot g1"):
        load_motion(tmp_path / "a.pkl")


def test_several_clips(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    joblib.dump({"one": motion(seed=1)[0], "two": motion(seed=2)[0]}, "both.pkl")
    with pytest.raises(MotionError, match=re.escape(
        "both.pkl: holds 2 clips (one, two, ...), expected one of them as 'both.pkl#NAME'."
    )):  # fmt: skip
        load_motion("both.pkl")
    assert load_motion("both.pkl#two").name == "two"
    assert load_motion("both.pkl#two[0:0.5]").num_frames == 26
    assert [clip.name for clip in load_motions("both.pkl")] == ["one", "two"]
    assert [clip.name for clip in load_motions(["both.pkl#two", "both.pkl"])] == [
        "two", "one", "two",
    ]  # fmt: skip
    with pytest.raises(MotionError, match="both.pkl: Unknown clip 'tow'; did you mean 'two'?"):
        load_motion("both.pkl#tow")
    monkeypatch.setenv("BM_DATA_DIR", str(tmp_path))
    Path("named").mkdir()
    joblib.dump({"one": motion()[0]}, "named/kick.pkl")
    assert load_motion("named/kick").name == "one"


def test_protomotions_npz(tmp_path, same_as):
    value, rows = motion(29)
    arrays = {
        "base_frame_pos": value["root_trans_offset"].astype("f4"), "joint_angles": value["dof"],
        "base_frame_wxyz": value["root_rot"][:, [3, 0, 1, 2]],
    }  # fmt: skip
    path = tmp_path / "walk_retargeted.npz"
    np.savez(path, **arrays)
    with pytest.raises(MotionError, match=r"walk_retargeted.npz: tells no rate .*--input-fps"):
        load_motion(path)
    clip = load_motion(path, input_fps=30)
    same_as(clip, np.hstack([arrays["base_frame_pos"], rows[:, 3:]]))
    assert clip.name == "walk_retargeted"
    assert load_motion(path, input_fps=60).num_frames == 50
    np.savez(path, fps=60, **arrays)
    assert load_motion(path).num_frames == 50
    for wrong, sentence in (
        (
            {"joint_angles": value["dof"][:, :23]},
            r"joint_angles has type float64 and shape \(60, 2",
        ),
        (
            {"joint_angles": value["dof"][:50]},
            "root position, root rotation and joints have 60, 60",
        ),
        ({"base_frame_wxyz": 3 * value["root_rot"]}, "the root quaternion of frame 0 has length 3"),
        ({"base_frame_pos": np.full((60, 3), np.nan)}, "frame 0 has values that are not finite"),
        ({"fps": [30, 30]}, r"fps has shape \(2,\), expected one number"),
        ({"fps": -1}, "fps is -1, expected a positive number"),
    ):
        np.savez(path, **(arrays | {"fps": 30} | wrong))
        with pytest.raises(MotionError, match=sentence):
            load_motion(path)


def test_the_motion_of_a_person_is_no_motion_of_the_robot(tmp_path):
    np.savez(tmp_path / "a.npz", poses=np.zeros((5, 156)), trans=np.zeros((5, 3)))
    with pytest.raises(MotionError, match=r"a.npz: is the motion of a person \(AMASS\), expected"):
        load_motion(tmp_path / "a.npz")


def broken(**changes):
    value = motion(29)[0] | changes
    return {"clip": {key: v for key, v in value.items() if v is not ...}}


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ([1, 2], "holds list, expected clip names to motions with root_trans_offset"),
        ({}, "holds dict, expected clip names to motions with root_trans_offset"),
        ({"clip": 3}, "its entry 'clip' is no motion, expected one with root_trans_offset"),
        ({3: {}}, "its entry '3' is no motion"),
        (broken(root_trans_offset=...), "clip 'clip': lacks root_trans_offset or root_pos or root"),
        (broken(root_rot=...), "clip 'clip': lacks root_rot."),
        (broken(dof=...), "clip 'clip': lacks dof or dof_pos."),
        (broken(dof=np.zeros((60, 21))), "dof is of shape (60, 21), expected (T, 23 or 29)."),
        (broken(dof="text"), "dof is no array of numbers, expected (T, 23 or 29)."),
        (broken(dof=np.zeros((59, 29))), "joints have 60, 60 and 59 frames, expected 3 or more"),
        (broken(root_rot=np.zeros((60, 4))), "the root quaternion of frame 0 has length 0"),
        (broken(fps=[1, 2]), "clip 'clip': fps is no number, expected frames"),
        (
            broken(fps=0),
            "clip 'clip': fps is 0, expected a positive number (frames a second, 1 to 10000",
        ),
        (broken(pose_aa=np.zeros((60, 5)), dof=...), "pose_aa has shape (60, 5), expected (T, jo"),
    ],
)
def test_what_is_no_motion(tmp_path, value, sentence):
    path = tmp_path / "a.pkl"
    joblib.dump(value, path)
    with pytest.raises(MotionError) as caught:
        load_motion(path)
    said = str(caught.value)
    assert said.startswith(f"{path}: ") and sentence in said and "\n" not in said, said


# --- what would run code -------------------------------------------------------------------------

MARKER = "marker-that-unpickling-would-make"


class Payload:
    def __reduce__(self):
        return (open, (MARKER, "w"))


class Thing:
    """A class of the writer's own, which a reader would have to import."""


@pytest.mark.parametrize("protocol", range(0, pickle.HIGHEST_PROTOCOL + 1))
def test_nothing_of_a_hostile_pickle_runs(tmp_path, monkeypatch, protocol):
    monkeypatch.chdir(tmp_path)
    Path("a.pkl").write_bytes(pickle.dumps({"clip": Payload()}, protocol))
    with pytest.raises(
        MotionError, match=r"a.pkl: names '\w*(io|builtin\w*).open', which could run"
    ):
        load_motion("a.pkl")
    assert os.listdir() == ["a.pkl"], "no marker"
    pickle.loads(Path("a.pkl").read_bytes())
    assert MARKER in os.listdir(), "premise: it was hostile"


@pytest.mark.parametrize("compress", [0, 3])
def test_nothing_of_a_hostile_joblib_file_runs(tmp_path, monkeypatch, compress):
    """Beside a motion, in an array of objects, and a class of the writer's own."""
    monkeypatch.chdir(tmp_path)
    for value, name in (
        (broken(extra=Payload()), "open"), (broken(extra=Thing()), "test_formats.Thing"),
        (broken(extra=np.float64), "numpy.float64"), (broken(extra=os.system), "posix.system"),
    ):  # fmt: skip
        joblib.dump(value, "a.pkl", compress=compress)
        with pytest.raises(
            MotionError, match=f"names '.*{name}', which could run code; expected Nu"
        ):
            load_motion("a.pkl")
    joblib.dump(broken(dof=np.array([Payload(), 2], dtype=object)), "a.pkl", compress=compress)
    with pytest.raises(MotionError, match="is no readable pickle or joblib file .*of type 'O8'"):
        load_motion("a.pkl")
    assert os.listdir() == ["a.pkl"], "no marker"


def raw(*parts):
    return b"".join(parts) + pickle.STOP


def test_opcodes_by_hand(tmp_path):
    """Streams that no pickler writes: names behind names, extensions, persistent ids, shapes."""
    wrapper = b"cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81"
    dtype = b"cnumpy\ndtype\n(X\x02\x00\x00\x00f8tR"

    def array(shape, order="C", kind=dtype):
        state = b"}(X\x05\x00\x00\x00shape" + shape + b"X\x05\x00\x00\x00order"
        return (
            wrapper
            + state
            + pickle.dumps(order, 2)[2:-1]
            + b"X\x05\x00\x00\x00dtype"
            + kind
            + b"ub"
        )

    for content, sentence in (
        (raw(b"cos\nsystem\n(X\x04\x00\x00\x00trueltR"), "names 'os.system', which could run code"),
        (raw(b"\x80\x04\x8c\x05numpy\x8c\x0dndarray.dumps\x93"), "names 'numpy.ndarray.dumps'"),
        (raw(b"\x80\x02\x82\x01"), "extension code 1"),
        (raw(b"Pid\n"), "is no readable pickle"),
        (raw(array(b"(K\x02K\x03t")), "bytes, type and shape do not belong together"),
        (raw(array(b"(J\xff\xff\xff\xffK\x03t")), "do not belong together"),
        (raw(array(b"(\x8a\x06\x00\x00\x00\x00\x00\x01K\x08t")), "do not belong together"),
        (raw(array(b"K\x03")), "an array without a type or shape"),
        (raw(array(b"(K\x00t", kind=b"cnumpy\ndtype\n(X\x02\x00\x00\x00O8tR")), "of type 'O8'"),
        (raw(b"cnumpy\ndtype\n(X\x20\x00\x00\x00" + b"f8," * 10 + b"f8" + b"tR"), "an array of t"),
        (raw(b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x06\x00\x00\x00rot_13tR"), "unusual"),
        (b"not a pickle", "is no readable pickle"), (b"", "is no readable pickle"),
        (b"\x80\x05\x96" + (2**40).to_bytes(8, "little") + b"x.", "is no readable pickle"),
        (b"]" * 50 + b".", "holds list, expected clip names"),
    ):  # fmt: skip
        path = tmp_path / "a.pkl"
        path.write_bytes(content)
        with pytest.raises(MotionError) as caught:
            load_motion(path)
        said = str(caught.value)
        assert said.startswith(f"{path}: ") and sentence in said and "\n" not in said, said


def test_every_cut_of_a_file(tmp_path):
    """Whatever is missing at the end is noticed, and said in a sentence."""
    value, _ = motion(23)
    for compress in (0, 3):
        joblib.dump({"clip": value}, tmp_path / "good.pkl", compress=compress)
        content = (tmp_path / "good.pkl").read_bytes()
        for length in [*range(0, 40), *np.linspace(40, len(content) - 1, 40).astype(int)]:
            (tmp_path / "a.pkl").write_bytes(content[:length])
            with pytest.raises(MotionError) as caught:
                load_motion(tmp_path / "a.pkl")
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("head", [b"\x78\x9c", b"\x1f\x8b", b"BZh9", b"\xfd7zXZ\x00", b"]\x00\x00"])
def test_what_only_looks_compressed(tmp_path, head):
    (tmp_path / "a.pkl").write_bytes(head + bytes(range(1, 80)))
    with pytest.raises(MotionError, match=r"a.pkl: (cannot be read \(|its compressed content is)"):
        load_motion(tmp_path / "a.pkl")


def test_a_small_file_of_much_content(tmp_path, monkeypatch):
    monkeypatch.setattr(pickles, "MAX_BYTES", 100_000)
    for pack in (zlib.compress, gzip.compress, bz2.compress):
        (tmp_path / "a.pkl").write_bytes(pack(pickle.dumps(bytes(200_000))))
        with pytest.raises(MotionError, match="a.pkl: holds more than 100000 bytes, which is the"):
            load_motion(tmp_path / "a.pkl")
    (tmp_path / "a.pkl").write_bytes(bytes(100_001))
    with pytest.raises(MotionError, match="a.pkl: holds more than 100000 bytes"):
        load_motion(tmp_path / "a.pkl")


def test_what_is_allowed_is_all_that_the_writers_name(tmp_path):
    """The globals in files of NumPy and joblib, as the standard library looks them up."""
    named = set()

    class Recorder(pickle.Unpickler):
        def find_class(self, module, name):
            named.add((module, name))
            return super().find_class(module, name)

    value = {"a": np.zeros((2, 3)), "s": np.float64(1.0), "b": b"x", "d": OrderedDict(a=1)}
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        Recorder(io.BytesIO(pickle.dumps(value, protocol))).load()
    joblib.dump({"a": np.zeros(3)}, tmp_path / "a.pkl")
    joblib_names = re.findall(rb"joblib[.\w]+", (tmp_path / "a.pkl").read_bytes())
    assert joblib_names == [b"joblib.numpy_pickle"]
    assert ("numpy", "dtype") in named and len(named) >= 6
    assert named <= set(pickles._ALLOWED)


def test_what_is_no_file(tmp_path):
    with pytest.raises(MotionError, match="none.pkl: does not exist, expected a .pkl file."):
        formats.read_file(tmp_path / "none.pkl", input_fps=30)
    (tmp_path / "b.pkl").mkdir()
    with pytest.raises(MotionError, match="b.pkl: is not a file, expected a .pkl file."):
        formats.read_file(tmp_path / "b.pkl", input_fps=30)
