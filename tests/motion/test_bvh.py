"""The BVH reader, against SciPy's rotations multiplied by hand and text with one thing wrong."""

import re
import warnings
from pathlib import Path

import numpy as np
import people
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from bm_envs.errors import MotionError, MotionWarning
from bm_envs.motion.bvh import FREE_JOINT_FRAMES, MAX_JOINTS, MAX_LINE, read_bvh

# The reader works in float64; a rotation loses some 1e-15 per joint of a chain, and numbers are
# written with 9 digits behind the point where they are.
ROUNDING = 1e-9

GOOD = """HIERARCHY
ROOT Hips
{
  OFFSET 5 6 7
  CHANNELS 6 Xposition Yposition Zposition Zrotation Yrotation Xrotation
  JOINT Chest
  {
    OFFSET 0 2 0
    CHANNELS 3 Xrotation Zrotation Yrotation
    End Site
    {
      OFFSET 0 1 0
    }
  }
}
MOTION
Frames: 3
Frame Time: 0.02
0 1 2 90 0 0 0 0 0
0 1 2 0 90 0 0 90 0
1 1 2 0 0 90 30 0 60
"""


def write(tmp_path, text):
    path = tmp_path / "a.bvh"
    path.write_text(text)
    return path


def by_hand(names, parents, offsets, channels, values):
    """World positions `[T, J, 3]` and rotation matrices, by matrix products frame by frame."""
    pos = np.zeros((len(values), len(names), 3))
    matrix = np.zeros((len(values), len(names), 3, 3))
    for t, row in enumerate(values):
        row = list(row)
        for j, parent in enumerate(parents):
            local, turn = np.array(offsets[j], float), np.eye(3)
            for channel in channels[j]:
                value, axis = row.pop(0), "XYZ".index(channel[0])
                if channel[1:] == "position":
                    local[axis] = value
                else:
                    turn = (
                        turn
                        @ Rotation.from_rotvec(np.eye(3)[axis] * value, degrees=True).as_matrix()
                    )
            if parent < 0:
                pos[t, j], matrix[t, j] = local, turn
            else:
                pos[t, j] = pos[t, parent] + matrix[t, parent] @ local
                matrix[t, j] = matrix[t, parent] @ turn
    return pos, matrix


def compare(path, *truth, every=1):
    person = read_bvh(path)
    pos, quat = (value[::every] for value in person.world())
    wanted_pos, wanted_matrix = by_hand(*truth[:-1], truth[-1][::every])
    scale = max(1.0, float(np.abs(wanted_pos).max()))
    np.testing.assert_allclose(pos, wanted_pos, atol=ROUNDING * scale)
    found = people.rotation(quat.reshape(-1, 4)).as_matrix().reshape(wanted_matrix.shape)
    np.testing.assert_allclose(found, wanted_matrix, atol=ROUNDING)
    return person


def parse(text):
    """What a well-formed file says, by searching instead of parsing."""
    head, _, tail = text.partition("MOTION")
    tokens = re.findall(
        r"ROOT\s+\S+|JOINT\s+\S+|End\s+Site|\{|\}|OFFSET[^\n]*|CHANNELS[^\n]*", head
    )
    names, parents, offsets, channels, stack = [], [], [], [], []
    for token in tokens:
        words = token.split()
        if words[0] in ("ROOT", "JOINT"):
            parents.append(stack[-1] if stack else -1)
            names.append(words[1])
            offsets.append(None)
            channels.append(())
            pending = len(names) - 1
        elif words[0] == "End":
            pending = None
        elif token == "{":
            stack.append(pending)
        elif token == "}":
            stack.pop()
        elif words[0] == "OFFSET" and stack[-1] is not None:
            offsets[stack[-1]] = [float(word) for word in words[1:]]
        elif words[0] == "CHANNELS":
            channels[stack[-1]] = words[2:]
    rows = tail.strip().splitlines()[2:]
    values = np.array([[float(word) for word in row.split()] for row in rows if row.strip()])
    return names, parents, offsets, channels, values


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_any_tree_with_channels_in_any_order(tmp_path_factory, seed):
    rng = np.random.default_rng(seed)
    count, frames = int(rng.integers(1, 8)), int(rng.integers(2, 5))
    parents = [-1, *(int(rng.integers(j)) for j in range(1, count))]
    names = [f"j{j} of {count}" if rng.random() < 0.2 else f"j{j}" for j in range(count)]
    offsets = rng.normal(size=(count, 3)).round(6)
    channels = []
    for _ in range(count):
        turns = [f"{axis}rotation" for axis in rng.permutation(list("XYZ"))]
        turns = turns[: rng.integers(0, 4)]
        moves = [f"{axis}position" for axis in rng.permutation(list("XYZ"))[: rng.integers(0, 4)]]
        both = [*moves, *turns]
        channels.append([both[k] for k in rng.permutation(len(both))])

    # A file lists joints depth first; so does the truth.
    order, lines = [], ["HIERARCHY"]

    def add(joint, depth):
        order.append(joint)
        pad = " " * depth
        brace = [" {"] if rng.random() < 0.5 else ["", f"{pad}{{"]
        lines.append(f"{pad}{'JOINT' if depth else 'ROOT'} {names[joint]}{brace[0]}")
        lines.extend(brace[1:])
        lines.append(f"{pad} OFFSET {' '.join(map(str, offsets[joint]))}")
        lines.append(f"{pad} CHANNELS {len(channels[joint])} {' '.join(channels[joint])}")
        for child in range(count):
            if parents[child] == joint:
                add(child, depth + 1)
        lines.extend(
            [f"{pad} End Site", f"{pad} {{", f"{pad} OFFSET 1 0 0", f"{pad} }}", f"{pad}}}"]
        )

    add(0, 0)
    new = {old: k for k, old in enumerate(order)}
    values = rng.uniform(-400, 400, (frames, sum(map(len, channels)))).round(6)
    lines += ["MOTION", f"Frames: {frames}", "Frame Time:\t0.0083333", ""]
    lines += [" ".join(map(str, row)) + " " for row in values]
    path = write(tmp_path_factory.mktemp("tree"), "\r\n".join(lines))
    if sum(map(len, channels)) == 0:
        return  # rows of nothing are blank lines, which are not counted
    truth = ([names[j] for j in order], [new.get(parents[j], -1) for j in order],
             [offsets[j] for j in order], [channels[j] for j in order], values)  # fmt: skip
    person = compare(path, *truth)
    assert person.names == tuple(truth[0]) and person.parents == tuple(truth[1])
    assert person.fps == pytest.approx(1 / 0.0083333, rel=1e-12)


def test_what_a_joint_is_worth(tmp_path):
    """Worked out by hand: a quarter turn about z takes y to -x; then of y about x..."""
    person = read_bvh(write(tmp_path, GOOD))
    pos, _ = person.world()
    np.testing.assert_allclose(pos[0], [[0, 1, 2], [-2, 1, 2]], atol=1e-12)
    np.testing.assert_allclose(pos[1], [[0, 1, 2], [0, 3, 2]], atol=1e-12)
    np.testing.assert_allclose(pos[2], [[1, 1, 2], [1, 1, 4]], atol=1e-12)
    np.testing.assert_array_equal(person.rest_pos(), [[0, 0, 0], [0, 2, 0]])
    assert person.fps == pytest.approx(50.0)


@pytest.mark.parametrize(
    "name", ["cmu_jumping_jacks", "fair_jumping", "lafan1_dance1_subject2_first10"]
)
def test_the_public_files(data_dir, name):
    path = data_dir / "bvh" / f"{name}.bvh"
    truth = parse(path.read_text())
    person = compare(path, *truth, every=max(1, len(truth[-1]) // 20))
    assert len(person.names) == {"cmu": 31, "fair": 27, "lafan1": 22}[name.partition("_")[0]]


def test_a_written_motion_comes_back(tmp_path):
    """Through text with other axes' order: the same joints to the digits written."""
    rng = np.random.default_rng(3)
    parents = (-1, 0, 1, 1)
    quat = people.wxyz(Rotation.random(5 * 4, random_state=1)).reshape(5, 4, 4)
    from bm_envs.motion.bvh import PersonMotion

    person = PersonMotion("x", 25.0, ("a", "b", "c", "d"), parents, rng.normal(size=(4, 3)),
                          rng.normal(size=(5, 4, 3)), quat)  # fmt: skip
    for order in ("XYZ", "YZX", "ZXY"):
        back = read_bvh(write(tmp_path, people.bvh_text(person, order)))
        np.testing.assert_allclose(back.world()[0], person.world()[0], atol=1e-7)


def test_another_rate_keeps_a_steady_turn(tmp_path):
    """A body that turns and moves steadily does so at any rate, and starts where it did."""
    t = np.arange(31)[:, None] / 30.0
    angles = 200.0 * t
    rows = np.concatenate([t, 2 * t, 0 * t, angles, 0 * t, 0 * t, 0 * t, 0 * t, 0 * t], axis=1)
    head = GOOD.partition("Frames:")[0] + f"Frames: 31\nFrame Time: {1 / 30!r}\n"
    text = head + "\n".join(" ".join(map(repr, map(float, row))) for row in rows)
    person = read_bvh(write(tmp_path, text)).at_rate(50.0)
    assert (person.fps, person.num_frames) == (50.0, 50)
    pos, quat = person.world()
    now = np.arange(50) / 50.0
    np.testing.assert_allclose(pos[:, 0, 0], now, atol=1e-9)
    turn = people.rotation(quat[:, 0]).as_euler("xyz")[:, 2]
    # A spline through points on a circle h = 0.058 rad apart (half of the angle): what its tangents
    # miss along the circle is of third order, h^3 / 2 at most.
    np.testing.assert_allclose(np.unwrap(turn), np.radians(200.0 * now), atol=1e-4)


def changed(old, new):
    assert GOOD.count(old) >= 1, old
    return GOOD.replace(old, new, 1)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "ends after line 0, expected HIERARCHY."),
        (changed("HIERARCHY", "TREE"), "line 1 is not 'HIERARCHY', which begins a BVH file."),
        (changed("ROOT Hips", "ROOT"), "line 2 has ROOT without a name."),
        (changed("ROOT Hips", "JOINT Hips"), "line 2 has 'JOINT Hips', expected one ROOT,"),
        (changed("JOINT Chest", "ROOT Chest"), "line 6 has 'ROOT Chest', expected one ROOT,"),
        (changed("JOINT Chest", "JOINT Hips"), "line 6 has joint 'Hips' for the second time."),
        (changed("ROOT Hips\n{", "ROOT Hips\n("), "line 3 is '(', expected '{'."),
        (changed("OFFSET 5 6 7", "OFFSET 5 6"), "line 4 has 2 numbers behind OFFSET, expected 3."),
        (changed("OFFSET 5 6 7", "OFFSET 5 six 7"), "line 4 has 'six' in its OFFSET, expected a f"),
        (changed("OFFSET 5 6 7", "OFFSET 5 nan 7"), "line 4 has 'nan' in its OFFSET, expected a f"),
        (changed("OFFSET 5 6 7", "LENGTH 5"), "line 4 is 'LENGTH 5', expected JOINT, End Site, OF"),
        (changed("    OFFSET 0 2 0\n", ""), "line 13 ends joint 'Chest', which has no OFFSET."),
        (changed("    CHANNELS 3 Xr", "    CHANNELS 4 Xr"), "line 9 counts '4' channels and "),
        (changed("Xrotation Zrotation Yrotation", "Xrotation Zrotation Wrotation"),
         "line 9 has channel 'Wrotation', expected Xposition, Xrotation,"),
        (changed("Xrotation Zrotation Yrotation", "Xrotation Zrotation Xrotation"),
         "line 9 names a channel twice."),
        (changed("}\nMOTION", "MOTION"), "line 15 begins MOTION with 1 open braces and 2 joints,"),
        (changed("}\nMOTION", "}\n}\nMOTION"), "line 16 closes a brace that was not opened."),
        (changed("}\nMOTION", "}\nJOINT Arm\n{\n}\nMOTION"), "line 16 has joint 'Arm' outside "),
        ("HIERARCHY\nMOTION\n", "line 2 begins MOTION with 0 open braces and 0 joints,"),
        (changed("Frames: 3", "Frame: 3"), "line 17 is 'Frame: 3', expected 'Frames: N'."),
        (changed("Frames: 3", "Frames: 1"), "line 17 has 1 frames, expected 2 to"),
        (changed("Frames: 3", f"Frames: {10**30}"), "line 17 has 10000000000000000000 frames, exp"),
        (changed("Frame Time: 0.02", "Frame Time: 0"), "line 18 has a frame time of 0 s, expected"),
        (changed("Frame Time: 0.02", "Frame Time:"), "line 18 is 'Frame Time:', expected 'Frame T"),
        (changed("0 1 2 90 0 0 0 0 0", "0 1 2 90 0 0 0 0"), "line 19 has 8 values, expected 9: o"),
        (changed("0 1 2 90 0 0 0 0 0", "0 1 2 90 inf 0 0 0 0"), "line 19 has 'inf' in its values"),
        (changed("1 1 2 0 0 90 30 0 60\n", ""), "ends after line 20 with 2 frames, expected 3 as"),
        (GOOD + "1 1 2 0 0 90 30 0 60\n", "line 22 comes after the 3 frames that"),
        (changed("ROOT Hips", "ROOT " + "H" * MAX_LINE), f"line 2 has {MAX_LINE} or more"),
        (changed("ROOT Hips", "ROOT " + "H" * 101), "of 101 characters, expected a name of at"),
        (changed("ROOT Hips", "ROOT H\0ps"), r"line 2 has ROOT 'H\x00ps' of 4 characters, expe"),
        (changed("ROOT Hips", "ROOT \x1b[31mHips"), r"line 2 has ROOT '\x1b[31mHips' of 9 charac"),
        (changed("OFFSET 5 6 7", "OFFSET 5 6 7\nOFFSET 5 6 7"), "line 5 has OFFSET for the second"),
        (changed("CHANNELS 3", "CHANNELS 0\nCHANNELS 3"), "line 10 has CHANNELS for the second"),
        (changed("OFFSET 0 1 0", "OFFSET 0 1 0\nOFFSET 0 1 0"), "OFFSET for the second time in on"),
        (changed("Frames: 3", "Frames: -3"), "line 17 is 'Frames: -3', expected 'Frames: N'."),
        (changed("Frame Time: 0.02", "Frame Time: -0.02"), "line 18 has a frame time of -0.02 s"),
        (changed("Frame Time: 0.02", "Frame Time: 1e400"), "line 18 has '1e400' in its frame tim"),
        (changed("Frame Time: 0.02", "Frame Time: 50"),
         "a frame time of 50 s, expected 0.0001 to 10, or 0.020000 if that is the rate."),
        (changed("    End Site\n", "    End Site\n{\nOFFSET 0 1 0\n}\n" * 500 + "End Site\n"),
         "has end site number 501, and 500 are the limit."),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_line(tmp_path, text, sentence):
    path = write(tmp_path, text)
    with pytest.raises(MotionError) as caught:
        read_bvh(path)
    said = str(caught.value)
    assert said.startswith(f"{path}") and sentence in said and said.endswith("."), said
    assert "\n" not in said and len(said) < 400


def test_no_end_of_joints(tmp_path):
    joint = "JOINT j{0}\n{{\nOFFSET 0 0 0\nCHANNELS 0\n"
    text = "HIERARCHY\nROOT r\n{\nOFFSET 0 0 0\nCHANNELS 0\n"
    path = write(tmp_path, text + "".join(joint.format(j) for j in range(MAX_JOINTS)))
    with pytest.raises(MotionError, match=f"has joint number {MAX_JOINTS + 1}, and {MAX_JOINTS}"):
        read_bvh(path)


def test_joints_without_channels_take_no_memory(tmp_path):
    """A megabyte of text with a value per frame and 500 joints would be 14 gigabytes."""
    joint = "JOINT j{0}\n{{\nOFFSET 0 1 0\nCHANNELS 0\n"
    head = "HIERARCHY\nROOT r\n{\nOFFSET 0 0 0\nCHANNELS 1 Xposition\n"
    head += "".join(joint.format(j) for j in range(MAX_JOINTS - 1)) + "}\n" * MAX_JOINTS
    frames = FREE_JOINT_FRAMES // MAX_JOINTS + 1
    text = f"{head}MOTION\nFrames: {frames}\nFrame Time: 0.02\n" + "0\n" * frames
    with pytest.raises(MotionError) as caught:
        read_bvh(write(tmp_path, text))
    assert str(caught.value).endswith(
        f"a.bvh: has 500 joints in {frames} frames of 1 values, expected a value or more for each"
        f" joint beyond {FREE_JOINT_FRAMES} joints times frames."
    )
    # Likewise frames that are made between frames: 10 s are 500 of the environments'.
    frames -= 1
    text = f"{head}MOTION\nFrames: {frames}\nFrame Time: 10\n" + "0\n" * frames
    with pytest.warns(
        MotionWarning, match="line 2504 has a frame time of 10 s, which is 0.1 frames"
    ):
        person = read_bvh(write(tmp_path, text))
    with pytest.raises(MotionError, match="frames at 0.1 fps make .* expected 3 to 4194 .with 500"):
        person.at_rate(50.0)


@pytest.mark.parametrize("how", ["\r\n", "\r", "\ufeff", "\t", "Zrotation to ZRotation"])
def test_other_spellings_of_the_same_file(tmp_path, how):
    path = tmp_path / "b.bvh"
    text = {"\ufeff": "\ufeff" + GOOD, "\t": GOOD.replace(" ", "\t")}.get(how)
    text = text or GOOD.replace(*how.split(" to ") if " to " in how else ("\n", how))
    path.write_bytes(text.encode())
    truth, found = read_bvh(write(tmp_path, GOOD)), read_bvh(path)
    assert found.names == truth.names and found.fps == truth.fps
    np.testing.assert_array_equal(found.local_quat, truth.local_quat)
    np.testing.assert_array_equal(found.local_pos, truth.local_pos)


def test_end_sites_have_names(tmp_path):
    second = "    End Site\n    {\n      OFFSET 3 0 0\n    }\n"
    person = read_bvh(write(tmp_path, changed("    End Site\n", second + "    End Site\n")))
    assert {name: (p, list(at)) for name, (p, at) in person.ends.items()} == {
        "Chest_end": (1, [3, 0, 0]), "Chest_end2": (1, [0, 1, 0])
    }  # fmt: skip
    with_ends = person.with_ends(["Chest_end2", "Hips", "Chest_end2"])
    assert with_ends.names == ("Hips", "Chest", "Chest_end2") and len(with_ends.ends) == 1
    pos, _ = with_ends.world()
    # By hand: the chest's own y is up at the first frame but for the root's quarter turn about z.
    np.testing.assert_allclose(pos[0], [[0, 1, 2], [-2, 1, 2], [-3, 1, 2]], atol=1e-12)
    # A joint that has such a name keeps it.
    joint = "    JOINT Chest_end\n    {\n    OFFSET 1 1 1\n    CHANNELS 0\n    }\n"
    person = read_bvh(write(tmp_path, changed("    End Site\n", joint + "    End Site\n")))
    assert person.names[2] == "Chest_end" and not person.ends


TOKENS = ["HIERARCHY", "ROOT", "JOINT", "End Site", "{", "}", "OFFSET", "CHANNELS", "MOTION",
          "Frames:", "Frame Time:", "Xposition", "nan", "1e400", "-1", "0", "9" * 40, "\0", "_",
          "\r", "\t", "", "Hips", "\u0664", "\ufeff"]  # fmt: skip


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 3), st.sampled_from(TOKENS)),
                min_size=1, max_size=6), st.integers(0, 400))  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_whatever_happens_to_a_file_it_is_read_or_refused_in_a_sentence(
    tmp_path_factory, edits, cut
):
    words = re.split(r"(\s)", GOOD)
    for where, how, token in edits:
        at = where % len(words)
        if how == 0:
            words[at] = token
        elif how == 1:
            words.insert(at, token)
        elif how == 2:
            del words[at : at + 1 + where % 5]
            words = words or [token]
        else:
            words[at:at] = words[at // 2 : at // 2 + where % 40]
    text = "".join(words)
    path = tmp_path_factory.getbasetemp() / "fuzzed.bvh"
    path.write_bytes(text[: len(text) - cut if cut > 200 else None].encode())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MotionWarning)
        try:
            person = read_bvh(path)
        except MotionError as error:
            said = str(error)
            assert said.startswith(f"{path}: ") and said.endswith(".") and said.isprintable()
            assert len(said) < len(str(path)) + 300
        else:
            assert np.isfinite(person.world()[0]).all()
            assert len(set(person.names)) == len(person.names)


def test_what_is_no_file(tmp_path):
    with pytest.raises(MotionError, match="none.bvh: does not exist, expected a .bvh file."):
        read_bvh(tmp_path / "none.bvh")
    with pytest.raises(MotionError, match="is not a file, expected a .bvh file."):
        read_bvh(tmp_path)
    path = tmp_path / "b.bvh"
    path.write_bytes(b"HIERARCHY\n\xff\xfe\n")
    with pytest.raises(MotionError, match="holds bytes that are not text"):
        read_bvh(path)


def test_two_frames_are_too_few_for_a_rate(tmp_path):
    text = GOOD.replace("Frames: 3", "Frames: 2").replace("1 1 2 0 0 90 30 0 60\n", "")
    person = read_bvh(write(tmp_path, text))
    with pytest.raises(MotionError, match="2 frames at 50 fps make 1 at 50 fps, expected 3 to"):
        person.at_rate(50.0)
    assert Path(person.source).name == "a.bvh"
