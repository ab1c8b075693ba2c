"""Motions made from equations: footsteps -> ZMP -> centre of mass -> inverse kinematics.

`gait.plan_walk` turns velocity commands into footsteps and foot paths, `whole_body.solve_states`
finds a whole-body motion of our G1 that carries them out, and `make_clip` makes the built-in family
(`FAMILY`) of it. No recorded motion is involved: the clips are the project's own. `stroll`,
`stride` and `jog` are made by `human_gait`, from published joint angles of people.

    python -m bm_envs.motion.procedural [NAMES...] [--out DIR] [--check]

writes them anew; `--check` compares what it would write with what is there. `walk_mix_0`,
`walk_mix_1`, ... and `walk_on_0`, `walk_on_1`, ..., which never stand, are walks under commands
drawn with that seed, made when asked for.

1. *Footsteps.* Step k puts a foot beside a base pose b_k = (x, y, yaw); b_{k+1} = b_k exp(v_k T)
   with the step period T and a velocity v_k in the heading frame, which follows the command by a
   bounded change per step. No velocity puts the feet side by side, so starts and stops follow.
2. *ZMP* (zero-moment point). Under the stance foot with a small heel-to-toe travel, handed over in
   double support by quintics. Feet go from rest to rest on smooth paths.
3. *Centre of mass.* The ZMP p of a body with centre of mass c at height h and angular momentum L
   about it is `p_x = c_x - r c_x'' - L_y'/f` and `p_y = c_y - r c_y'' + L_x'/f`, where
   r = h/(g + h'') and f = m (g + h''). With second differences this is a tridiagonal boundary value
   problem for c, on the ZMP at both ends: it looks ahead as far as it needs and has no unstable
   direction. L' comes from the whole-body motion of the round before; after five rounds the
   whole-body ZMP is within 1 mm of the planned one.
4. *Inverse kinematics.* The upper body and the pelvis orientation are given; damped Newton steps
   find pelvis position and leg joints (15) from centre of mass and foot poses (15), by frame.

Source of the ZMP equation and of the correction by a whole-body pass: Kajita et al., *Biped walking
pattern generation by using preview control of zero-moment point*, ICRA 2003. The boundary value
form is ours (offline there is nothing to preview), and so are the gait's figures.

Units: m, rad, s; yaw is counter-clockwise seen from above; sides are in the order left, right.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tyro.conf import Positional

from bm_envs import cli
from bm_envs.errors import MotionError, unknown_name
from bm_envs.motion.clip import ARRAY_SHAPES, Clip, clip_from_states, load_npz, save_npz
from bm_envs.motion.gait import Command, Gait, WalkPlan, plan_walk
from bm_envs.motion.human_gait import HUMAN, make_human_clip
from bm_envs.motion.whole_body import solve_states

MOTION_DIR = Path(__file__).resolve().parent.parent / "assets" / "motions"
SOURCE = "bm_envs.motion.procedural"
HUMAN_SOURCE = "bm_envs.motion.human_gait, from published joint angles"
LICENCE = "Apache-2.0"


@dataclass(frozen=True)
class Recipe:
    """How one clip of the family is made."""

    commands: tuple[Command, ...]
    keep_last_s: float | None = None
    """Keep only this much of the end, moved back to the origin; None: all."""
    gait: Gait = Gait()


def _there(vx: float = 0.0, vy: float = 0.0, wz: float = 0.0) -> Recipe:
    """Stand, move, stop, stand; 11 s."""
    return Recipe((Command(0, 0, 0, 1.0), Command(vx, vy, wz, 7.5), Command(0, 0, 0, 2.5)))


FAMILY: dict[str, Recipe] = {
    "stand": Recipe((Command(0, 0, 0, 10.0),)),
    "walk": Recipe((Command(0, 0, 0, 1.5), Command(0.5, 0, 0, 20.0), Command(0, 0, 0, 3.0))),
    "walk_back": _there(vx=-0.35),
    "turn_left": _there(wz=0.5),
    "turn_right": _there(wz=-0.5),
    "side_left": _there(vy=0.15),
    "side_right": _there(vy=-0.15),
    # Cut from a longer walk, so that it begins in the middle of a periodic stride.
    "walk_to_stand": Recipe((Command(0.5, 0, 0, 10.5), Command(0, 0, 0, 3.0)), keep_last_s=8.0),
}

DRAWN_NAME = re.compile(r"walk_(mix|on)_(\d+)")  # of clips that are made when asked for
NAMES = [*FAMILY, *HUMAN, "walk_mix_0", "walk_on_0"]  # for advice
MIX_S = 60.0  # s of commands, and then to the end of the last one
# Ways of walking and how often one is drawn. Every one may follow every other, so that all
# transitions occur; the fastest ones are near what the default gait's legs can reach.
_MIX = {
    "stand": 0.10,
    "forward": 0.25,
    "backward": 0.15,
    "turn": 0.15,
    "arc": 0.20,
    "backward arc": 0.10,
    "sideways": 0.05,
}

# The same without a stand between: share, forward speed in m/s, turning either way in rad/s. A
# model of roll-outs that sees a twelfth of a second of the past cannot know how long the robot has
# been standing, so that it goes on for ever; steps on the spot end by themselves. Commands are
# short and velocities change fast, since a guided model can do in a moment only what it has seen
# done from there: a third of the commands go backward because every one of them is left again.
_ON = {
    "forward": (0.25, (0.3, 0.6), (0.0, 0.0)),
    "arc": (0.30, (0.25, 0.5), (0.2, 0.6)),
    "backward": (0.22, (-0.4, -0.2), (0.0, 0.0)),
    "backward arc": (0.13, (-0.35, -0.15), (0.2, 0.5)),
    "on the spot": (0.10, (-0.1, 0.1), (0.0, 0.4)),
}
_ON_GAIT = Gait(max_change=(0.4, 0.15, 0.4))

# Values are kept as multiples of these. Far under what matters (4 um in a link position is
# 0.01 m/s^2 in its second difference), it halves the files, and a machine that rounds the last
# digits of float64 differently writes the same file but for a few values one unit apart.
GRID: dict[str, float] = {
    "joint_pos": 2.0**-18,
    "joint_vel": 2.0**-12,
    "body_pos_w": 2.0**-18,
    "body_quat_w": 2.0**-20,
    "body_lin_vel_w": 2.0**-12,
    "body_ang_vel_w": 2.0**-12,
}


def mix_commands(seed: int) -> tuple[Command, ...]:
    """Random commands of 1.5 to 4 s each for `MIX_S`, with a stand of a second at both ends."""
    rng = np.random.default_rng(seed)

    def draw(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    stand = Command(0.0, 0.0, 0.0, 1.0)
    commands, total_s = [stand], stand.duration_s
    while total_s < MIX_S:
        way = rng.choice(list(_MIX), p=list(_MIX.values()))
        side = float(rng.choice((-1, 1)))
        duration_s = draw(1.5, 4.0)
        vx, vy, wz = {
            "stand": (0.0, 0.0, 0.0),
            "forward": (draw(0.2, 0.6), 0.0, 0.0),
            "backward": (-draw(0.15, 0.4), 0.0, 0.0),
            "turn": (0.0, 0.0, side * draw(0.2, 0.6)),
            "arc": (draw(0.2, 0.6), 0.0, side * draw(0.2, 0.6)),
            "backward arc": (-draw(0.15, 0.3), 0.0, side * draw(0.2, 0.4)),
            "sideways": (0.0, side * draw(0.05, 0.15), 0.0),
        }[way]
        commands.append(Command(vx, vy, wz, duration_s))
        total_s += duration_s
    return (*commands, stand)


def on_commands(seed: int) -> tuple[Command, ...]:
    """Random commands of 1.5 to 4 s each for `MIX_S`; a stand of a second at both ends only."""
    rng = np.random.default_rng([1, seed])
    stand = Command(0.0, 0.0, 0.0, 1.0)
    commands, total_s = [stand], stand.duration_s
    shares = [share for share, _, _ in _ON.values()]
    while total_s < MIX_S:
        _, speed, turn = _ON[rng.choice(list(_ON), p=shares)]
        side, duration_s = rng.choice((-1.0, 1.0)), float(rng.uniform(1.5, 4.0))
        wz = side * rng.uniform(*turn)
        commands.append(Command(float(rng.uniform(*speed)), 0.0, float(wz), duration_s))
        total_s += duration_s
    return (*commands, stand)


def is_drawn(name: str) -> bool:
    """Whether the clip's commands are drawn by the seed in its name, with a cut or not."""
    return DRAWN_NAME.fullmatch(name.partition("[")[0]) is not None


def is_made(name: str) -> bool:
    """Whether `make_clip` knows this name."""
    return name in FAMILY or name in HUMAN or DRAWN_NAME.fullmatch(name) is not None


def _recipe_of(name: str) -> Recipe:
    """What a clip of `FAMILY` is made of, or one that is drawn."""
    if drawn := DRAWN_NAME.fullmatch(name):
        draw, gait = {"mix": (mix_commands, Gait()), "on": (on_commands, _ON_GAIT)}[drawn[1]]
        return Recipe(draw(int(drawn[2])), gait=gait)
    return FAMILY[name]


def make_clip(name: str) -> Clip:
    """One clip of `FAMILY` or `HUMAN`, `walk_mix_SEED` or `walk_on_SEED`, made anew.

    One of `FAMILY` takes 0.5 s per 10 s of motion, one of `HUMAN` about 10 s.

    Raises:
        MotionError: no such clip, nor a seed's.
    """
    if not is_made(name):
        raise MotionError(unknown_name("procedural motion", name, NAMES))
    if name in HUMAN:
        clip = make_human_clip(name, source=HUMAN_SOURCE, licence=LICENCE)
    else:
        recipe = _recipe_of(name)
        clip = clip_from_plan(
            name, plan_walk(recipe.commands, recipe.gait), keep_last_s=recipe.keep_last_s
        )
    rounded = {
        key: np.round(getattr(clip, key).astype(np.float64) / unit) * unit
        for key, unit in GRID.items()
    }
    return replace(clip, **rounded)


def clip_from_plan(name: str, plan: WalkPlan, *, keep_last_s: float | None = None) -> Clip:
    """The whole-body motion of a plan as a clip, with the planned foot contacts.

    Args:
        name: the clip's name.
        plan: from `plan_walk`.
        keep_last_s: keep only this much of the end, the pelvis moved to start over the origin.

    Raises:
        MotionError: the robot cannot carry the plan out.
    """
    states = solve_states(plan)
    fps = plan.gait.fps
    start = 0 if keep_last_s is None else len(plan.heading) - 1 - round(keep_last_s * fps)
    root_pos = states.root_pos[start:].copy()
    if start:
        root_pos[:, :2] -= root_pos[0, :2]
    return clip_from_states(
        name,
        fps,
        root_pos,
        states.root_quat[start:],
        states.joint_pos[start:],
        source=SOURCE,
        licence=LICENCE,
        foot_contact=plan.foot_contact[start:],
    )


def differences(clip: Clip, other: Clip) -> list[str]:
    """What tells two clips apart beyond two units of `GRID`; empty if nothing does."""
    if clip.num_frames != other.num_frames or clip.fps != other.fps:
        return [f"{other.num_frames} frames at {other.fps:g} Hz, not {clip.num_frames}"]
    reasons = []
    for key in ARRAY_SHAPES:
        gap = np.abs(getattr(clip, key).astype(np.float64) - getattr(other, key)).max()
        if gap > 2 * GRID[key]:
            reasons.append(f"{key} differs by {gap:.1e}, more than {2 * GRID[key]:.1e}")
    if not np.array_equal(clip.foot_contact, other.foot_contact):
        reasons.append("foot_contact differs")
    return reasons


@dataclass(frozen=True)
class MakeConfig:
    """Write the built-in procedural clips anew, or check them."""

    names: Positional[tuple[str, ...]] = ()
    """Clips to make; by default all that the package holds."""
    out: Path = MOTION_DIR
    """Folder of the .npz files."""
    check: bool = False
    """Write nothing: compare with the files in `out`, exit with 1 if one differs."""


def main(config: MakeConfig) -> int:
    """Make or check the clips; returns the exit status."""
    names = config.names or (*FAMILY, *HUMAN)
    for name in names:
        if not is_made(name):
            raise MotionError(unknown_name("procedural motion", name, NAMES))
    status = 0
    for name in names:
        path = config.out / f"{name}.npz"
        clip = make_clip(name)
        if config.check:
            reasons = differences(clip, load_npz(path))
            print(f"{name}: {'; '.join(reasons) or 'as made'}")
            status |= bool(reasons)
        else:
            save_npz(clip, path)
            size = path.stat().st_size / 1024
            print(f"{name}: {clip.num_frames} frames, {clip.duration_s:.1f} s, {size:.0f} KiB")
    print(f"{'compared with' if config.check else 'written to'} {config.out}")
    return status


if __name__ == "__main__":
    cli.run(main, MakeConfig)
