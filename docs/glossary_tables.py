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
    "mpkpe_mm": f"mean per-key-point error: distance of the {LINKS} tracked links from the "
    "reference, in the world: posture and place",
    "r_mpkpe_mm": "relative: the same after the reference's torso is laid on the robot's, by place "
    "and heading: posture without place",
    "joint_pos_rad": f"mean absolute error of the {NUM_JOINTS} joint angles",
    "joint_vel_rad_s": "root mean square of the joint velocities' error",
    "ee_pos_mm": "as R-MPKPE, only of feet and hands",
    "ee_ori_rad": "angle of feet and hands from the reference's, likewise",
}
OUTCOMES = (
    Word("completed", "the clip's end was reached without a failure; of a clip: by its clip "
         "protocol"),
    Word("success", "share of episodes that are completed, or reach the task's goal",
         "success success_rate"),
    Word("survived, s", "seconds until the first failure, or the clip's length", "survival_s"),
    Word("share survived", "the same over the clip's length", "survival"),
    Word("95 % interval", "Wilson's, of a share", "success_ci95 ci95"),
    Word("normalized return", "sum of rewards over the most that perfect tracking can earn",
         "normalized_return"),
    Word("outside", "share of numbers that guidance moved beyond the range of the training data",
         "outside_box"),
    Word("motion quality", "slip, impacts, chatter and others "
         "([table](leaderboard.md#motion-quality))", "slip_p95_m_s chatter_share"),
)  # fmt: skip
WORDS = (
    Word("LAFAN1", "motions of people, recorded by Ubisoft, brought to the G1 by Unitree"),
    Word("action", f"what a policy gives each control step: {NUM_JOINTS} offsets of joint targets",
         "action_scale"),
    Word("anchor", "the link by which robot and reference are compared: the torso",
         "anchor_body_name"),
    Word("backend", "the physics engine below an environment: MuJoCo's C engine, MuJoCo-Warp, "
         "Isaac Lab", "backend"),
    Word("base", "the root, in what a policy observes", "base_lin_vel"),
    Word("bin", "a short part of a clip, 1 s (`wm_track.py`: 0.25 s); failures and starts are "
         "counted by bins", "bin_s"),
    Word("call", "one evaluation of a guided model's network, of several in a control step",
         "sampler"),
    Word("checkpoint", "the file from which a stopped training goes on", "checkpoint.pt"),
    Word("clip", "a motion of the robot, frame by frame; also the protocol that plays one",
         "Clip"),
    Word("clip protocol", "plays a clip once from first frame to last, without noise", "clip"),
    Word("clip-perturbed protocol", "the same, 20 times from starts about the first frame"),
    Word("control step", f"one action, every {CONTROL_DT:g} s", "CONTROL_DT tick_ms_p95"),
    Word("cost", "a function of predicted states; a guided model seeks its minimum", "costs"),
    Word("critic", "estimates the value, only in training; sees more than the policy",
         "critic_obs"),
    Word("curriculum", "noise and pushes grow as robots learn to stay up"),
    Word("cut `[a:b]`", "seconds a to b of a clip: `walk1[5:15]`"),
    Word("episode", "one run of a robot from its start to its end", "episodes"),
    Word("extra", "optional packages of an installation ([which](command.md#which-extra))"),
    Word("failure", "too far from the reference, mostly in height or tilt; without a reference: a "
         "fall"),
    Word("gate", "a test that a guided model must pass", "gate"),
    Word("guidance", "moving predicted states towards the minimum of a cost", "Steering"),
    Word("guided model", "a diffusion model of states and actions; Body-Pos: states hold links, "
         "Joint-Rot: joint angles",
         "guided_body_pos guided_joint_rot"),
    Word("hardest tenth of the bins", "where robots fail most often; how long they stay up there "
         "sets the curriculum's level", "hardest_s"),
    Word("horizon", "control steps that `wm_track.py` imagines ahead", "policy_horizon"),
    Word("iteration", "of a trainer: some steps of all robots, then the updates", "iteration"),
    Word("level", "of the curriculum: share of noise and pushes that is on; of a guided model: "
         "noise on a state or an action"),
    Word("link", "a rigid part of the robot, a body in MuJoCo", "body_names"),
    Word("obs", "what a policy sees in a control step", "obs critic_obs"),
    Word("own step", "of a cost: its step to the minimum, in place of a gradient's"),
    Word("paper", "BeyondMimic, arXiv 2508.08241"),
    Word("plan", "states and actions that a guided model predicts in a control step"),
    Word("policy", "a network from obs to action", "policy.onnx"),
    Word("preset", "a set of settings under one name", "preset"),
    Word("procedural", "computed by a program, not recorded"),
    Word("push", "a jump of the root's velocity"),
    Word("qpos", "a robot's place (3), rotation (4, w x y z) and joint angles"),
    Word("randomized robot", "one with friction, masses and joint offsets drawn by chance"),
    Word("reference", "the motion that a robot shall follow", "Reference"),
    Word("robust protocol", "100 episodes or more a clip with noise, pushes and randomized robots"),
    Word("rollout", "states and actions of a policy, simulated or imagined"),
    Word("root", "the pelvis; qpos begins with it", "root_pos"),
    Word("seed", "the number that all random draws follow from", "seed"),
    Word("sim2sim", "a policy run in another simulation of the robot"),
    Word("start", "the frame in which an episode begins"),
    Word("strength", "share of the step to a cost's minimum that guidance takes, 0 to 1",
         "strength"),
    Word("terminated", "the episode ended by a failure or a goal"),
    Word("tracker", "a policy that follows a reference", "TRACKER"),
    Word("training window", "consecutive control steps that a model learns from as one",
         "model_horizon"),
    Word("trial", "an episode of a task without a reference", "trials"),
    Word("truncated", "the episode ended by time or the clip's end"),
    Word("wheel", "the file that `pip` installs"),
    Word("window", "of a guided model: past states and the plan, 20 control steps", "window"),
    Word("world model", "a network that predicts the robot's next state", "wm_track"),
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
