"""Named lists of motions that policies are compared on.

| suite | holds |
|---|---|
| `builtin` | the package's own clips, those of `procedural.FAMILY` |
| `lafan1-cuts` | ten seconds each of eight LAFAN1 clips, one of every kind of motion |
| `lafan1-table1` | the LAFAN1 clips of the paper's Table I, whole |
| `lafan1-walks` | the walks of LAFAN1, whole, less `walk3_subject3`, which sits on a chair |
| `lafan1-40` | all LAFAN1 clips there are for the G1, whole |

The fall's cut is ten seconds earlier than first chosen: at [20:30] a knee and a sole of the
reference are some centimetres in the floor (`tools/check_reference.py`). It was moved before any
training.

The table prints 28 names. One of them, `run1_subject4`, is no LAFAN1 clip; `run2_subject4`, the one
run of LAFAN1 that the table lacks, stands in its place here.
Source: arXiv 2508.08241, Table I.
"""

from __future__ import annotations

from typing import Literal, get_args

from bm_envs.errors import ConfigError, unknown_name
from bm_envs.motion import library, procedural, repair

CUTS = (
    "walk1_subject1[5:15]",
    "walk3_subject1[60:70]",
    "dance1_subject1[0:10]",
    "run1_subject2[20:30]",
    "jumps1_subject1[24:34]",
    "fight1_subject2[60:70]",
    "sprint1_subject2[20:30]",
    "fallAndGetUp1_subject1[10:20]",
)
TABLE1 = (
    *(f"walk1_subject{i}" for i in (1, 2, 5)),
    *(f"walk2_subject{i}" for i in (1, 3, 4)),
    *(f"dance1_subject{i}" for i in (1, 2, 3)),
    *(f"dance2_subject{i}" for i in (1, 2, 3, 4)),
    "fallAndGetUp1_subject4",
    *(f"fallAndGetUp2_subject{i}" for i in (2, 3)),
    *(f"run1_subject{i}" for i in (2, 5)),
    *(f"run2_subject{i}" for i in (1, 4)),
    *(f"jumps1_subject{i}" for i in (1, 2, 5)),
    *(f"fightAndSports1_subject{i}" for i in (1, 4)),
    *(f"fight1_subject{i}" for i in (2, 3, 5)),
)
NO_CHAIR = "walk3_subject3"  # a person sits down on a chair that the world does not have
Suite = Literal["builtin", "lafan1-cuts", "lafan1-table1", "lafan1-walks", "lafan1-40"]
NAMES: tuple[str, ...] = get_args(Suite)
OTHERS = ("lafan1", "lafan1-repaired", "g1_moves", "other")
"""What `suite_of` says of motions outside the suites."""


def motions(suite: str) -> tuple[str, ...]:
    """The motions of a suite, by the names of their clips.

    Raises:
        ConfigError: there is no such suite.
    """
    if suite == "builtin":
        return tuple(sorted(procedural.FAMILY))
    if suite == "lafan1-cuts":
        return CUTS
    if suite == "lafan1-table1":
        return TABLE1
    if suite == "lafan1-walks":
        walks = (name for name in library.LAFAN1.names() if name.startswith("walk"))
        return tuple(name for name in walks if name != NO_CHAIR)
    if suite == "lafan1-40":
        return tuple(library.LAFAN1.names())
    raise ConfigError(unknown_name("suite", suite, NAMES))


def chosen(names: tuple[str, ...], suite: str | None, default: tuple[str, ...]) -> tuple[str, ...]:
    """The motions of a command that has `--motion` and, in its place, `--suite`.

    Args:
        names: `--motion`, as it was given or by default.
        suite: `--suite`, or None.
        default: what `--motion` is when nobody gives it.

    Raises:
        ConfigError: both are given, or there is no such suite.
    """
    if suite is None:
        return names
    if names != default:
        raise ConfigError("Both --motion and --suite are given, expected one of them.")
    return motions(suite)


def suite_of(motion: str) -> str:
    """The suite that lists a clip of this name, or the set that the clip is from.

    Whole LAFAN1 clips are of `lafan1-40`, which holds those of the other suites; cuts that are not
    in a suite are of `lafan1`. A cut of a built-in clip is `builtin`, and so are clips of people's
    gaits and motions that `bm_envs.motion.procedural` makes when asked for. A repaired motion is
    another than the one it was made of: of LAFAN1 it is `lafan1-repaired`, which is no suite, and
    else `other`.
    """
    if motion in CUTS:
        return "lafan1-cuts"
    name = repair.original_name(motion)
    if repair.is_repaired(motion):
        return "lafan1-repaired" if name in library.LAFAN1.names() else "other"
    if name in library.LAFAN1.names():
        return "lafan1-40" if name == motion else "lafan1"
    if name in library.G1_MOVES.names():
        return "g1_moves"
    if (library.BUILTIN_DIR / f"{name}.npz").is_file() or procedural.is_drawn(name):
        return "builtin"
    return "other"
