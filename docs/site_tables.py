"""Tables of the site, made from the code when it is built.

In a page, `<!-- environment BMTrack-G1-v0 -->`, with the line `ON_THE_SITE` before it, becomes what
`environment("BMTrack-G1-v0")` returns, and likewise for the other names in `TABLES`. Texts are the
docstrings of the code, figures the values of its configurations, and result files are read as they
are: nothing is written twice.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import json
import re
import shlex
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import gymnasium.wrappers.vector
import numpy as np

import bm_envs  # noqa: F401  (registers the environments)
from bm_envs.cli import markdown_table
from bm_envs.diffusion import sampler
from bm_envs.envs import GuidedEnv, GuidedVectorEnv, Named, TrackEnv, TrackVectorEnv
from bm_envs.motion import checks, clip, feasibility, formats, projection, repair
from bm_envs.results import MAIN_HEADS, successes_by_rule
from bm_envs.robots import g1, observation_terms
from bm_envs.robots.mjcf import ModelConfig
from bm_envs.robots.observation_terms import CRITIC_TERMS, ObsTerm
from bm_envs.statistics import wilson
from bm_envs.tasks.guided.observations import ABSENT, NEAREST
from bm_envs.tasks.guided.states import PAST, REPRESENTATIONS
from bm_envs.tasks.track import rewards, terms
from bm_envs.tasks.track.config import CONTROL_DT, LAPTOP_ACTION_UNIT, PRESETS, TrackConfig

ROOT = Path(__file__).resolve().parent.parent
# What stands before a marker, for whoever reads the page in the repository.
ON_THE_SITE = "*The site has a table here: `pip install '.[docs]'`, then `mkdocs serve`.*"
MARKER = re.compile(rf"^(?:{re.escape(ON_THE_SITE)}\n)?<!-- (\w+)((?: \S+)*) -->$", re.M)
# What the rules of `terms.RULES` and the causes that every environment knows mean; in braces
# settings of the environment's configuration.
CAUSES = {
    "anchor_pos": "the torso's height is off by more than {failure_height} m",
    "anchor_ori": "the torso's tilt is off by more than {failure_tilt}, as z of gravity's unit "
    "vector in its axes",
    "anchor_rotation": "the torso is turned from its reference, yaw included, by more than "
    "`failure_rotation`",
    "ee_body_pos": "the height of a foot or hand is off by more than {failure_height} m",
    "anchor_distance": "the torso is further than `failure_distance` from its place, horizontally",
    "diverged": "the simulation has diverged",
    "fall": 'a fall by the criterion `fall`, "{fall}"',
    "clip_end": "the clip's last frame",
    "time_limit": "{episode_s} s are over",
}
TRUNCATIONS = ("clip_end", "time_limit")


def fill(markdown: str) -> str:
    """The page with every marker replaced by its table.

    Raises:
        ValueError: a marker names no table.
    """

    def table(found: re.Match[str]) -> str:
        name, arguments = found[1], found[2].split()
        if name not in TABLES:
            raise ValueError(f"no table '{name}', expected one of {', '.join(TABLES)}")
        return TABLES[name](*arguments)

    return MARKER.sub(table, markdown)


# --- environments ---------------------------------------------------------------------------------


def environment(name: str) -> str:
    """The specification of an environment: spaces, rewards, start, ends, info, arguments."""
    env = gymnasium.make(name).unwrapped
    try:
        if isinstance(env, TrackEnv):
            return _track(env)
        assert isinstance(env, GuidedEnv)
        return _guided(env)
    finally:
        env.close()


def _track(env: TrackEnv) -> str:
    config, text = env.config, _sections(TrackEnv)
    names = config.observations
    noise = dataclasses.asdict(config.noise_level)
    known = observation_terms.terms_of(env.task.robot)
    critic = [known[term] for term in CRITIC_TERMS]
    return _page({
        "Action space": text["Action Space"],
        "Observation space": [
            f"`{_box(env.observation_space)}`. Noise is the half-width of a uniform error on each "
            "number, drawn anew every step.",
            _observations([known[term] for term in names], noise),
            f"The critic's observation, {env.task.critic_size} values without noise, is "
            '`info["critic_obs"]`, or the entry `critic` of a dictionary observation with '
            '`critic="dict"`:',
            _observations(critic, None),
        ],
        "Rewards": [text["Rewards"], _track_rewards(config)],
        "Start": [text["Starting State"], settings("bm_envs/tasks/track/config.py", "ResetConfig")],
        "Episode end": _ends(env),
        "Disturbances": [
            "Domain randomization of the robot (`randomize`):",
            settings("bm_envs/tasks/track/config.py", "RandomizationConfig"),
            "Pushes (`push`):",
            settings("bm_envs/tasks/track/config.py", "PushConfig"),
            "Each is on in all presets but `clip`.",
        ],
        "Info": _info(env, text["Info"]),
        "Arguments": [_arguments(type(env)), text["Arguments"]],
        "Settings": [
            "Those of `overrides` and of `TrackConfig`; groups that have no table on this page are "
            "in `bm_envs/tasks/track/config.py`.",
            settings("bm_envs/tasks/track/config.py", "TrackConfig"),
            "Where episodes start (`start`):",
            settings("bm_envs/tasks/track/config.py", "SamplingConfig"),
        ],
        "Versions": text["Version History"],
    })  # fmt: skip


def _track_rewards(config: TrackConfig) -> str:
    values = config.rewards
    doc = {item.name: item.text for item in _fields_of(type(values))}
    rows = []
    for name in (*rewards.TRACKED, "action_rate", "joint_limit", "contact", *rewards.OPTIONAL):
        width = getattr(values, f"{name}_std", None)
        unit = doc.get(f"{name}_std", "").rstrip(".")
        weight = getattr(values, name)
        rows.append([
            f"`{name}`", _number(weight) if weight else "off",
            "-" if width is None else f"{_number(width)} {unit}", doc[name],
        ])  # fmt: skip
    return markdown_table(["term", "weight, 1/s", "width", "what"], rows)


def _guided(env: GuidedEnv) -> str:
    text = _sections(GuidedEnv)
    module = inspect.getsourcefile(type(env.config))
    assert module is not None
    path = Path(module).resolve().relative_to(ROOT).as_posix()
    weights = env.config.rewards
    return _page({
        "Action space": text["Action Space"],
        "Observation space": [
            f"`{_box(env.observation_space)}`, {_before_table(text['Observation Space'])}",
            _observations(env.task.terms, None),
            f"Where there are fewer than {NEAREST} obstacles, {ABSENT} stands for the others."
            if "obstacles" in env.task.observation_layout
            else "",
        ],
        "Rewards": [
            text["Rewards"],
            markdown_table(["term", "weight"], [
                [f"`{name}`", _number(value)] for name, value in dataclasses.asdict(weights).items()
            ]),
        ],
        "Start": text["Starting State"],
        "Episode end": [text["Episode End"], *_ends(env)],
        "Info": _info(env, text["Info"]),
        "Arguments": [_arguments(type(env)), text["Arguments"]],
        "Settings": [
            f"Those of `overrides` and of `{type(env.config).__name__}`.",
            settings(path, type(env.config).__name__),
        ],
        "Versions": text["Version History"],
    })  # fmt: skip


def _observations(shown: Sequence[ObsTerm], noise: dict[str, float] | None) -> str:
    """Where each term stands; with `noise`, half-widths by name, a column of it."""
    rows, start = [], 0
    for term in shown:
        row = [f"{start}:{start + term.size}", f"`{term.name}`", str(term.size), term.frame]
        row += [term.unit, term.meaning]
        if noise is not None:
            row.append(_number(noise[term.name]) if term.name in noise else "-")
        rows.append(row)
        start += term.size
    heads = ["index", "term", "size", "frame", "unit", "what"]
    return markdown_table([*heads, "noise"] if noise is not None else heads, rows)


def _ends(env: TrackEnv | GuidedEnv) -> list[str]:
    """The rules that end an episode, found by a step that asks each of them."""
    env.reset(seed=0)
    causes = env.task.step(0 * env.action_space.sample()[None]).causes
    figures = {name: _number(value) for name, value in vars(env.config).items()}
    rows = [
        [f"`{name}`", "truncation" if name in TRUNCATIONS else "termination",
         CAUSES[name].format(**figures)]
        for name in causes
    ]  # fmt: skip
    parts = [markdown_table(['`info["termination"]`', "kind", "when"], rows)]
    if isinstance(env, TrackEnv):
        rule, pelvis = terms.RULES["train"][-1], ", ".join(f"`{n}`" for n in terms.RULES["pelvis"])
        turned = terms.ROTATION_RULES["anchor_ori"]
        parts.append(
            f"With `failure_distance` there is a rule more, `{rule}`: {CAUSES[rule]}. With "
            f"`failure_rotation`, as in `v4`, the tilt's is `{turned}`: {CAUSES[turned]}. With "
            f'`failure="pelvis"`, as in the evaluation protocols, the rules are {pelvis}: height '
            f"and tilt of the pelvis."
        )
    return parts


def _info(env: TrackEnv | GuidedEnv, text: str) -> list[str]:
    """Keys of `info`, found by a step."""
    env.reset(seed=0)
    info = env.step(0 * env.action_space.sample())[-1]
    rows = [[f"`{name}`", _kind(value)] for name, value in info.items()]
    return [text, markdown_table(["key", "of a single environment"], rows)]


def _kind(value: Any) -> str:
    if isinstance(value, Named):
        return "int that equals its name, too"
    if isinstance(value, np.ndarray):
        return f"{value.dtype} [{', '.join(map(str, value.shape))}]"
    return type(value).__name__


def _arguments(env: type) -> str:
    """Keywords of `gymnasium.make` and of `make_vec`, with their values if nothing else is said."""
    vector = {TrackEnv: TrackVectorEnv, GuidedEnv: GuidedVectorEnv}[env]
    single, many = _parameters(env), _parameters(vector)
    more = {name: row for name, row in many.items() if name not in single}
    return "\n\n".join([
        markdown_table(["argument", "type", "default"], single.values()),
        "`make_vec` has besides, and uses all cores by itself (`threads=0`):",
        markdown_table(["of `make_vec`", "type", "default"], more.values()),
    ])  # fmt: skip


def _parameters(env: type) -> dict[str, list[str]]:
    """A row for each keyword of a class."""
    return {
        item.name: [f"`{item.name}`", f"`{item.annotation}`", f"`{item.default!r}`"]
        for item in inspect.signature(env).parameters.values()
        if item.kind is not inspect.Parameter.VAR_KEYWORD
    }


def _sections(env: type) -> dict[str, str]:
    """Sections of an environment's docstring."""
    parts = re.split(r"^## (.+)\n", inspect.getdoc(env) or "", flags=re.M)
    return dict(zip(parts[1::2], (part.strip() for part in parts[2::2]), strict=True))


def _before_table(text: str) -> str:
    """A docstring's section up to its table, without the space's own line."""
    text = re.split(r"^\|", text, flags=re.M)[0]
    return re.sub(r"^`Box.*?`, ", "", text).strip()


def _box(space: Any) -> str:
    return f"Box(-inf, inf, {space.shape})" if not space.is_bounded() else str(space)


# --- dataclasses ----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Field:
    """A field of a dataclass as it is written: names, source text, docstring."""

    name: str
    annotation: str
    default: str
    text: str


def settings(path: str, name: str) -> str:
    """Fields of the dataclass `name` in the file `path`, which is read and not imported.

    Of a script's they are flags; a group of type `Flags` has its own beside the others.
    """
    fields = class_fields(path, name)
    flags = not path.startswith("bm_envs")
    if flags:
        fields = [one for item in fields for one in _in_group(path, item)]
    rows = [
        [f"`{_flag(item.name) if flags else item.name}`", _default(item), item.text]
        for item in fields
    ]
    return markdown_table(["flag" if flags else "setting", "default", "what"], rows)


def _in_group(path: str, item: Field) -> list[Field]:
    """Fields of a field of type `Flags[Group]`, with the defaults of its own `Group(...)`."""
    group = re.fullmatch(r"Flags\[(\w+)\]", item.annotation)
    if group is None:
        return [item]
    given = ast.parse(item.default, mode="eval").body
    assert isinstance(given, ast.Call) and not given.args, f"{path}: {item.name} = {item.default}"
    changed = {str(word.arg): ast.unparse(word.value) for word in given.keywords}
    return [
        dataclasses.replace(one, default=changed.get(one.name, one.default))
        for one in class_fields(path, group[1])
    ]


@functools.cache
def class_fields(path: str, name: str) -> list[Field]:
    """See `settings`; fields of the project's classes that it derives from come first.

    The file may define the class or import it by `from bm_envs...`.

    Raises:
        ValueError: no such class there.
    """
    body = ast.parse((ROOT / path).read_text()).body
    classes = {node.name: node for node in body if isinstance(node, ast.ClassDef)}
    imported = {
        alias.name: node.module
        for node in body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("bm_envs.")
        for alias in node.names
    }
    if name not in classes and name in imported:
        return class_fields(f"{str(imported[name]).replace('.', '/')}.py", name)
    if name not in classes:
        raise ValueError(f"{path} has no class {name}")
    node = classes[name]
    found: dict[str, Field] = {}
    for base in reversed(node.bases):
        if isinstance(base, ast.Name) and base.id in classes.keys() | imported.keys():
            found |= {item.name: item for item in class_fields(path, base.id)}
    for statement, following in zip(node.body, [*node.body[1:], None], strict=True):
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        annotation = ast.unparse(statement.annotation)
        if annotation.startswith("ClassVar"):
            continue
        text = ""
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            text = " ".join(str(following.value.value).split())
        default = "" if statement.value is None else ast.unparse(statement.value)
        previous = found.get(statement.target.id)
        found[statement.target.id] = Field(
            statement.target.id, annotation, default, text or (previous.text if previous else "")
        )
    return list(found.values())


def _fields_of(kind: type) -> list[Field]:
    source = inspect.getsourcefile(kind)
    assert source is not None
    return class_fields(Path(source).resolve().relative_to(ROOT).as_posix(), kind.__name__)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _default(item: Field) -> str:
    """The default's source, or what has to be given."""
    group = re.fullmatch(r"field\(default_factory=(\w+)\)", item.default)
    if group:
        return f"`{group[1]}()`"
    return f"`{item.default}`" if item.default else "required"


# --- files ----------------------------------------------------------------------------------------


def motion_file() -> str:
    """Arrays of a motion's NPZ."""
    doc = {item.name: item.text for item in _fields_of(clip.Clip)}
    rows = [["`fps`", "[1]", doc["fps"]]]
    for name, shape in clip.ARRAY_SHAPES.items():
        text = doc[name].partition("`, ")[2] or doc[name]
        rows.append([f"`{name}`", f"[T, {', '.join(map(str, shape))}]", text])
    rows += [
        ["`foot_contact`", "[T, 2]", doc["foot_contact"].partition("` ")[2]],
        ["`joint_names`", f"[{g1.NUM_JOINTS}]", "their order in the above"],
        ["`body_names`", f"[{g1.NUM_BODIES}]", "likewise"],
        ["`velocity_point`", "text", f"`{clip.VELOCITY_POINT}`: where linear velocities are taken"],
        ["`name`, `source`, `licence`", "text", "what it is, and under which terms"],
    ]  # fmt: skip
    return markdown_table(["key", "shape", "what"], rows)


def motion_readers() -> str:
    """Formats of motion files: `READERS` of `motion/formats/files.py`."""
    rows = [[f"`{r.suffix}`", r.origin, r.content, r.joints, r.rate] for r in formats.READERS]
    return markdown_table(["file", "from", "content", "joints", "rate"], rows)


def joint_sets() -> str:
    """Sets of joints that a file may have."""
    rows = []
    for name, joints in formats.JOINT_SETS.items():
        missing = [joint.removesuffix("_joint") for joint in g1.JOINT_NAMES if joint not in joints]
        rows.append([f"`{name}`", str(len(joints)), ", ".join(missing) or "-"])
    return markdown_table(["`--joints`", "joints", "which are not there"], rows)


def motion_checks() -> str:
    """What every motion is checked for: `RULES` of `motion/checks.py`."""
    rows = [[r.what, r.bound, r.treatment, f"`{r.flag}`" if r.flag else ""] for r in checks.RULES]
    return markdown_table(["what", "bound", "then", "flag that mends it"], rows)


def repair_rules() -> str:
    """Which frames are repaired and to what: the bounds of `motion/repair.py`."""
    deep = f"a shape that the engine lets meet the floor is more than {feasibility.FOOT_DEPTH:g} m"
    rows = [
        [f"{deep} in it", f"at most {repair.FLOOR_TOLERANCE:g} m"],
        ["the origin of a link is under the floor", f"{repair.ORIGIN_HEIGHT:g} m over it or more"],
        [f"a joint is more than {feasibility.JOINT_EXCESS:g} rad beyond its range", "within it"],
    ]
    return "\n\n".join([
        markdown_table(["repaired where", "and then"], rows),
        "Frames around such a one are repaired as well, for as long as they exceed what stands on "
        "the right. The change begins and ends within "
        f"{repair.RAMP_S + projection.KNOT_S:g} s before and behind them.",
    ])  # fmt: skip


def repaired(name: str) -> str:
    """What repairs did to the clips of a `reference` file made with `--repaired`."""
    file = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())
    of = {row["motion"]: row for row in file["rows"]}
    rows = []
    for motion, row in of.items():
        if "repaired_s" not in row:
            continue
        before = of[repair.original_name(motion)]
        rows.append([
            f"`{motion}`", f"{row['repaired_s']:.1f} of {row['clip_s']:.1f}",
            f"{100 * before['shape_depth_m']:.1f} (`{before['shape_depth_link']}`)",
            f"{100 * row['shape_depth_m']:.1f}",
            f"{100 * row['repaired_shift_m']:.1f} (`{row['repaired_shift_link']}`)",
            f"{row['repaired_turn_rad']:.2f} (`{row['repaired_turn_joint']}`)",
            ", ".join(before["flags"]), ", ".join(row["flags"]) or "-",
        ])  # fmt: skip
    heads = ["motion", "changed, s", "in the floor, cm", "then", "a link is moved, cm, up to",
             "a joint is turned, rad, up to", "flags", "then"]  # fmt: skip
    unchanged = sum("repaired_s" not in row for row in of.values()) - len(rows)
    return "\n\n".join([
        markdown_table(heads, rows),
        f"In the other {unchanged} clips nothing is repaired (`benchmarks/results/{name}.json`). "
        "What is still in the floor are other seconds, of what is forgiven.",
        f"```sh\n{_shown_command(file['command'])}\n```",
    ])  # fmt: skip


def converter_flags() -> str:
    """What a user may say about a file: the fields of `motion/formats/layout.py`'s `Layout`."""
    rows = []
    for item in _fields_of(formats.Layout):
        flag = {"order": "input-order"}.get(item.name, item.name.replace("_", "-"))
        rows.append([f"`--{flag}`", item.text])
    return markdown_table(["flag", "what it says of the file"], rows)


def figures() -> str:
    """Sizes and times that the method's description speaks of."""
    future = sampler.LENGTH - PAST
    rows = [
        ["control step", f"{CONTROL_DT} s", "`CONTROL_DT` in `bm_envs/tasks/track/config.py`"],
        ["physics step", f"{ModelConfig().physics_dt} s", "`bm_envs/robots/mjcf.py`"],
        ["joints", str(g1.NUM_JOINTS), "`bm_envs/robots/g1.py`"],
        ["tracked bodies", str(len(g1.TRACKED_BODIES)), "`bm_envs/robots/g1.py`"],
        ["steps of a window: known, future", f"{PAST}, {future}", _SAMPLER],
        ["noise levels K, and calls of full sampling", str(sampler.K), _SAMPLER],
        *(
            [f"features of a state, {name}", str(item.size), _REPRESENTATION]
            for name, item in REPRESENTATIONS.items()
        ),
    ]  # fmt: skip
    return markdown_table(["figure", "value", "where"], rows)


_SAMPLER = "`bm_envs/diffusion/sampler.py`"
_REPRESENTATION = "`bm_envs/tasks/guided/states.py`"


def joints() -> str:
    """The robot's joints and drives."""
    rows = [
        [
            str(number), f"`{joint.name}`", _number(joint.range[0]), _number(joint.range[1]),
            _number(g1.DEFAULT_JOINT_POS[number]), _number(joint.stiffness), _number(joint.damping),
            _number(joint.effort_limit), _number(joint.action_scale),
        ]
        for number, joint in enumerate(g1.JOINTS)
    ]  # fmt: skip
    return markdown_table(
        ["#", "joint", "from, rad", "to, rad", "default, rad", "stiffness, N m/rad",
         "damping, N m s/rad", "effort, N m", "action scale, rad"],
        rows,
    )  # fmt: skip


def results(*names: str) -> str:
    """Rows of result files in `benchmarks/results`, with the command that made each file."""
    parts = []
    for name in names:
        file = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())
        kind = file["kind"]
        if kind not in _RESULTS:
            raise ValueError(f"{name}.json is of kind '{kind}', expected {', '.join(_RESULTS)}")
        heads, row = _RESULTS[kind]
        parts += [
            f"`benchmarks/results/{name}.json`, made by",
            f"```sh\n{_shown_command(file['command'])}\n```",
            markdown_table(heads, [row(item) for item in file["rows"]]),
        ]
    return "\n\n".join(parts)


def _shown_command(command: str) -> str:
    """As it was given, on lines of a page's width."""
    lines = [""]
    for word in map(shlex.quote, shlex.split(command)):
        if len(lines[-1]) + len(word) > 90:
            lines.append("   ")
        lines[-1] += f" {word}" if lines[-1] else word
    return " \\\n".join(lines)


def completed(row: dict[str, Any]) -> str:
    """Completed episodes of a row of the kind `track`; with their interval where they are many."""
    low, high = (f"{100 * value:.0f}" for value in row["success_ci95"])
    text = f"{round(row['success'] * row['episodes'])} of {row['episodes']}"
    return f"{text} ({low} to {high} %)" if row["episodes"] > 1 else text


def _track_row(row: dict[str, Any]) -> list[str]:
    return [
        f"`{row['motion']}`", row["protocol"], completed(row),
        f"{row['survival_s']:.2f} of {row['clip_s']:.2f}", f"{row['mpkpe_mm']:.0f}",
        f"{row['r_mpkpe_mm']:.0f}", f"{row['joint_pos_rad']:.3f}",
    ]  # fmt: skip


def _learning_row(row: dict[str, Any]) -> list[str]:
    passed = row["first_pass"]
    return [
        f"`{row['motion']}`", row["variant"], str(row["seed"]), f"{row['env_steps'] / 1e6:.1f}",
        f"{row['wall_s'] / 60:.1f}",
        f"{passed['env_steps'] / 1e6:.1f}, {passed['wall_s'] / 60:.1f}" if passed else "no",
    ]  # fmt: skip


def _guided_row(row: dict[str, Any]) -> list[str]:
    strict, head = successes_by_rule(row)
    count, trials = head if strict is None else strict, row["trials"]
    low, high = (f"{100 * value:.1f}" for value in wilson(count, trials))
    return [
        f"`{row['policy']}`", row["task"], f"{count} of {trials}",
        f"{low} to {high} %", f"{row['mean_speed']:.2f}", str(row["sampler"] or "-"),
    ]  # fmt: skip


def _gate_row(row: dict[str, Any]) -> list[str]:
    passed = {True: "passed", False: "failed", None: "measured"}[row["passed"]]
    threshold = "-" if row["threshold"] is None else _number(row["threshold"])
    return [row["gate"], row["title"], _number(row["value"]), threshold, row["unit"], passed]


def _reliability_row(row: dict[str, Any]) -> list[str]:
    counts = [f"{row[key]:,}" for key in ("inputs", "refused", "warned", "loaded", "wrong")]
    return [row["surface"], row["fault"], row["expected"], *counts]


def _client_row(row: dict[str, Any]) -> list[str]:
    head = [row["client"], row["version"], f"{row['what']}: {row['name']}"]
    if not row.get("curve"):
        return [*head, "", "", "", "passed" if row["passed"] else row["reason"]]
    lengths = f"{row['episode_length_first']:.0f}, {row['episode_length_last']:.0f}"
    rewards = f"{row['reward_per_step_first']:.3f}, {row['reward_per_step_last']:.3f}"
    noise = f"`{row['preset']}`, {_number(row['noise_std'])}"
    return [*head, noise, lengths, rewards, f"{row['steps']:,} steps, seed {row['seed']}"]


def _demo_page_row(row: dict[str, Any]) -> list[str]:
    figures = (f"{row[key]:.2f}" for key in ("value", "lowest", "highest"))
    return [f"`{row['what']}`", *figures, row["unit"], str(row["count"])]


_RESULTS: dict[str, tuple[list[str], Callable[[dict[str, Any]], list[str]]]] = {
    "track": (
        ["motion", "protocol", "completed (95 % interval)", "survived, s",
         *MAIN_HEADS],
        _track_row,
    ),
    "learning": (
        ["motion", "variant", "seed", "million steps", "minutes",
         "first completed after, million steps and minutes"],
        _learning_row,
    ),
    "guided": (
        ["policy", "task", "successes", "95 % interval", "mean speed, m/s", "sampler"], _guided_row,
    ),
    "clients": (
        ["client", "version", "what", "preset, noise", "steps of an episode: first, last",
         "reward of a step: first, last", "outcome"],
        _client_row,
    ),
    "gates": (["gate", "what", "value", "threshold", "unit", ""], _gate_row),
    "reliability": (
        ["input", "fault", "expected", "tried", "refused", "warned", "loaded", "wrong"],
        _reliability_row,
    ),
    "demo_page": (["what", "median", "lowest", "highest", "unit", "values"], _demo_page_row),
}  # fmt: skip


# --- Markdown -------------------------------------------------------------------------------------


def _page(sections: dict[str, str | list[str]]) -> str:
    parts = []
    for title, content in sections.items():
        content = [content] if isinstance(content, str) else content
        parts += [f"## {title}", *(part for part in content if part)]
    return "\n\n".join(parts)


def _number(value: Any) -> str:
    """A figure as people write it; anything else as it is."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:.4g}"


def presets() -> str:
    """What each preset of the tracking environment sets differently from the first."""
    first = _flat(TrackConfig.preset(PRESETS[0]))
    rows = [[f"`{PRESETS[0]}`", "the defaults of the tables below"]]
    for name in PRESETS[1:]:
        changed = [
            f"`{key}={_shortened(value)}`"
            for key, value in _flat(TrackConfig.preset(name)).items()
            if value != first[key]
        ]
        rows.append([f"`{name}`", ", ".join(changed)])
    return markdown_table(["preset", "settings"], rows)


def _flat(config: Any, path: str = "") -> dict[str, Any]:
    """Fields of nested dataclasses by their paths."""
    found = {}
    for item in dataclasses.fields(config):
        value, name = getattr(config, item.name), path + item.name
        found |= _flat(value, f"{name}.") if dataclasses.is_dataclass(value) else {name: value}
    return found


def _shortened(value: Any) -> str:
    if value == TrackConfig.preset("laptop").actuation.action_scale:
        return f"{LAPTOP_ACTION_UNIT} * table"
    return _number(value) if isinstance(value, float) else repr(value)


def wrappers() -> str:
    """Which of Gymnasium's vector wrappers take the environment, by its autoreset mode."""
    rows = []
    for name in gymnasium.wrappers.vector.__all__:
        if name in NOT_FOR_US:
            rows.append([f"`{name}`", *[NOT_FOR_US[name]] * 2])
            continue
        row = [f"`{name}`"]
        for mode in ("same_step", "next_step"):
            try:
                wrapped(name, mode).close()
                row.append("yes")
            except ValueError as error:
                row.append("no" if "autoreset_mode" in str(error) else str(error))
            except ImportError as error:  # of a package that is not installed here
                row.append(f"wants {str(error).split()[-1]}")
        rows.append(row)
    return markdown_table(["wrapper", "`same_step`", "`next_step`"], rows)


# Wrappers that ask for what the environment does not have, or for packages of their own.
_NO_TEXTS = "until an episode ends: it takes no texts, which infos then have"
NOT_FOR_US = {
    "GrayscaleObservation": "of images only", "ResizeObservation": "of images only",
    "RescaleObservation": "of bounded observations only",
    "HumanRendering": "not tried: wants pygame and OpenCV", "ArrayConversion": _NO_TEXTS,
    "JaxToNumpy": "of JAX environments only", "JaxToTorch": "of JAX environments only",
    "NumpyToTorch": _NO_TEXTS,
}  # fmt: skip


def wrapped(name: str, mode: str) -> gymnasium.vector.VectorWrapper:
    """Two robots in one of Gymnasium's wrappers."""
    same = {"func": lambda value: value}
    wrappers_of_one = {
        "VectorizeTransformObservation": gymnasium.wrappers.TransformObservation,
        "VectorizeTransformAction": gymnasium.wrappers.TransformAction,
        "VectorizeTransformReward": gymnasium.wrappers.TransformReward,
    }
    pictures = name == "RecordVideo"
    env = gymnasium.make_vec(
        "BMTrack-G1-v0", num_envs=2, motion="stand", autoreset_mode=mode, episode_s=0.2,
        critic="dict" if name == "FilterObservation" else "info",
        render_mode="rgb_array" if pictures else None, width=64, height=48,
    )  # fmt: skip
    spaces = {
        "VectorizeTransformObservation": {"observation_space": env.single_observation_space},
        "VectorizeTransformAction": {"action_space": env.single_action_space},
    }
    arguments: dict[str, Any] = {
        "FilterObservation": {"filter_keys": ["policy"]}, "ReshapeObservation": {"shape": (4, 40)},
        "DtypeObservation": {"dtype": np.float64},
        "RescaleAction": {"min_action": -1.0, "max_action": 1.0},
        "ClipReward": {"min_reward": -1.0, "max_reward": 1.0},
        "RecordVideo": {"video_folder": f"{tempfile.mkdtemp()}/videos", "video_length": 5},
    }.get(name, {})  # fmt: skip
    if "Transform" in name:
        arguments = same | spaces.get(name, {})
    if name in wrappers_of_one:
        arguments["wrapper"] = wrappers_of_one[name]
    return getattr(gymnasium.wrappers.vector, name)(env, **arguments)


TABLES: dict[str, Callable[..., str]] = {
    "environment": environment,
    "settings": settings,
    "results": results,
    "figures": figures,
    "joints": joints,
    "motion_file": motion_file,
    "presets": presets,
    "wrappers": wrappers,
    "motion_readers": motion_readers,
    "motion_checks": motion_checks,
    "repair": repair_rules,
    "repaired": repaired,
    "joint_sets": joint_sets,
    "converter_flags": converter_flags,
}
