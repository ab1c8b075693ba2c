"""Policies to the Hugging Face Hub and back.

    python tools/hub.py push runs/walk__ppo_track__1 OWNER/walk --licence MIT --results out.json
    python tools/hub.py pull OWNER/walk runs/walk
    python benchmarks/track.py --policy hub:OWNER/walk@REVISION

What is pushed is the run directory without what only training needs: the network (`policy.onnx` or
`denoiser.onnx`), `policy.json`, `config.json` and `metrics.jsonl` where there are any, test
vectors, result files under `results/`, a picture or video, a model card `README.md` with the
evaluation in the Hub's own metadata (model-index), and `SHA256SUMS`. A push is one commit and
replaces what was there. `pull` writes the same files into a folder, with `hub.json` beside them:
where they are from, the commit, and every file's digest. The folder appears whole or not at all.

A reference motion inside the network goes along only where its licence lets everybody pass it on;
`--no-motion` takes it out, the actions stay the same.

`HF_TOKEN`, `HF_ENDPOINT`, `HF_HOME` and `HF_HUB_OFFLINE` are the Hub client's.
"""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import FlagCreatePairsOff, Positional, arg

from bm_envs import cli
from bm_envs.errors import BMError, ConfigError, HubError, PolicyError, ResultError
from bm_envs.motion import library, repair
from bm_envs.motion.hub import client
from bm_envs.policy import (
    DIFFUSION,
    KINDS,
    MOTION_OUTPUTS,
    MOTION_REMOVED,
    TRACKER,
    check_description,
    check_network,
    hub,
    read_onnx,
    remove_motion,
    resolve_file,
    shipped_files,
    shipped_kind,
    shipped_test_vectors,
)
from bm_envs.results import ERROR_HEADS, ResultFile, machine_path, read_result

FORMATS = {kind.format: kind for kind in KINDS}
NETWORKS = tuple(dict.fromkeys(kind.file for kind in KINDS))
PICTURES = (".png", ".jpg", ".svg", ".mp4", ".webm")
# Beginnings of licences under which anybody may pass a motion on, changed or not.
FREE = ("Apache-2.0", "MIT", "BSD", "CC0", "CC BY 4.0", "CC-BY-4.0")
# Beginning of a licence here, and its name on the Hub; the first that fits is taken.
HUB_LICENCES = (
    ("Apache-2.0", "apache-2.0"), ("MIT", "mit"), ("BSD-3-Clause", "bsd-3-clause"),
    ("CC0", "cc0-1.0"), ("CC BY-NC-ND 4.0", "cc-by-nc-nd-4.0"),
    ("CC BY-NC-SA 4.0", "cc-by-nc-sa-4.0"), ("CC BY-NC 4.0", "cc-by-nc-4.0"),
    ("CC BY-SA 4.0", "cc-by-sa-4.0"), ("CC BY 4.0", "cc-by-4.0"),
)  # fmt: skip
HUB_JSON = "hub.json"


@dataclass(frozen=True)
class Pull:
    """Fetch a policy into a folder."""

    repository: Positional[Annotated[str, arg(metavar="OWNER/NAME[@REVISION]")]]
    """The policy; a revision is a commit, a tag or a branch, by default the newest state."""
    out: Positional[Annotated[Path, arg(metavar="FOLDER")]]
    """Folder to make; it must not exist, or be empty."""


@dataclass(frozen=True)
class Push:
    """Put a policy on the Hub."""

    policy: Positional[Annotated[str, arg(metavar="POLICY")]]
    """A run directory, an ONNX file, or the name of a policy that ships."""
    repository: Positional[Annotated[str, arg(metavar="OWNER/NAME")]]
    """Repository to push to; it is made if there is none."""
    results: tuple[Path, ...] = ()
    """Result files about this policy, beside those in the run directory."""
    licence: str = ""
    """Terms under which the weights may be used, such as Apache-2.0; by default those that
    policy.json tells."""
    training_command: str = ""
    """How it was trained, for the card."""
    picture: Path | None = None
    """A picture or video for the card; by default the run's video.mp4."""
    no_motion: Annotated[bool, FlagCreatePairsOff] = False
    """Take the reference motion out of the network's file."""
    private: Annotated[bool, FlagCreatePairsOff] = False
    """Make a new repository private."""
    message: str = "Policy of bm-envs"
    """Message of the commit."""
    stage: Path | None = None
    """Write the files into this new folder and push nothing."""


@dataclass(frozen=True)
class Config:
    """Policies to the Hugging Face Hub and back."""

    action: Annotated[Pull | Push, arg(name="")]


# --- pull -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder that becomes `path` when the block ends without an error.

    Raises:
        ConfigError: there is something at `path`, or nothing can be made there.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ConfigError(f"{path}: is there already, expected a name for a new folder.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be made ({error.strerror}).") from error
    try:
        yield temporary
        temporary.chmod(0o755)
        temporary.replace(path)
    except OSError as error:  # a disk that is full, or a folder that was taken away
        raise ConfigError(f"{path}: cannot be written ({error.strerror or error}).") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def pull(config: Pull) -> None:
    """Fetch a policy's files and copy them out of the client's cache."""
    reference = config.repository.removeprefix(hub.PREFIX)
    with new_folder(config.out) as folder:
        fetched = hub.fetch_policy(hub.PREFIX + reference)
        if not any((fetched.folder / name).is_file() for name in NETWORKS):
            raise HubError(f"hub:{reference}: holds no {' or '.join(NETWORKS)}.")
        # The cache holds links; the files behind them are copied.
        shutil.copytree(fetched.folder, folder, dirs_exist_ok=True)
        digests = hub.check_sums(folder, f"hub:{reference}")
        check_files(folder, f"hub:{reference}")
        cli.write_json(
            folder / HUB_JSON,
            {"repository": fetched.repository, "commit": fetched.commit, "sha256": digests},
        )
    print(f"hub:{fetched.repository}@{fetched.commit} in {config.out} ({len(digests)} files)")


def check_files(folder: Path, where: str) -> None:
    """Refuse a folder whose networks or description are not what their names tell.

    A page of a proxy that asks to log in is a file, too. Networks are looked at where the package
    onnx is there.

    Raises:
        HubError: one of them cannot be read.
    """
    try:
        for name in NETWORKS:
            if (folder / name).is_file() and importlib.util.find_spec("onnx") is not None:
                read_onnx(folder / name)
        for path in sorted(folder.rglob("*.json")):
            cli.read_json(path)
    except BMError as error:
        reason = str(error).replace(f"{folder}/", "")
        raise HubError(f"{where}: {reason} Nothing of it is used.".replace(". N", "; n")) from None


# --- push -----------------------------------------------------------------------------------------


@dataclass
class Source:
    """A policy on this machine."""

    network: Path
    description: dict[str, Any]
    """Content of `policy.json`."""
    metadata: dict[str, str]
    """Metadata of the network's file."""
    outputs: set[str]
    sha256: str
    beside: list[Path] = field(default_factory=list)
    """Other files of the run that are pushed, too."""


def find(policy: str) -> Source:
    """The policy's files.

    Raises:
        PolicyError: unknown, unreadable, or without its description.
    """
    path = Path(policy)
    if not path.exists():
        path = resolve_file(policy, shipped_kind(policy) or TRACKER)
    if path.is_dir():
        there = [path / name for name in NETWORKS if (path / name).is_file()]
        if not there:
            raise PolicyError(f"{path}: holds no {' or '.join(NETWORKS)}.")
        path = there[0]
    if not path.is_file():
        raise PolicyError(f"{policy}: no such policy file or run directory.")
    named = path.parent / "policy.json" if path.name in NETWORKS else path.with_suffix(".json")
    description = cli.read_json(named, PolicyError) if named.is_file() else None
    if not isinstance(description, dict) or description.get("format") not in [*FORMATS]:
        raise PolicyError(f"{path}: has no description, expected {named.name} beside it.")
    check_description(named, description)
    digest = cli.file_sha256(path)
    check_network(named, description, path.name, digest)
    model = read_onnx(path)
    beside = []
    if path.name in NETWORKS:
        names = ("config.json", "metrics.jsonl", "video.mp4", "policy_vectors.json")
        beside = [path.parent / name for name in names if (path.parent / name).is_file()]
        beside += sorted(path.parent.glob("results/*.json"))
    elif (vectors := path.with_name(f"{path.stem}_vectors.json")).is_file():
        beside = [vectors]
    return Source(
        path, description, {entry.key: entry.value for entry in model.metadata_props},
        {output.name for output in model.graph.output}, digest, beside,
    )  # fmt: skip


def check_motion(source: Source) -> None:
    """Refuse a network that holds a motion which may not be passed on.

    Raises:
        HubError: it does, or nobody says under which licence the motion is.
    """
    if not source.outputs & set(MOTION_OUTPUTS):
        return
    licence = source.metadata.get("motion_licence", "")
    name = source.metadata.get("motion_name", "")
    if repair.original_name(name) in library.LAFAN1.names():
        licence = library.LAFAN1.licence  # also where the file says something else
    if licence.startswith(FREE):
        return
    about = f"'{name}' " if name else ""
    under = f"under {licence}" if licence else "under a licence that it does not tell"
    raise HubError(
        f"{source.network}: holds the motion {about}{under}, which may not be passed on; give "
        "--no-motion."
    )


def check_results(source: Source, paths: Sequence[Path]) -> list[ResultFile]:
    """Read result files, and refuse those about another policy.

    Raises:
        ResultError: malformed, or about another policy.
    """
    digests = {source.sha256, source.metadata.get(MOTION_REMOVED)} - {None}
    files = []
    for path in paths:
        file = read_result(path)
        recorded = file.settings.get("policy_sha256")
        policies = set(recorded.values()) if isinstance(recorded, dict) else {recorded}
        if file.kind not in ("track", "guided", "gates") or not policies <= digests:
            raise ResultError(
                f"{path}: is not about this policy, expected results of the network with SHA-256 "
                f"{source.sha256[:12]}..."
            )
        files.append(file)
    return files


def stage(folder: Path, config: Push) -> None:
    """Write all files of a push into a folder.

    Raises:
        BMError: something is missing, malformed, or may not be passed on.
    """
    source = find(config.policy)
    description = dict(source.description)
    licence = config.licence or str(description.get("licence") or "")
    if not licence:
        raise HubError(
            f"{source.network}: nobody says under which terms the weights may be used; give "
            "--licence."
        )
    beside = [path for path in source.beside if path.parent.name == "results"]
    files = check_results(source, [*beside, *config.results])
    name = FORMATS[description["format"]].file
    if config.no_motion and source.outputs & set(MOTION_OUTPUTS):
        remove_motion(source.network, folder / name)
        motions = description.get("motions") or []
        description["motions"] = [{**motion, "embedded": False} for motion in motions]
    else:
        check_motion(source)
        shutil.copyfile(source.network, folder / name)
    description["licence"] = licence
    description["network"] = {"file": name, "sha256": cli.file_sha256(folder / name)}
    cli.write_json(folder / "policy.json", description)
    for path in source.beside:
        if path in beside or (path.suffix == ".mp4" and config.picture is not None):
            continue
        if path.suffix.startswith(".json") and (path_inside := machine_path(path.read_text())):
            print(f"{path.name} holds the path '{path_inside}' and stays here")
            continue
        renamed = "policy_vectors.json" if path.name.endswith("_vectors.json") else path.name
        shutil.copyfile(path, folder / ("replay.mp4" if path.suffix == ".mp4" else renamed))
    if shipped_files(TRACKER).get(source.network.stem) == source.network.resolve():
        vectors = shipped_test_vectors(source.network.stem)
        cli.write_json(folder / "policy_vectors.json", vectors)
    if config.picture is not None:
        if config.picture.suffix not in PICTURES or not config.picture.is_file():
            raise ConfigError(
                f"{config.picture}: no such picture, expected a file in {', '.join(PICTURES)}."
            )
        moving = config.picture.suffix in (".mp4", ".webm")
        stem = "replay" if moving else "picture"
        shutil.copyfile(config.picture, folder / f"{stem}{config.picture.suffix}")
    for file in files:
        (folder / "results").mkdir(exist_ok=True)
        if (folder / "results" / file.path.name).exists():
            raise ConfigError(f"Two result files are called {file.path.name}; rename one.")
        shutil.copyfile(file.path, folder / "results" / file.path.name)
    text = card(config, description, licence, files, sorted(p.name for p in folder.iterdir()))
    (folder / "README.md").write_text(text, encoding="utf-8")
    hub.write_sums(folder)


def push(config: Push) -> None:
    """Collect the files in a folder and upload them."""
    repository, revision = hub.parse_reference(config.repository)
    if revision is not None:
        raise ConfigError(f"'{config.repository}': a push makes a revision, expected OWNER/NAME.")
    if config.stage is not None:
        with new_folder(config.stage) as folder:
            stage(folder, config)
        print(f"files in {config.stage}; nothing was pushed")
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            stage(folder, config)
        except OSError as error:
            raise ConfigError(
                f"The files to push cannot be written to {name} ({error.strerror or error})."
            ) from error
        address, commit = hub.push_folder(
            folder, repository, private=config.private, message=config.message
        )
    print(f"pushed {address}\npolicy hub:{repository}@{commit}")


# --- the card -------------------------------------------------------------------------------------

# Metrics of a row for the Hub's metadata: the row's key and the metric's name.
METRICS = {
    "track": (
        ("success", "success rate"), ("survival_s", "survived, s"),
        *((name, ERROR_HEADS[name]) for name in ("r_mpkpe_mm", "mpkpe_mm", "joint_pos_rad")),
    ),
    "guided": (("success_rate", "success rate"), ("mean_speed", "mean speed, m/s")),
    "gates": (("value", "value"),),
}  # fmt: skip
ENVIRONMENTS = {
    "walk_perturb": "BMGuided-G1-WalkPerturb-v0", "joystick": "BMGuided-G1-Joystick-v0",
    "run": "BMGuided-G1-Run-v0",
    "waypoint": "BMGuided-G1-Waypoint-v0", "obstacle": "BMGuided-G1-Obstacle-v0",
    "composition": "bm-envs-composition",  # has no id
    "tour": "BMGuided-G1-Tour-v0",
}  # fmt: skip


def hub_licence(licence: str) -> dict[str, str]:
    """Name of a licence in the Hub's metadata."""
    for start, name in HUB_LICENCES:
        if licence.lower().startswith((start.lower(), name)):
            return {"license": name}
    return {"license": "other", "license_name": licence}


def eval_results(package: Any, files: Sequence[ResultFile]) -> list[Any]:
    """The rows of result files as the Hub's `EvalResult`."""
    names = []
    for file in files:
        for row in file.rows:
            about: dict[str, Any]
            if file.kind == "track":
                about = {
                    "task_name": "motion tracking", "dataset_type": "BMTrack-G1-v0",
                    "dataset_name": f"{row['motion']}, {row['protocol']}",
                    "dataset_config": row["motion"], "dataset_split": row["protocol"],
                    "dataset_args": {"episodes": row["episodes"], "backend": row["backend"]},
                }  # fmt: skip
            elif file.kind == "guided":
                about = {
                    "task_name": "guided task", "dataset_type": ENVIRONMENTS[row["task"]],
                    "dataset_name": row["task"], "dataset_config": row["task"],
                    "dataset_args": {"trials": row["trials"], "backend": row["backend"]},
                }  # fmt: skip
            else:
                about = {
                    "task_name": "gates of the diffusion model", "dataset_type": "bm-envs-gates",
                    "dataset_name": f"gate {row['gate']}", "dataset_config": row["gate"],
                    "dataset_args": {"passed": row["passed"], "threshold": row["threshold"]},
                }  # fmt: skip
            names += [
                package.EvalResult(
                    task_type="robotics", metric_type=key, metric_name=name,
                    metric_value=row[key], **about,
                )
                for key, name in METRICS[file.kind]
                if row.get(key) is not None
            ]  # fmt: skip
    return names


def card(
    config: Push, description: Mapping[str, Any], licence: str, files: Sequence[ResultFile],
    names: Sequence[str],
) -> str:  # fmt: skip
    """The model card: the Hub's metadata, then what people want to know."""
    repository, _ = hub.parse_reference(config.repository)
    package = client(f"hub:{repository}", doing="pushing it to")
    name = repository.partition("/")[2]
    environments = sorted({result.dataset_type for result in eval_results(package, files)})
    data = package.ModelCardData(
        model_name=name,
        library_name="bm-envs",
        pipeline_tag="robotics",
        tags=["robotics", "reinforcement-learning", "humanoid", "unitree-g1", "motion-tracking",
              *(e for e in environments if e.startswith("BM"))],
        eval_results=eval_results(package, files) or None,
        **hub_licence(licence),
    )  # fmt: skip
    kind = FORMATS[description["format"]].title
    parts = [f"# {name}", f"A {kind} for the Unitree G1 with 29 joints, made with bm-envs."]
    picture = next((n for n in names if n.startswith("picture.")), None)
    if picture:
        parts.append(f"![{name}]({picture})")
    parts += ["## Evaluation", evaluation_table(files) or "No result file came with this policy."]
    commands = sorted({file.command for file in files})
    if commands:
        parts.append("Made by:\n\n" + code("\n".join(commands)))
    parts += ["## Training", training_text(config, description, names)]
    denoiser = description["format"] == DIFFUSION.format
    flag = "benchmarks/guided.py --task joystick" if denoiser else "benchmarks/track.py"
    about = (
        "`policy.json` says what goes in and comes out, and with which gains the robot's drives "
        "are to follow it. Nothing of these files is executed when they are loaded."
    )
    parts += ["## Use", code(f"python {flag} --policy hub:{repository}"), about]
    parts += ["## Licence and limits", licence_text(description, licence)]
    return f"---\n{data}\n---\n\n" + "\n\n".join(parts) + "\n"


def code(text: str) -> str:
    """A block of commands."""
    return f"```\n{text.replace('```', '')}\n```"


def evaluation_table(files: Sequence[ResultFile]) -> str:
    """The rows as a Markdown table."""
    lines = []
    for file in files:
        for row in file.rows:
            if file.kind == "track":
                error = row["r_mpkpe_mm"]
                cells = (
                    f"{row['motion']}, {row['protocol']}", row["success"], row["success_ci95"],
                    row["episodes"], "-" if error is None else f"{error:.1f}",
                )  # fmt: skip
            elif file.kind == "guided":
                cells = (row["task"], row["success_rate"], row["ci95"], row["trials"], "-")
            else:
                verdict = {True: "passed", False: "failed", None: "measured"}[row["passed"]]
                lines.append(f"| gate {row['gate']} | {verdict} | - | - | {row['value']} |")
                continue
            what, rate, (low, high), count, error = cells
            lines.append(f"| {what} | {rate:.1%} | {low:.1%} to {high:.1%} | {count} | {error} |")
    if not lines:
        return ""
    error = ERROR_HEADS["r_mpkpe_mm"]
    head = f"| what | success | 95 % interval | episodes | {error} |\n|---|---|---|---|---|"
    return "\n".join([head, *lines])


def training_text(config: Push, description: Mapping[str, Any], names: Sequence[str]) -> str:
    """How the policy was trained, as far as its files say."""
    training = description.get("training") or {}
    facts = []
    for key, unit, text in (
        ("env_steps", 1e6, "{:.1f} million control steps"), ("wall_s", 60, "{:.0f} minutes"),
    ):  # fmt: skip
        figure = training.get(key)
        if isinstance(figure, (int, float)) and figure:
            facts.append(text.format(figure / unit))
    machine = training.get("machine")
    if isinstance(machine, dict) and machine.get("processor"):
        facts.append(", ".join(map(str, filter(None, [
            machine["processor"], f"{machine.get('cores')} cores", machine.get("gpu"),
        ]))))  # fmt: skip
    if training.get("commit"):
        facts.append(f"commit {training['commit']}")
    parts = [f"{'; '.join(facts)}." if facts else "No figures of the training are told."]
    if config.training_command:
        parts.append(code(config.training_command))
    elif training.get("algorithm"):
        parts.append(f"By `algos/{training['algorithm']}.py`.")
    if "config.json" in names:
        parts.append("`config.json` has every setting.")
    return "\n\n".join(parts)


def licence_text(description: Mapping[str, Any], licence: str) -> str:
    """Terms of weights and motions, and what has not been tried."""
    lines = [f"Weights: {licence}."]
    for motion in description.get("motions") or []:
        inside = "inside the file" if motion.get("embedded") else "not part of these files"
        lines.append(f"Motion `{motion.get('name')}` ({motion.get('licence')}): {inside}.")
    lines.append("A policy that works in simulation is not thereby safe on a robot.")
    return "\n\n".join(lines)


def main(config: Config) -> None:
    """Pull or push."""
    if isinstance(config.action, Pull):
        pull(config.action)
    else:
        push(config.action)


if __name__ == "__main__":
    cli.run(main, Config)
