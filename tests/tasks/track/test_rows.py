"""`tasks/track/rows.py`: one table of clips, whether they are in the cache, in memory, or both."""

import sys

import numpy as np
import pytest

from bm_envs.envs import TrackVectorEnv
from bm_envs.motion import store
from bm_envs.motion.clip import save_npz
from bm_envs.motion.library import load_motion
from bm_envs.motion.memory import MemoryUnavailable, Region
from bm_envs.robots import g1
from bm_envs.rotations import quat_axes
from bm_envs.tasks.track import rows as module
from bm_envs.tasks.track.rows import Reference, foot_contacts, reference_table, without_gaps

NAMES = ("walk[1:9]", "turn_left", "walk[3:4.5]")
TRACKED = [g1.BODY_NAMES.index(name) for name in g1.TRACKED_BODIES]


@pytest.fixture
def sets(tmp_path, monkeypatch):
    """The same three clips: in memory alone, in the cache, and one in memory among others."""
    monkeypatch.setattr(store, "_refused", set())
    monkeypatch.setenv("BM_CACHE_DIR", "0")
    memory, paths = [load_motion(name) for name in NAMES], []
    for i, clip in enumerate(memory):
        paths.append(tmp_path / f"{i}.npz")
        save_npz(clip, paths[-1])
    monkeypatch.setenv("BM_CACHE_DIR", f"{tmp_path / 'cache'}")
    stored = [load_motion(path) for path in paths]
    assert all(clip.is_stored for clip in stored)
    return {
        "memory": memory, "first use": stored, "cache": [load_motion(path) for path in paths],
        "both": [stored[0], memory[1], load_motion(paths[2])],
    }  # fmt: skip


def expected_rows(clip):
    """By the definition of the layout, in float64 and rounded at the end."""
    bodies = (clip.body_pos_w, clip.body_quat_w, clip.body_lin_vel_w, clip.body_ang_vel_w)
    axes = quat_axes(clip.body_quat_w[:, g1.BODY_NAMES.index(g1.ANCHOR_BODY)].astype(float))
    parts = [clip.joint_pos, clip.joint_vel, *(body[:, TRACKED] for body in bodies), axes]
    parts = [part.astype(float).reshape(clip.num_frames, -1) for part in parts]
    return np.concatenate(parts, 1).astype(np.float32)


def test_rows_are_the_clips_bit_for_bit(sets):
    for clips in sets.values():
        table, first = reference_table(clips)
        assert table.dtype == np.float32 and not table.flags.writeable
        assert table.flags.c_contiguous and table.shape[1] == Reference.SIZE
        contact = foot_contacts(clips, first)
        frames = np.array([clip.num_frames for clip in clips])
        whole, start = without_gaps(table, first, frames)
        assert len(whole) == frames.sum()
        for clip, row, number in zip(clips, first, start, strict=True):
            rows = expected_rows(clip)
            here = slice(row, row + clip.num_frames)
            assert table[here].tobytes() == rows.tobytes()
            assert whole[number : number + clip.num_frames].tobytes() == rows.tobytes()
            assert np.array_equal(contact[here], clip.foot_contact)
        (one, at), clip = reference_table(clips[:1]), clips[0]
        assert at.tolist() == [0] and one.tobytes() == expected_rows(clip).tobytes()
        assert reference_table(clips[:1])[0] is one and not one.flags.writeable


def test_rows_come_from_the_cache(sets, monkeypatch):
    reference_table(sets["first use"])
    monkeypatch.setattr(module, "_make_rows", None)
    reference_table(sets["cache"])
    monkeypatch.setattr(module, "code_sha256", lambda *_: "another")
    with pytest.raises(TypeError):
        reference_table(sets["cache"])


def test_without_shared_memory_rows_are_copied(sets, monkeypatch):
    def none(*_):
        raise MemoryUnavailable("none")

    monkeypatch.setattr(Region, "put_file", none)
    table, first = reference_table(sets["cache"])
    frames = [clip.num_frames for clip in sets["cache"]]
    assert first.tolist() == [0, frames[0], frames[0] + frames[1]]
    expected = np.concatenate([expected_rows(clip) for clip in sets["memory"]])
    assert table.tobytes() == expected.tobytes()


def test_a_cache_that_is_gone_is_made_again_or_done_without(sets, tmp_path, monkeypatch):
    clips = sets["cache"]
    for path in (tmp_path / "cache").rglob("*.*"):
        path.unlink()
    expected = expected_rows(clips[2])
    table, first = reference_table(clips)
    assert table[first[2] :][: len(expected)].tobytes() == expected.tobytes()
    for folder in (f"{tmp_path / '0.npz'}", "0"):
        monkeypatch.setenv("BM_CACHE_DIR", folder)
        if folder == "0":
            table, first = reference_table(clips)
        else:
            with pytest.warns(UserWarning, match="cannot be written"):
                table, first = reference_table(clips)
        assert table[first[2] :][: len(expected)].tobytes() == expected.tobytes()


@pytest.mark.parametrize("native", [True, False])
def test_an_environment_does_not_know_where_its_clips_are(sets, native, monkeypatch):
    """Nor does a state that was saved beside another layout of rows."""
    overrides = {"rewards": {"foot_contact": -1.0}, "start": {"mode": "adaptive"}}
    if not native:
        monkeypatch.setattr("bm_envs.tasks.track.kernel.library", lambda: None)
    envs = [
        TrackVectorEnv(5, clips, overrides=overrides, threads=1)
        for clips in (sets["memory"], sets["first use"], sets["cache"], sets["both"])
    ]
    one = envs[0]
    assert len({len(env.task.tables.reference) for env in envs}) > 1, "premise: layouts differ"
    results = [env.reset(seed=3) for env in envs]
    rng = np.random.default_rng(0)
    for step in range(60):
        action = one.task.reference_action() + rng.normal(0, 0.4, (5, 29)).astype(np.float32)
        for result in results[1:]:
            for mine, theirs in zip(results[0], result, strict=True):
                same(mine, theirs)
        numbers = [env.task.frame_numbers() for env in envs]
        assert all(np.array_equal(numbers[0], other) for other in numbers[1:])
        assert all(np.array_equal(one.task.sampler.visits, e.task.sampler.visits) for e in envs)
        if step == 30:  # from here they go on from each other's states
            states = [env.get_state() for env in envs]
            for i, env in enumerate(envs):
                env.set_state(states[i - 1])
        results = [env.step(action) for env in envs]
    assert len(set(one.task.clip_id.tolist())) > 1, "premise: several clips are played"
    for env in envs:
        env.close()


def same(mine, theirs):
    if isinstance(mine, dict):
        assert mine.keys() == theirs.keys()
        for key, value in mine.items():
            same(value, theirs[key])
    elif isinstance(mine, np.ndarray) and mine.dtype == object:
        assert [value is None for value in mine] == [value is None for value in theirs]
        for value, other in zip(mine, theirs, strict=True):
            if value is not None:
                same(value, other)
    else:
        assert np.array_equal(mine, theirs)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_a_table_of_the_cache_takes_no_memory(sets):
    clips = sets["cache"] * 400
    reference_table(clips)  # what is read for it is there

    def private():
        with open("/proc/self/status") as stream:
            return next(int(line.split()[1]) for line in stream if line.startswith("RssAnon"))

    before = private()
    table, first = reference_table(clips)
    assert table.nbytes > 1 << 30 and private() - before < 8 << 10  # kB
    rows = expected_rows(clips[0])
    assert table[first[-3] :][: len(rows)].tobytes() == rows.tobytes()
