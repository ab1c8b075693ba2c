"""Policies that remember, through the whole judge: what they claim is theirs, and is refused.

Each claim is a row that `benchmarks/track.py` measures: of the clip without chance for a look-up by
frame, of a public seed for one by seed. `tests/policy/test_examination.py` looks at their files;
here only what they do counts.
"""

import sys
from pathlib import Path

import cheating_policies as cheats
import pytest

from bm_envs import evaluation
from bm_envs.motion.library import load_motion
from bm_envs.policy import load_policy
from bm_envs.policy.examination import examine
from bm_envs.results import verification

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
import track  # noqa: E402

CLIP = "walk[1:4]"
PUBLIC, FRESH = 0, 424242
EPISODES = 24


@pytest.fixture(scope="module")
def clip():
    return load_motion(CLIP)


def measured(policy, clip, protocol, seed=PUBLIC, episodes=1):
    task = evaluation.protocol_task(policy, protocol)
    figures = track.run_episodes(policy, clip, task, episodes=episodes, seed=seed, threads=2)
    return track.result_row(policy, clip, protocol, "mujoco", figures)


@pytest.fixture(scope="module")
def by_frame(clip):
    recording = cheats.record(load_policy("walk"), clip, "clip")
    assert recording.episodes.completed.all()
    return recording


@pytest.fixture(scope="module")
def by_clock(clip):
    return cheats.record(load_policy("walk"), clip, "clip", notes=True)


@pytest.fixture(scope="module")
def by_seed(clip):
    recording = cheats.record(
        load_policy("walk"), clip, "robust", episodes=EPISODES, seed=PUBLIC, notes=True
    )
    assert recording.episodes.completed.mean() > 0.85
    return recording


@pytest.mark.slow
@pytest.mark.parametrize("construction", cheats.CONSTRUCTIONS)
def test_a_look_up_by_frame_does_not_hold_on_from_other_starts(
    construction, by_frame, clip, tmp_path
):
    cheats.by_frame(tmp_path / "cheat.onnx", construction, by_frame)
    cheat = load_policy(tmp_path / "cheat.onnx")
    claim = measured(cheat, clip, "clip")
    assert claim["success"] == 1.0, "premise: it does what it claims"
    assert list(verification.repeated(claim, measured(cheat, clip, "clip"))) == []
    around = measured(cheat, clip, "clip-perturbed", FRESH, 20)
    refusals = list(verification.stands_for_a_policy(claim, around))
    assert "success" in [name for name, *_ in refusals]


@pytest.mark.slow
@pytest.mark.parametrize("construction", [c for c in cheats.CONSTRUCTIONS if c != "ramps"])
def test_a_look_up_by_seed_does_not_know_a_fresh_one(construction, by_seed, clip, tmp_path):
    cheats.by_seed(tmp_path / "cheat.onnx", construction, by_seed)
    cheat = load_policy(tmp_path / "cheat.onnx")
    claim = measured(cheat, clip, "robust", PUBLIC, EPISODES)
    assert claim["success"] == by_seed.episodes.completed.mean(), "premise: it knows these"
    again = measured(cheat, clip, "robust", FRESH, EPISODES)
    assert "success" in [name for name, *_ in verification.resampled(claim, again)]


@pytest.mark.slow
def test_what_was_written_after_the_judge_is_seen_by_what_it_does(by_clock, clip, tmp_path):
    """Digits of a count, and a little of the state, in no form that the examination knows."""
    cheats.by_clock(tmp_path / "cheat.onnx", by_clock)
    cheat = load_policy(tmp_path / "cheat.onnx")
    claim = measured(cheat, clip, "clip")
    assert claim["success"] == 1.0, "premise: it does what it claims"
    found = examine(cheat, evaluation.observations(cheat, clip))
    assert found == ["actions jump, or stay, where the observation changes a little"]
    around = measured(cheat, clip, "clip-perturbed", FRESH, 20)
    assert "success" in [name for name, *_ in verification.stands_for_a_policy(claim, around)]


@pytest.mark.slow
def test_what_was_recorded_is_borne_out_of_the_policy_that_made_it(clip):
    """The same rows of the honest policy, with five fresh seeds."""
    honest = load_policy("walk")
    claims = {
        "clip": measured(honest, clip, "clip"),
        "robust": measured(honest, clip, "robust", PUBLIC, EPISODES),
    }
    for seed in range(FRESH, FRESH + 5):
        around = measured(honest, clip, "clip-perturbed", seed, 20)
        assert list(verification.stands_for_a_policy(claims["clip"], around)) == []
        again = measured(honest, clip, "robust", seed, EPISODES)
        assert list(verification.resampled(claims["robust"], again)) == []
