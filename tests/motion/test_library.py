"""Names, paths, cuts, search order and digests of the motion library."""

import hashlib
import re
import shutil
from dataclasses import replace
from pathlib import Path

import motion_samples
import numpy as np
import pytest

from bm_envs.errors import MotionError
from bm_envs.motion import hub, library
from bm_envs.motion.clip import load_npz, save_npz
from bm_envs.motion.csv import read_csv
from bm_envs.motion.library import LAFAN1, PUBLIC_SETS, list_motions, load_motion, load_motions

UNFIT = "does not fit, expected start < end within 0 and 2.00 s."
GRAMMAR = "expected a cut in seconds, as in 'NAME[10:20]'."
LIST = "4 known: run tools/replay.py --list."


@pytest.fixture
def world(tmp_path, monkeypatch):
    """An empty working folder, a BM_DATA_DIR, one built-in clip `march`, no Hub.

    Returns the sets to load with: `toy1_subject2` and `toy1_subject10` in the place of LAFAN1, and
    `g1_moves/Kick`.
    """
    data, cwd, builtin = tmp_path / "data", tmp_path / "cwd", tmp_path / "builtin"
    for folder in (data / "lafan1_g1", data / "g1_moves", cwd, builtin):
        folder.mkdir(parents=True)
    digests = {}
    for seed, name in enumerate(
        ("lafan1_g1/toy1_subject10", "lafan1_g1/toy1_subject2", "g1_moves/Kick")
    ):
        text = motion_samples.csv_text(frames=61, seed=seed)
        (data / f"{name}.csv").write_text(text)
        digests[name.rpartition("/")[2]] = hashlib.sha256(text.encode()).hexdigest()
    save_npz(motion_samples.clip(name="march", frames=101), builtin / "march.npz")
    monkeypatch.setenv("BM_DATA_DIR", str(data))
    monkeypatch.setattr(library, "BUILTIN_DIR", builtin)
    monkeypatch.setattr(hub, "fetch", lambda *_, **__: pytest.fail("the Hub was asked"))
    monkeypatch.chdir(cwd)
    moves = digests.pop("Kick")
    return (
        replace(PUBLIC_SETS[0], sha256=digests),
        replace(PUBLIC_SETS[1], sha256={"Kick": moves}),
    )


def test_the_published_names_are_known():
    names = [name for public in PUBLIC_SETS for name in public.names()]
    assert len(LAFAN1.names()) == 40 and len(names) == len(set(names)) == 47
    kinds = [re.sub(r"\d+_subject\d+", "", name) for name in LAFAN1.names()]
    # Counts by kind as the data set's description gives them (dance 3 + 5, walk 12, ...).
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        "dance": 8, "fallAndGetUp": 6, "fight": 3, "fightAndSports": 2, "jumps": 3, "run": 4,
        "sprint": 2, "walk": 12,
    }  # fmt: skip
    digests = [digest for public in PUBLIC_SETS for digest in public.sha256.values()]
    assert len(set(digests)) == 47
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in digests)


def test_a_built_in_clip_by_name(world):
    clip = load_motion("march", sets=world)
    assert (clip.name, clip.num_frames) == ("march", 101)


@pytest.mark.slow
def test_a_walk_made_when_asked_for(world):
    clip = load_motion("walk_mix_12[3:5]", sets=world)
    assert (clip.name, clip.fps, clip.num_frames) == ("walk_mix_12[3:5]", 50.0, 101)
    with pytest.raises(MotionError, match="Unknown procedural motion 'walk_mix_'"):
        load_motion("walk_mix_", sets=world)


def test_a_public_motion_by_full_and_by_short_name(world):
    clip = load_motion("toy1_subject10", sets=world)
    assert (clip.name, clip.fps, clip.num_frames) == ("toy1_subject10", 50.0, 100)
    assert (clip.licence, clip.source) == (LAFAN1.licence, LAFAN1.source)
    # 2 is the lowest number, though "10" sorts before it as text.
    short = load_motion("toy1", sets=world)
    assert short.name == "toy1_subject2"
    assert short.sha256() == load_motion("toy1_subject2", sets=world).sha256() != clip.sha256()


def test_short_names_of_the_published_set():
    short = library._short_names(PUBLIC_SETS)
    assert short["dance1"] == "dance1_subject1"
    assert short["fight1"] == "fight1_subject2"
    assert short["fallAndGetUp2"] == "fallAndGetUp2_subject2"
    # dance 2, fallAndGetUp 3, fight 1, fightAndSports 1, jumps 1, run 2, sprint 1, walk 4
    assert len(short) == 15


def test_each_set_has_its_rate(world, tmp_path):
    clip = load_motion("g1_moves/Kick", sets=world)
    assert (clip.name, clip.num_frames) == ("g1_moves/Kick", 50)  # 60 intervals at 60 fps are 1 s
    # By its path it is the same motion, wherever it lies; what it was told it believes.
    path = tmp_path / "elsewhere.csv"
    path.write_bytes((tmp_path / "data" / "g1_moves" / "Kick.csv").read_bytes())
    found = load_motion(path, sets=world)
    assert (
        (found.name, found.licence) == (clip.name, clip.licence) == ("g1_moves/Kick", "CC BY 4.0")
    )
    assert found.sha256() == clip.sha256() == load_motion(f"{path}[0:]", sets=world).sha256()
    assert load_motion(path, sets=world, input_fps=30.0).num_frames == 100
    assert clip.licence == "CC BY 4.0"


def test_other_files_of_the_data_folder_by_name(world, tmp_path):
    save_npz(motion_samples.clip(name="inside", seed=5), tmp_path / "data" / "mine.npz")
    (tmp_path / "data" / "sub").mkdir()
    (tmp_path / "data" / "sub" / "mine.csv").write_text(motion_samples.csv_text(frames=61))
    (tmp_path / "data" / "g1_moves" / "Other.csv").write_text(motion_samples.csv_text(frames=61))
    assert load_motion("mine", sets=world).num_frames == 60
    assert load_motion("sub/mine", sets=world).num_frames == 100
    assert load_motion("sub/mine", sets=world, input_fps=60).num_frames == 50
    assert load_motion("g1_moves/Other", sets=world).num_frames == 50


def test_an_existing_path_wins_over_a_name(world, tmp_path):
    save_npz(motion_samples.clip(name="x", frames=20), Path("toy1_subject2.npz"))
    assert load_motion("toy1_subject2.npz", sets=world).num_frames == 20
    assert load_motion(Path("toy1_subject2.npz"), sets=world).num_frames == 20
    Path("march").mkdir()
    Path("toy1").write_text("no motion: a file without a suffix hides no name")
    assert load_motion("march", sets=world).num_frames == 101
    assert load_motion("toy1", sets=world).name == "toy1_subject2"
    shutil.copy("toy1_subject2.npz", "a[0:1].npz")
    assert load_motion("a[0:1].npz", sets=world).num_frames == 20
    assert load_motion("a[0:1].npz[0.1:0.2]", sets=world).num_frames == 6


def test_a_csv_path_is_30_fps_unless_told(world):
    Path("a.csv").write_text(motion_samples.csv_text(frames=61))
    assert load_motion("a.csv", sets=world).num_frames == 100
    assert load_motion("a.csv", sets=world, input_fps=60).num_frames == 50


def test_the_order_of_an_npz_without_names_is_found_or_checked(world):
    save_npz(motion_samples.clip(), Path("a.npz"), order="isaac")
    with np.load("a.npz") as archive:
        bare = {key: archive[key] for key in archive.files if not key.endswith("_names")}
    np.savez("bare.npz", **bare)
    for text in ("bare.npz", "bare.npz[0:1]"):
        with pytest.raises(MotionError, match="forward kinematics fits order='isaac'"):
            load_motion(text, order="mujoco")
        clip = load_motion(text)
        frames = clip.num_frames
        np.testing.assert_array_equal(clip.joint_pos, motion_samples.clip().joint_pos[:frames])


def test_cuts(world):
    whole = load_motion("march", sets=world)
    assert whole.duration_s == 2.0
    for text, first, last in (
        ("march[0.5:1.5]", 25, 75), ("march[1:]", 50, 100), ("march[:1]", 0, 50),
        ("march[:]", 0, 100), ("march[.5:2.0]", 25, 100),
    ):  # fmt: skip
        part = load_motion(text, sets=world)
        np.testing.assert_array_equal(part.joint_pos, whole.joint_pos[first : last + 1])
    assert load_motion("toy1[0:1]", sets=world).name == "toy1_subject2[0:1]"


@pytest.mark.parametrize(
    ("motion", "sentence"),
    [
        ("march[1:1]", f"march: the cut [1:1] {UNFIT}"),
        ("march[0:3]", f"march: the cut [0:3] {UNFIT}"),
        ("march[5:]", f"march: the cut [5:] {UNFIT}"),
        ("march[-1:2]", f"Motion 'march[-1:2]': {GRAMMAR}"),
        ("march[a:b]", f"Motion 'march[a:b]': {GRAMMAR}"),
        ("march[1]", f"Motion 'march[1]': {GRAMMAR}"),
        ("march[0:1:2]", f"Motion 'march[0:1:2]': {GRAMMAR}"),
        ("march[.:1]", f"Motion 'march[.:1]': {GRAMMAR}"),
        ("mrach", f"Unknown motion 'mrach'; did you mean 'march'? {LIST}"),
        ("toy2", f"Unknown motion 'toy2'; did you mean 'toy1'? {LIST}"),
        ("zzz", f"Unknown motion 'zzz'; {LIST}"),
        ("", f"Unknown motion ''; {LIST}"),
        ("a\nb", f"Unknown motion 'a\\nb'; {LIST}"),
        ("x" * 5000, f"Unknown motion '{'x' * 5000}'; {LIST}"),
        ("nul\0", f"Unknown motion 'nul\\x00'; {LIST}"),
        ("none.npz", "none.npz: does not exist, expected a .npz file."),
        ("none.csv[0:1]", "none.csv: does not exist, expected a .csv file."),
        ("note.txt", "note.txt: ends in '.txt', expected a motion in .npz, .csv, .pkl."),
        ("man.bvh", "man.bvh: is the motion of a person, expected one of the robot:"
         " tools/retarget.py makes it."),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_sentence(world, motion, sentence):
    Path("man.bvh").write_text("HIERARCHY")
    Path("note.txt").write_text("no motion")
    with pytest.raises(MotionError) as caught:
        load_motion(motion, sets=world)
    assert str(caught.value) == sentence


def test_the_published_names_in_the_sentence(monkeypatch, tmp_path):
    monkeypatch.delenv("BM_DATA_DIR", raising=False)
    monkeypatch.setattr(library, "BUILTIN_DIR", tmp_path)
    text = "Unknown motion 'dnace1'; did you mean 'dance1'? 47 known: run tools/replay.py --list."
    with pytest.raises(MotionError, match=re.escape(text)):
        load_motion("dnace1")


def test_a_changed_file_is_refused(world, tmp_path):
    path = tmp_path / "data" / "lafan1_g1" / "toy1_subject2.csv"
    expected = world[0].sha256["toy1_subject2"][:12]
    path.write_text(path.read_text().replace("1", "2", 1))
    found = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    text = f"{path}: has SHA-256 {found}..., expected {expected}... of the published file."
    with pytest.raises(MotionError, match=re.escape(text)):
        load_motion("toy1", sets=world)


def test_without_a_data_folder(world, tmp_path, monkeypatch):
    monkeypatch.delenv("BM_DATA_DIR")
    text = (
        "g1_moves/Kick: is not part of the package (CC BY 4.0); set BM_DATA_DIR to a folder that"
        " holds g1_moves/Kick.csv."
    )
    with pytest.raises(MotionError, match=re.escape(text)):
        load_motion("g1_moves/Kick", sets=world)
    monkeypatch.setenv("BM_DATA_DIR", str(tmp_path / "none"))
    with pytest.raises(MotionError, match="BM_DATA_DIR is '.*none', expected a folder that exists"):
        load_motion("toy1", sets=world)
    assert load_motion("march", sets=world).name == "march", "built-in clips need no folder"


def test_the_hub_comes_after_the_data_folder(world, tmp_path, monkeypatch):
    path = tmp_path / "data" / "lafan1_g1" / "toy1_subject2.csv"
    cached = tmp_path / "cached.csv"
    path.rename(cached)
    asked = []
    monkeypatch.setattr(hub, "fetch", lambda name, digest: asked.append((name, digest)) or cached)
    clip = load_motion("toy1_subject2", sets=world)
    assert asked == [("g1/toy1_subject2.csv", world[0].sha256["toy1_subject2"])]
    assert (clip.name, clip.licence) == ("toy1_subject2", LAFAN1.licence)

    def unreachable(*_):
        raise MotionError("DATASET/FILE: is not in the Hub cache and URL gave no answer.")

    monkeypatch.setattr(hub, "fetch", unreachable)
    text = (
        "DATASET/FILE: is not in the Hub cache and URL gave no answer; else set BM_DATA_DIR to a"
        " folder that holds lafan1_g1/toy1_subject2.csv."
    )
    with pytest.raises(MotionError, match=re.escape(text)):
        load_motion("toy1_subject2", sets=world)


def test_several_motions_keep_their_order(world):
    clip = motion_samples.clip()
    save_npz(clip, Path("file.npz"))
    assert [c.name for c in load_motions(["march[0:1]", "file.npz", Path("file.npz")])] == [
        "march[0:1]", "sample", "sample",
    ]  # fmt: skip
    assert load_motions("march")[0].name == "march"
    assert load_motions(clip) == [clip]
    assert load_motions([clip, "march"])[0] is clip
    with pytest.raises(MotionError, match="The list of motions is empty"):
        load_motions([])


def test_the_list_says_where_each_is(world, tmp_path):
    (tmp_path / "data" / "lafan1_g1" / "toy1_subject10.csv").unlink()
    (tmp_path / "data" / "g1_moves" / "Kick.csv").unlink()
    found = {info.name: (info.where, info.fps, info.frames) for info in list_motions(world)}
    assert found == {
        "march": ("package", 50.0, 101),
        "toy1_subject10": ("Hub", 30.0, None),
        "toy1_subject2": ("BM_DATA_DIR", 30.0, 61),
        "g1_moves/Kick": ("not here", 60.0, None),
    }


def test_the_list_has_the_users_own_files(world, tmp_path):
    data = tmp_path / "data"
    save_npz(motion_samples.clip(name="x", frames=51), data / "mine.npz")
    (data / "sub" / ".hidden").mkdir(parents=True)
    text = motion_samples.csv_text(frames=31)
    (data / "sub" / "dance.csv").write_text(text)
    (data / "sub" / "ragged.csv").write_text(text.rstrip("\n"))  # no newline at its end
    (data / "mine.csv").write_text(text)  # `mine` is the NPZ
    for junk in ("sub/.hidden/a.csv", "march.csv"):  # out of sight; the package's wins
        (data / junk).write_text(text)
    (data / "sub" / "table.csv").write_text("a,b\n1,2\n")
    (data / "sub" / "bad.npz").write_bytes(b"PK")
    np.savez(data / "sub" / "other.npz", fps=50.0, angles=np.zeros((3, 29)))
    np.savez(data / "sub" / "pickled.npz", fps=50.0, joint_pos=np.array([object()]))
    own = {i.name: i for i in list_motions(world)[4:]}
    found = {name: (i.where, i.fps, i.frames, i.licence) for name, i in own.items()}
    assert found == {
        "mine": ("BM_DATA_DIR", 50.0, 51, motion_samples.clip().licence),
        "sub/dance": ("BM_DATA_DIR", 30.0, 31, "yours"),
        "sub/ragged": ("BM_DATA_DIR", 30.0, 31, "yours"),
    }
    for name, info in own.items():
        clip = load_motion(name, sets=world)
        assert clip.duration_s == pytest.approx((info.frames - 1) / info.fps, abs=0.04), name


def test_the_clips_of_the_package_load_under_their_names():
    files = sorted(library.BUILTIN_DIR.glob("*.npz"))
    if not files:
        pytest.skip("no built-in clip has been made")
    for path in files:
        clip = load_motion(path.stem)
        assert (clip.name, clip.fps) == (path.stem, 50.0)
        assert clip.sha256() == load_npz(path).sha256()


def test_lafan1_from_the_data_folder(data_dir, monkeypatch):
    monkeypatch.setenv("BM_DATA_DIR", str(data_dir))
    clip = load_motion("dance1[0:10]")
    assert (clip.name, clip.num_frames) == ("dance1_subject1[0:10]", 501)
    whole = read_csv(data_dir / "lafan1_g1" / "dance1_subject1.csv", input_fps=30)
    assert clip.sha256() == whole.cut(0, 10).sha256()
    infos = [info for info in list_motions() if info.where == "BM_DATA_DIR"]
    # 264,705 frames in the 40 files of LAFAN1, 7,342 in the 7 of G1 Moves, as their readme counts.
    assert [sum(i.frames or 0 for i in infos if i.fps == fps) for fps in (30, 60)] == [264705, 7342]
    monkeypatch.delenv("BM_DATA_DIR")  # and what is told without the files is the same
    told = {i.name: i.frames for i in list_motions() if i.where in ("Hub", "not here")}
    assert told == {i.name: i.frames for i in infos if i.name in told} and len(told) == 47
