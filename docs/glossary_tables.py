"""The glossary's tables, made from the one list of words below.

    python docs/glossary_tables.py            # write them into the page
    python docs/glossary_tables.py --check    # exit status 1 where the page does not hold them

Errors have the names that every table shows (`bm_envs.results.ERROR_HEADS`). Tables stand between
marks, as those of `guided_tables.py` do.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import NamedTuple

from guided_tables import write

from bm_envs.cli import markdown_table
from bm_envs.results import ERROR_HEADS
from bm_envs.robots.g1 import NUM_JOINTS, TRACKED_BODIES
from bm_envs.tasks.track.config import CONTROL_DT


class Word(NamedTuple):
    """A line of a table."""

    name: str
    meaning: str
    written: str = ""
    """Names of it in code and files, separated by spaces."""


LINKS = len(TRACKED_BODIES)
ERRORS = {
    "mpkpe_mm": f"mean distance of the {LINKS} tracked links from the reference, in the world: "
    "posture and place. The name is short for mean per-key-point error. It is the global one",
    "r_mpkpe_mm": "the same after the reference's torso is laid on the robot's, by place and "
    "heading: posture without place. R is for relative",
    "joint_pos_rad": f"mean absolute error of the {NUM_JOINTS} joint angles",
    "joint_vel_rad_s": "root mean square of the joint velocities' error",
    "ee_pos_mm": "as R-MPKPE, of feet and hands alone",
    "ee_ori_rad": "angle between feet and hands and the reference's, laid on each other likewise",
}
OUTCOMES = (
    Word("completed", "the episode reached the clip's end without a failure; of a clip: its "
         "episode of the clip protocol did"),
    Word("success", "share of the episodes that are completed, or reach the task's goal",
         "success success_rate"),
    Word("survived, s", "seconds until the first failure; the clip's length where there is none",
         "survival_s"),
    Word("share survived", "the same over the clip's length", "survival"),
    Word("95 % interval", "Wilson's, for a share of so many episodes", "success_ci95 ci95"),
    Word("normalized return", "sum of rewards over the most that perfect tracking can earn",
         "normalized_return"),
    Word("outside", "share of the guided numbers beyond the range of the training data",
         "outside_box"),
    Word("motion quality", "how the robot moves: slip, impacts, chatter and others "
         "([table](leaderboard.md#motion-quality))", "slip_p95_m_s chatter_share"),
)  # fmt: skip
WORDS = (
    Word("LAFAN1", "motions of people, recorded by Ubisoft, brought to the G1 by Unitree"),
    Word("action", f"what a policy gives each control step: {NUM_JOINTS} offsets of joint targets",
         "action_scale"),
    Word("actor", "the network that learns to act: the policy in training", "actor"),
    Word("anchor", "the link by which robot and reference are compared: the torso",
         "anchor_body_name"),
    Word("bin", "a piece of a clip, about a second; failures are counted and starts drawn by bins",
         "bin_s"),
    Word("clip", "a motion of the robot, frame by frame; also the protocol that plays one",
         "Clip"),
    Word("clip protocol", "plays a clip once from the first frame to the last, without noise",
         "clip"),
    Word("clip-perturbed protocol", "plays a clip 20 times from starts about the first frame, "
         "without noise after that", "clip-perturbed"),
    Word("control step", f"one call of the policy, every {CONTROL_DT:g} s",
         "CONTROL_DT tick_ms_p95"),
    Word("cost", "a function of predicted states whose minimum is what a guided model shall do",
         "costs"),
    Word("critic", "the network that estimates the value, in training alone; it sees more than the "
         "policy does", "critic_obs"),
    Word("curriculum", "noise and pushes grow with the level, as robots learn to stay up",
         "curriculum"),
    Word("cut `[a:b]`", "the seconds a to b of a clip, as in `walk1[5:15]`"),
    Word("episode", "what runs from a reset to an end", "episode_s"),
    Word("failure", "the robot is too far from its reference, mostly in height or tilt; where "
         "there is no reference, it has fallen", "failure"),
    Word("guidance", "moving a diffusion model's predicted states towards the minimum of a cost",
         "Steering"),
    Word("guided model", "a diffusion model of states and actions that does a task by guidance: "
         "Body-Pos or Joint-Rot, by what its states hold", "guided_body_pos guided_joint_rot"),
    Word("hardest tenth of the bins", "where robots fail most often; the level rises while they "
         "last long enough there", "hardest_s"),
    Word("horizon", "how many control steps an imagined rollout of `wm_track.py` looks ahead",
         "policy_horizon"),
    Word("level", "of the curriculum: how much of noise and pushes is on, 0 to 1; of a diffusion "
         "model: how much noise is on a state or an action", "level"),
    Word("link", "a rigid part of the robot; some figures call it a body", "body_names"),
    Word("obs", "the observation: what a policy sees in a control step", "obs critic_obs"),
    Word("paper", "BeyondMimic, arXiv 2508.08241"),
    Word("policy", "a network that gives an action for an observation", "policy.onnx"),
    Word("preset", "a named set of the task's settings", "preset"),
    Word("push", "a jump of the root's velocity", "push"),
    Word("qpos", "place (3), rotation (4, w x y z) and joint angles of a robot in one array",
         "qpos"),
    Word("reference", "the motion that a robot shall follow", "Reference"),
    Word("robust protocol", "100 episodes or more a clip with noise, pushes and randomized robots",
         "robust"),
    Word("rollout", "states and actions of a policy that was run; imagined: run in a learned model",
         "rollouts"),
    Word("root", "the pelvis, with whose place and rotation qpos begins", "root_pos"),
    Word("seed", "the number from which all draws of a run follow", "seed"),
    Word("start", "the frame in which an episode begins", "start"),
    Word("suite", "a named list of motions, such as `lafan1-cuts`", "suite"),
    Word("terminated", "the episode ended by a failure, or a goal; nothing comes after it",
         "terminated"),
    Word("tracker", "a policy that follows a reference", "TRACKER"),
    Word("training window", "control steps in a row that a model learns from as one; the horizon "
         "is another number", "model_horizon"),
    Word("truncated", "the episode ended by time or the clip's end; a value stands for the rest",
         "truncated"),
    Word("value", "expected sum of rewards from here on, as the critic estimates it", "critic"),
)  # fmt: skip


def told(words: Iterable[Word]) -> str:
    """A table of words."""
    rows = [
        [word.name, word.meaning, ", ".join(f"`{name}`" for name in word.written.split())]
        for word in words
    ]
    return markdown_table(["name", "what it is", "in code and files"], rows)


def errors() -> str:
    """The errors, by the names that tables show."""
    return told(Word(head, ERRORS[name], name) for name, head in ERROR_HEADS.items())


def outcomes() -> str:
    """Figures that are no errors."""
    return told(OUTCOMES)


def words() -> str:
    """Everything else, by the alphabet."""
    return told(sorted(WORDS))


PAGES: dict[str, dict[str, Callable[[], str]]] = {
    "docs/glossary.md": {"errors": errors, "outcomes": outcomes, "words": words},
}


if __name__ == "__main__":
    sys.exit(write(sys.argv[1:], PAGES, "docs/glossary_tables.py"))
