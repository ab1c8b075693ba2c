"""`motion/converted.py`: clips from the cache are the clips of the files, bit for bit."""

import copy
import os
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest

from bm_envs.errors import MotionError, MotionWarning
from bm_envs.motion import checks, converted, formats, library, procedural, store
from bm_envs.motion.clip import ARRAY_SHAPES, Clip, save_npz
from bm_envs.motion.library import load_motion, load_motions

KEYS = (*ARRAY_SHAPES, "foot_contact")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder for motions, and an empty cache."""
    monkeypatch.setenv("BM_CACHE_DIR", f"{tmp_path / 'cache'}")
    monkeypatch.setattr(store, "_refused", set())
    # The files here are young, and a young file's times are not believed.
    monkeypatch.setattr(converted, "SETTLED_S", -1.0)
    (tmp_path / "motions").mkdir()
    return tmp_path / "motions"


@pytest.fixture
def no_reading(monkeypatch):
    """Call it, and whoever reads a motion's numbers from a file fails."""

    def forbid():
        for place, name in ((formats, "read_file"), (library, "read_csv"),
                            (formats, "read_pickled_clips")):  # fmt: skip
            monkeypatch.setattr(place, name, _reads)

    return forbid


def _reads(*_, **__):
    raise AssertionError("a file was read")


def write_csv(path, clip, z=0.0):
    root = clip.body_pos_w[:, 0] + [0, 0, z]
    rows = np.concatenate([root, clip.body_quat_w[:, 0][:, [1, 2, 3, 0]], clip.joint_pos], 1)
    np.savetxt(path, rows, "%.6f", ",")
    return path


@pytest.fixture(scope="module")
def walk():
    return load_motion("walk[2:8]")


def assert_same(found: Clip, expected: Clip):
    for key in KEYS:
        a, b = getattr(found, key), getattr(expected, key)
        assert a.dtype == b.dtype and a.tobytes() == b.tobytes() and not a.flags.writeable
    for key in ("name", "fps", "source", "licence", "num_frames", "duration_s"):
        assert getattr(found, key) == getattr(expected, key)
    # Of the arrays, and not what the cache says.
    assert found.sha256() == Clip(
        found.name, found.fps, *(getattr(found, key) for key in KEYS), found.source, found.licence
    ).sha256() == expected.sha256()  # fmt: skip


@pytest.mark.parametrize("suffix", ["csv", "npz"])
def test_with_the_cache_without_and_on_first_use(folder, suffix, walk, no_reading, monkeypatch):
    path = folder / f"mine.{suffix}"
    if suffix == "csv":
        write_csv(path, walk)
    else:
        save_npz(walk, path)
    with monkeypatch.context() as context:
        context.setenv("BM_CACHE_DIR", "0")
        without = load_motion(path)
        assert not without.is_stored
    first = load_motion(path)
    no_reading()
    second = load_motion(path)
    for clip in (first, second):
        assert clip.is_stored
        assert_same(clip, without)
    part = load_motion(f"{path}[1:3]")
    assert not part.is_stored
    assert_same(part, without.cut(1, 3))
    for copied in (copy.deepcopy(second), pickle.loads(pickle.dumps(second))):
        assert copied.sha256() == second.sha256()
        assert np.array_equal(copied.joint_pos, second.joint_pos)
    with pytest.raises(AssertionError, match="was read"):
        load_motion(path, input_fps=25.0)  # which is another clip


def test_a_public_set_of_one_s_own(folder, walk, no_reading, monkeypatch):
    """By name and by path, and its file is told by its digest, which is kept as well."""
    monkeypatch.setenv("BM_DATA_DIR", f"{folder}")
    (folder / "mine").mkdir()
    path = write_csv(folder / "mine" / "a.csv", walk)
    public = library.PublicSet(
        "mine", "mine/", 50.0, "me", "mine", {"a": converted.file_sha256(path)}
    )
    first = load_motion("mine/a", sets=[public])
    no_reading()
    monkeypatch.setattr(converted, "file_sha256", _reads)
    for name in ("mine/a", path):
        clip = load_motion(name, sets=[public])
        assert_same(clip, first)
        assert clip.name == "mine/a" and clip.licence == "mine"


def test_all_clips_of_a_pickle(folder, walk, no_reading):
    path = folder / "two.pkl"
    with path.open("wb") as stream:
        pickle.dump({
            name: {"root_trans_offset": c.body_pos_w[:, 0], "dof": c.joint_pos, "fps": 50.0,
                   "root_rot": c.body_quat_w[:, 0][:, [1, 2, 3, 0]]}
            for name, c in (("a", walk), ("b", walk.cut(1, 4)))
        }, stream)  # fmt: skip
    one, first = load_motion(f"{path}#b"), load_motions(path)
    no_reading()
    assert_same(load_motion(f"{path}#b"), one)
    for found, expected in zip(load_motions(path), first, strict=True):
        assert_same(found, expected)
    assert [clip.name for clip in first] == ["a", "b"]
    with pytest.raises(AssertionError, match="was read"):
        load_motion(f"{path}#a")


def test_a_changed_file_is_read_again(folder, walk):
    """Also where its length and its time are those of before."""
    path = write_csv(folder / "a.csv", walk)
    before, about = load_motion(path), path.stat()
    text = path.read_text()
    last = text.index(",") - 1  # digit of the first number
    path.write_text(text[:last] + str((int(text[last]) + 5) % 10) + text[last + 1 :])
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert path.stat().st_size == about.st_size and path.stat().st_mtime_ns == about.st_mtime_ns
    after = load_motion(path)
    assert after.sha256() != before.sha256()
    path.write_text(text)
    assert load_motion(path).sha256() == before.sha256()


def test_a_young_file_is_not_known_by_its_times(folder, monkeypatch):
    """It may be written twice in what a disk takes for one moment."""
    monkeypatch.setattr(converted, "SETTLED_S", 2.0)
    path, read = folder / "a", []
    file_sha256 = converted.file_sha256
    monkeypatch.setattr(converted, "file_sha256", lambda p: read.append(p) or file_sha256(p))
    path.write_text("1")
    assert converted.source_sha256(path) == converted.source_sha256(path) and len(read) == 2
    monkeypatch.setattr(converted.time, "time", lambda: 10.0 + path.stat().st_ctime)
    assert converted.source_sha256(path) == converted.source_sha256(path) and len(read) == 3


def test_doubts_are_told_each_time_of_the_file_as_it_is_named(folder, walk, monkeypatch):
    path = write_csv(folder / "high.csv", walk, z=0.3)
    monkeypatch.chdir(folder)
    said = []
    for name in (path, "high.csv", "./high.csv", path):
        with pytest.warns(MotionWarning) as caught:
            load_motion(name)
        (message,) = (str(warning.message) for warning in caught)
        assert message.startswith(f"{name}: ") and "over the floor" in message
        said.append(message.removeprefix(f"{name}"))
    assert len(set(said)) == 1


def test_what_is_refused_is_refused_each_time(folder, walk):
    path = write_csv(folder / "low.csv", walk, z=-0.9)
    with checks.reported() as problems:
        looked_at = load_motion(path)
    assert problems and not looked_at.is_stored
    for _ in range(2):
        with pytest.raises(MotionError, match="under the floor"):
            load_motion(path)


def test_other_code_makes_other_clips(folder, walk, no_reading, monkeypatch):
    path = write_csv(folder / "a.csv", walk)
    load_motion(path)
    no_reading()
    load_motion(path)
    monkeypatch.setattr(converted, "code_sha256", lambda *_: "another")
    with pytest.raises(AssertionError, match="was read"):
        load_motion(path)


def test_a_damaged_cache_is_mended(folder, walk, tmp_path):
    path = write_csv(folder / "a.csv", walk)
    expected = load_motion(path)
    files = [found for found in (tmp_path / "cache").rglob("*.*") if found.is_file()]
    assert len(files) == 3  # of digests, files and clips
    for file in files:
        content = file.read_bytes()
        for damaged in (content[:-1], b"", content[:5] + b"?" + content[6:]):
            file.unlink()
            file.write_bytes(damaged)
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                assert_same(load_motion(path), expected)
            assert file.read_bytes() == content
        file.unlink()
        assert_same(load_motion(path), expected)


def test_without_a_place_to_write_all_goes_as_without_a_cache(folder, walk, monkeypatch):
    (folder / "file").write_text("")
    monkeypatch.setenv("BM_CACHE_DIR", f"{folder / 'file'}")
    path = write_csv(folder / "a.csv", walk)
    with pytest.warns(UserWarning, match="cannot be written") as caught:
        first, second = load_motion(path), load_motion(path)
    assert len(caught) == 1 and not first.is_stored
    assert_same(second, first)


READER = """
import sys
from bm_envs.motion.library import load_motion
clip = load_motion(sys.argv[1])
print(clip.is_stored, clip.sha256(), float(clip.body_pos_w.sum(dtype=float)))
"""


def test_processes_at_once(folder, walk):
    """They may all find nothing and write the same; none sees half of another's file."""
    path = write_csv(folder / "a.csv", walk)
    processes = [
        subprocess.Popen([sys.executable, "-c", READER, path], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    said = [process.communicate()[0] for process in processes]
    clip = load_motion(path)
    total = float(clip.body_pos_w.sum(dtype=float))
    assert said == [f"True {clip.sha256()} {total}\n"] * 3


def test_missing_files_are_said_as_without_a_cache(folder):
    for name in ("none.csv", "none.npz", "none.pkl#a", "a\0b.csv"):
        with pytest.raises(MotionError):
            load_motion(folder / name)
    assert not list(folder.iterdir())


def test_a_planned_clip_is_planned_once(folder, monkeypatch):
    """The second one comes from the cache, is the same to the bit, and another name is another."""
    first = load_motion("walk_mix_3")
    assert_same(first, procedural.make_clip("walk_mix_3"))
    with monkeypatch.context() as patched:
        patched.setattr(procedural, "plan_walk", _reads)
        assert_same(load_motion("walk_mix_3"), first)
        with pytest.raises(AssertionError, match="a file was read"):
            load_motion("walk_mix_4")
        patched.setenv("BM_CACHE_DIR", "0")
        with pytest.raises(AssertionError, match="a file was read"):
            load_motion("walk_mix_3")


def test_a_planned_name_that_is_wrong_leaves_nothing(folder):
    with pytest.raises(MotionError, match="Unknown procedural motion 'walk_mix_'"):
        load_motion("walk_mix_")
    assert not list((folder.parent / "cache").rglob("*.json"))
