"""Property: a malformed motion file gives one sentence with its name, runs and writes nothing."""

import io
import os
import pickle
import re
import struct
import zipfile

import motion_samples
import numpy as np
import pytest

from bm_envs.errors import BMError, MotionError
from bm_envs.motion.clip import ARRAY_SHAPES, Clip, save_npz
from bm_envs.motion.library import load_motion

FLOAT_KEYS = tuple(ARRAY_SHAPES)
NAME_KEYS = ("joint_names", "body_names")
MARKER = "marker-that-unpickling-would-make"


class Payload:
    """What a hostile file would carry: unpickling it makes a file."""

    def __reduce__(self):
        return (open, (MARKER, "w"))


@pytest.fixture(scope="module")
def good_npz(tmp_path_factory):
    path = tmp_path_factory.mktemp("good") / "good.npz"
    save_npz(motion_samples.clip(frames=30), path)
    return path.read_bytes()


@pytest.fixture(scope="module")
def good_arrays(good_npz):
    with np.load(io.BytesIO(good_npz)) as archive:
        return {key: archive[key] for key in archive.files}


@pytest.fixture
def refused(tmp_path, monkeypatch):
    """A function that asserts the property for a file's content, in an empty working folder."""
    monkeypatch.chdir(tmp_path)

    def check(name, content, *, may_load=False, order=None):
        path = tmp_path / name
        path.write_bytes(content)
        try:
            clip = load_motion(path)
        except MotionError as error:
            text = str(error)
            assert text.startswith(str(path)) and "\n" not in text and text.endswith("."), text
            assert len(text) < 500, text
        else:
            assert may_load, f"{name} was read"
            assert isinstance(clip, Clip)
            text = None
        assert [p.name for p in tmp_path.iterdir()] == [name] and path.read_bytes() == content
        path.unlink()
        return text

    return check


def packed(arrays, **raw):
    """NPZ bytes of `arrays` (objects are pickled, as NumPy does by default), and raw members."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED) as archive:
        for key, content in raw.items():
            archive.writestr(f"{key}.npy", content)
    return buffer.getvalue()


def npy(shape, dtype, data=b"", version=b"\x01\x00"):
    """An .npy member whose header claims what it likes."""
    header = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape!r}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H", len(header)) + header + data


def without(arrays, *keys):
    return {key: value for key, value in arrays.items() if key not in keys}


def test_the_good_file_is_good(good_npz, refused):
    assert refused("good.npz", good_npz, may_load=True) is None
    text = motion_samples.csv_text().encode()
    assert refused("good.csv", text, may_load=True) is None
    assert refused("crlf.csv", text.replace(b"\n", b"\r\n") + b"\n\n", may_load=True) is None


def test_truncated_npz(good_npz, refused):
    rng = np.random.default_rng(0)
    for length in (0, 1, 4, len(good_npz) - 1, *rng.integers(5, len(good_npz) - 1, 40)):
        assert "is not a readable .npz file" in refused("cut.npz", good_npz[:length])


def test_damaged_bytes_in_npz(good_npz, refused):
    """A flipped bit is found by the archive's checksums or does not matter."""
    rng = np.random.default_rng(1)
    found = 0
    for position in rng.integers(0, len(good_npz), 60):
        damaged = bytearray(good_npz)
        damaged[position] ^= 1 << rng.integers(8)
        found += refused("flipped.npz", bytes(damaged), may_load=True) is not None
    assert found >= 50


def test_what_is_no_npz_at_all(refused, tmp_path):
    rng = np.random.default_rng(2)
    single = io.BytesIO()
    np.save(single, np.zeros((10, 29)))
    for content in (
        b"", b"PK", b"hello\nworld\n", rng.bytes(5000), single.getvalue(), b"\0" * 100_000,
        pickle.dumps(Payload()), motion_samples.csv_text().encode(), b"PK\x05\x06" + bytes(18),
    ):  # fmt: skip
        refused("not.npz", content)


def test_npz_arrays_of_the_wrong_kind(good_arrays, refused):
    count = 0
    for key in FLOAT_KEYS:
        value = good_arrays[key]
        fault = value.copy()
        fault[7, 1] = np.nan
        infinite = value.astype(np.float64)
        infinite[3, 2] = 1e300  # finite, but not in float32
        for wrong, words in {
            "nan": (fault, f"{key} holds NaN or infinity at frame 7"),
            "inf": (infinite, f"{key} holds NaN or infinity at frame 3"),
            "one joint or body less": (value[:, :-1], f"{key} has shape"),
            "23 joints": (np.repeat(value[:, :1], 23, axis=1), f"{key} has shape (30, 23"),
            "one frame": (value[:1], "frames are"),
            "one frame less": (value[:-1], "frames are"),
            "flat": (value.reshape(-1), f"{key} has shape"),
            "an axis more": (value[None], f"{key} has shape"),
            "a number": (np.float32(1), f"{key} has shape ()"),
            "text": (value.astype(str), f"{key} has type <U"),
            "complex": (value.astype(complex), f"{key} has type complex128"),
            "bool": (value.astype(bool), f"{key} has type bool"),
            "objects": (value.astype(object), f"{key} holds pickled Python objects"),
        }.values():
            assert words in refused("wrong.npz", packed(good_arrays | {key: wrong}))
            count += 1
        text = refused("missing.npz", packed(without(good_arrays, key)))
        assert f"lacks {key}; expected the keys fps, joint_pos" in text
    assert count == 78


def test_npz_with_few_or_too_many_frames(good_arrays, refused):
    for frames in (0, 1):
        cut = {
            key: value[:frames] if key in (*FLOAT_KEYS, "foot_contact") else value
            for key, value in good_arrays.items()
        }
        assert "expected one number, 2 or more" in refused("short.npz", packed(cut))
    long = packed(without(good_arrays, "joint_pos"), joint_pos=npy((600_000, 29), "<f4"))
    assert "joint_pos has 600000 frames, expected at most 500000" in refused("long.npz", long)


def test_npz_with_zero_quaternions(good_arrays, refused):
    for frame, body in ((0, 0), (29, 0), (11, 17), (5, 29)):
        quat = good_arrays["body_quat_w"].copy()
        quat[frame, body] = 0
        text = refused("zero.npz", packed(good_arrays | {"body_quat_w": quat}))
        assert f"body_quat_w holds a zero quaternion at frame {frame}, expected length 1" in text


def test_npz_rates(good_arrays, refused):
    for fps in (0, -50, np.nan, np.inf, -np.inf):
        text = refused("fps.npz", packed(good_arrays | {"fps": np.array([fps])}))
        assert "expected a positive number" in text
    for fps in ([50.0, 50.0], [[50.0]], [], "50", [None], [True], 50 + 0j):
        text = refused("fps.npz", packed(good_arrays | {"fps": np.array(fps)}))
        assert ": fps ho" in text or ": fps has type" in text
    assert "lacks fps" in refused("fps.npz", packed(without(good_arrays, "fps")))


def test_npz_names(good_arrays, refused):
    for key in NAME_KEYS:
        names = good_arrays[key]
        swapped = names.copy()
        swapped[[2, 9]] = swapped[[9, 2]]
        for wrong, words in (
            (names[:-1], "expected"), (np.append(names, "tail"), "expected"),
            (np.append(names[:-1], names[0]), f"{key} lacks '{names[-1]}'"),
            (np.append(names[:-1], "x\ny"), f"{key} lacks '{names[-1]}'"),
            (np.array([""] * len(names)), f"{key} lacks"),
            (names.astype("S"), f"{key} has type |S"), (names.astype(object), "pickled"),
            (np.arange(len(names)), f"{key} has type int64"),
            (names.astype("<U500"), f"{key} has type <U500"),
            (swapped, "from forward kinematics of joint_pos"),
        ):  # fmt: skip
            assert words in refused("names.npz", packed(good_arrays | {key: wrong})), words
        (other,) = set(NAME_KEYS) - {key}
        text = refused("names.npz", packed(without(good_arrays, key)))
        assert f"holds {other} but not {key}, expected both or neither" in text
    zero = {"joint_pos": np.roll(good_arrays["joint_pos"], 1, axis=1)}
    bare = packed(without(good_arrays | zero, *NAME_KEYS))
    assert "and the order of its values does not show" in refused("bare.npz", bare)


def test_npz_of_another_robot_or_point(good_arrays, refused):
    moved = good_arrays["body_pos_w"].copy()
    moved[:, 4, 0] += 0.02
    text = refused("robot.npz", packed(good_arrays | {"body_pos_w": moved}))
    assert "is 0.02 m from forward kinematics" in text and "'left_knee_link'" in text
    bare = without(good_arrays, *NAME_KEYS) | {"body_pos_w": moved}
    assert "fits neither order" in refused("robot.npz", packed(bare))
    swapped = good_arrays["body_quat_w"][..., [1, 2, 3, 0]]  # x y z w
    assert "from forward kinematics" in refused(
        "xyzw.npz", packed(good_arrays | {"body_quat_w": swapped})
    )
    text = refused("com.npz", packed(good_arrays | {"velocity_point": np.array("com")}))
    assert "velocity_point is 'com', expected 'link_origin'" in text


def test_npz_texts_and_contacts(good_arrays, refused):
    for key in ("name", "source", "licence", "velocity_point"):
        for wrong in (np.array(3), np.array(["a", "b"]), np.array({"a": 1}), np.array("x" * 20000)):
            text = refused("text.npz", packed(good_arrays | {key: wrong}))
            assert f"{key} ho" in text or f"{key} has type" in text
    contact = good_arrays["foot_contact"]
    for wrong in (contact[:, :1], contact[:-1], contact.astype(str), contact.astype(object)):
        refused("contact.npz", packed(good_arrays | {"foot_contact": wrong}))


def test_pickles_are_never_loaded(good_arrays, refused, tmp_path):
    with pytest.raises(ValueError, match="allow_pickle"):
        np.load(io.BytesIO(packed({"x": np.array(Payload())})))["x"]
    count = 0
    for key in (*FLOAT_KEYS, "fps", "foot_contact", *NAME_KEYS, "name"):
        hostile = np.array([Payload()] * 3)
        text = refused("pickle.npz", packed(good_arrays | {key: hostile}))
        assert f"{key} holds pickled Python objects, which are never loaded" in text
        # An honest dtype in the header and a pickle behind it.
        raw = npy(good_arrays[key].shape, good_arrays[key].dtype.str, pickle.dumps(Payload()))
        assert "bytes for shape" in refused(
            "pickle.npz", packed(without(good_arrays, key), **{key: raw})
        )
        count += 2
    assert count == 22
    # A key that is not ours is not looked at.
    assert refused("extra.npz", packed(good_arrays | {"extra": hostile}), may_load=True) is None
    assert not os.path.exists(MARKER)
    pickle.loads(pickle.dumps(Payload())).close()
    assert os.path.exists(MARKER), "premise: unpickling would have made the file"
    os.unlink(MARKER)


def test_headers_that_claim_too_much(good_arrays, refused):
    data = good_arrays["joint_pos"].tobytes()
    for shape, words in {
        (10**12, 29): "frames, expected at most 500000",
        (10**30, 29): "frames, expected at most 500000",
        (499_999, 29): "needs 57999884 bytes for shape (499999, 29) but holds",
        (31, 29): "needs 3596 bytes for shape (31, 29) but holds 3480",
        (29, 29): "needs 3364 bytes for shape (29, 29) but holds 3480",
        (-30, 29): "has shape (-30, 29)",
        (30, -29): "has shape (30, -29)",
    }.items():
        raw = npy(shape, "<f4", data)
        text = refused("big.npz", packed(without(good_arrays, "joint_pos"), joint_pos=raw))
        assert words in text
    for raw in (
        b"", b"\x93NUMPY", data, npy((30, 29), "<f4", data, version=b"\x09\x00"),
        npy((30, 29), "|V4", data), npy((30, 29), "<M8[s]", data), npy((30, 29), "nonsense", data),
        npy("(30", "<f4", data), npy((30.0, 29), "<f4", data), npy((30, 29), [("a", "<f4")], data),
        b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**31) + b"{" * 100,
        b"\x93NUMPY\x01\x00" + struct.pack("<H", 60000) + b"(" * 60000,
        npy((30, 29), "<f4", data)[:100],
    ):  # fmt: skip
        refused("header.npz", packed(without(good_arrays, "joint_pos"), joint_pos=raw))


def test_unusual_archives(good_npz, good_arrays, refused):
    with zipfile.ZipFile(io.BytesIO(good_npz)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", method) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        assert "packed in an unusual way" in refused("packed.npz", buffer.getvalue())
    encrypted = bytearray(good_npz)
    central = encrypted.index(b"PK\x01\x02")
    encrypted[central + 8] |= 1  # the flag that says so
    assert "is encrypted" in refused("encrypted.npz", bytes(encrypted))
    other = io.BytesIO()
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("readme.txt", "no arrays")
    assert "lacks fps, joint_pos" in refused("other.npz", other.getvalue())


def test_folders_and_absent_files(tmp_path):
    for suffix in (".npz", ".csv"):
        (tmp_path / f"folder{suffix}").mkdir()
        for name, words in {"folder": "is not a file", "none": "does not exist"}.items():
            path = tmp_path / f"{name}{suffix}"
            with pytest.raises(MotionError) as error:
                load_motion(path)
            assert str(error.value) == f"{path}: {words}, expected a {suffix} file."


def test_csv_lines(refused):
    lines = motion_samples.csv_text(frames=20).splitlines()
    rng = np.random.default_rng(3)
    count = 0
    for words in (
        "nan", "NaN", "inf", "-Infinity", "1e300", "1e7", "", " ", "abc", "1.2.3", "0x10", "1;2",
        "--1", "None", '"0.1"', "1 2", "\x00", "1e", "x" * 200,
    ):  # fmt: skip
        number, column = int(rng.integers(20)), int(rng.integers(36))
        changed = list(lines)
        values = changed[number].split(",")
        values[column] = words
        changed[number] = ",".join(values)
        text = refused("bad.csv", "\n".join(changed).encode())
        place = f": line {number + 1}, column {column + 1} is"
        assert f"{place} {words.strip()[:30]!r}, expected a finite number" in text
        count += 1
    for columns in (1, 7, 35, 37, 65, 72):
        number = int(rng.integers(20))
        changed = list(lines)
        changed[number] = ",".join((lines[number].split(",") * 2)[:columns])
        text = refused("bad.csv", "\n".join(changed).encode())
        assert f": line {number + 1} has {columns} columns, expected 36" in text
        count += 1
    for quat in ("0,0,0,0", "1e-9,0,0,0", "0.5,0,0,0", "2,0,0,0", "1,1,0,0"):
        number = int(rng.integers(20))
        changed = list(lines)
        values = changed[number].split(",")
        values[3:7] = quat.split(",")
        changed[number] = ",".join(values)
        text = refused("bad.csv", "\n".join(changed).encode())
        assert f": line {number + 1} has a root quaternion (columns 4 to 7) of length" in text
        count += 1
    assert count == 30


def test_csv_files(refused):
    good = motion_samples.csv_text(frames=20)
    lines = good.splitlines(keepends=True)
    header = ",".join(f"c{i}" for i in range(36)) + "\n"
    shifted = "".join(f"{i},{line}" for i, line in enumerate(lines))
    for content, words in (
        ("", "has 0 rows, expected 3 or more"), ("\n\n\n", "has 0 rows"), (lines[0], "has 1 rows"),
        ("".join(lines[:2]), "has 2 rows"), (header + good, "line 1, column 1 is 'c0'"),
        ("".join(lines[:5]) + "\n" + "".join(lines[5:]), "line 6 is empty"),
        ("\n" + good, "line 1 is empty"), (good.replace(",", ";"), "line 1 has 1 columns"),
        (good.replace(",", "\t"), "line 1 has 1 columns"), (shifted, "line 1 has 37 columns"),
        ("\u0661" + good, "not ASCII"), ("\ufeff\ufeff" + good, "not ASCII"),
        ("1" * 10_000, "line 1 has 4096 or more characters"), ("[]", "line 1 has 1 columns"),
        ("# comment\n" + good, "line 1 has 1 columns"), (good.replace("\n", "\r"), "line 1 has"),
    ):  # fmt: skip
        assert words in refused("bad.csv", content.encode())
    rng = np.random.default_rng(4)
    for content in (good.encode("utf-16"), rng.bytes(3000), pickle.dumps(Payload()), b"\0" * 5000):
        refused("bad.csv", content)
    assert not os.path.exists(MARKER)


def test_truncated_csv(refused):
    """A cut inside a row leaves too few columns; one in the last number cannot be told."""
    content = motion_samples.csv_text(frames=20).encode()
    starts = [match.end() for match in re.finditer(b"\n", content)]
    rng = np.random.default_rng(5)
    for start in rng.choice(starts[3:-1], 15):
        length = int(rng.integers(5, content.index(b"\n", start) - start - 40))
        columns = content[start : start + length].count(b",") + 1
        line = content[:start].count(b"\n") + 1
        text = refused("cut.csv", content[: start + length])
        assert f": line {line} has {columns} columns, expected 36" in text


def test_a_clip_that_cannot_be_written_leaves_nothing(tmp_path):
    clip = motion_samples.clip(frames=10)
    (tmp_path / "file").write_text("in the way")
    for path in (tmp_path / "file" / "a.npz", tmp_path / "a.csv", tmp_path / "a"):
        with pytest.raises(BMError) as error:
            save_npz(clip, path)
        assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
