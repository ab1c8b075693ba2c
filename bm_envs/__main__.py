"""The console command `bm-envs`, also `python -m bm_envs`: it starts the scripts of the project.

In a clone the scripts are the files in `algos/`, `benchmarks/` and `tools/`. A wheel brings copies
of those in `COMMANDS`, in the folder `_scripts` (`setup.py`). This is the one module of the package
that starts scripts. It imports what is light alone: `bm-envs --help` has to be there at once, and
`setup.py` reads `COMMANDS` where nothing is installed.
"""

from __future__ import annotations

import importlib.util
import runpy
import sys
import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple


class Command(NamedTuple):
    """A part of `bm-envs`."""

    script: str
    """File that it starts, from the repository's root; empty for `demo`, which chooses."""
    extra: str
    """Extra of the package without which it does nothing; empty: none."""
    summary: str
    """One line."""


COMMANDS = {
    "demo": Command("", "", "a robot that walks, at once: in the browser, or as a video"),
    "replay": Command("tools/replay.py", "", "a motion and a policy that follows it"),
    "play": Command("tools/play.py", "deploy", "drive a diffusion model, push a tracker"),
    "motion convert": Command("tools/csv_to_npz.py", "", "any motion file of the G1 to an NPZ"),
    "motion retarget": Command(
        "tools/retarget.py", "retarget", "a person's motion (BVH, AMASS) to the G1"
    ),
    "motion check": Command("tools/check_reference.py", "", "what no robot can follow in a motion"),
    "train ppo": Command("algos/ppo_track.py", "train", "a tracker, with PPO"),
    "train wm": Command("algos/wm_track.py", "train", "a tracker, through a learned world model"),
    "train guided": Command("algos/ppo_guided.py", "train", "one guided task, with PPO"),
    "distil": Command("algos/dagger_vae.py", "train", "one policy with a latent, of trackers"),
    "collect": Command("algos/collect_rollouts.py", "train", "rollouts of trackers, as data"),
    "diffuse": Command("algos/ddpm_guided.py", "train", "a diffusion model of states and actions"),
    "track": Command("benchmarks/track.py", "deploy", "how well a policy tracks motions"),
    "guided": Command("benchmarks/guided.py", "train", "how well a diffusion model does tasks"),
    "export": Command("tools/export_onnx.py", "train", "a run as the ONNX file a robot loads"),
    "sim2sim": Command("tools/sim2sim.py", "deploy", "a policy file in another simulation"),
    "deploy": Command("tools/deploy.py", "deploy", "control a robot over DDS"),
    "stream": Command("tools/stream.py", "deploy", "send a motion as a live reference"),
    "hub": Command("tools/hub.py", "hub", "policies to the Hugging Face Hub and back"),
}
# The page of `bm-envs --help`.
GROUPS = {
    "Look": ("demo", "replay", "play"),
    "Motions": ("motion convert", "motion retarget", "motion check"),
    "Train": ("train ppo", "train wm", "train guided", "distil", "collect", "diffuse"),
    "Measure": ("track", "guided"),
    "Bring to a robot": ("export", "sim2sim", "deploy", "stream", "hub"),
}
DEMO_VIDEO = "bm_envs_demo.mp4"
HELP = ("-h", "--help")


def scripts_folder() -> Path:
    """Where the scripts' folders are: in an installed wheel `_scripts`, in a clone its root."""
    package = Path(__file__).resolve().parent
    packed = package / "_scripts"
    return packed if packed.is_dir() else package.parent


def page(*first: str) -> str:
    """The list of commands, or of those whose name begins with a word."""
    lines = [] if first else ["usage: bm-envs COMMAND ...", ""]
    width = max(map(len, COMMANDS))
    for group, names in GROUPS.items():
        shown = [name for name in names if name.split()[: len(first)] == list(first)]
        if shown:
            lines += [] if first else [group]
            lines += [f"  {name.ljust(width)}  {COMMANDS[name].summary}" for name in shown]
    lines += ["", "bm-envs COMMAND --help says what a command takes; bm-envs --version."]
    return "\n".join(lines)


def spelled_names() -> dict[str, str]:
    """What each script is called here, `{"tools/replay.py": "bm-envs replay"}`."""
    return {command.script: f"bm-envs {name}" for name, command in COMMANDS.items()}


def start(name: str, arguments: Sequence[str]) -> None:
    """Run a command's script in this process, as `python SCRIPT ARGUMENTS` would."""
    from bm_envs import cli

    command = COMMANDS[name]
    script = scripts_folder() / command.script
    cli.call_scripts(spelled_names(), f"bm-envs {name}")
    sys.argv = [str(script), *arguments]
    try:
        runpy.run_path(str(script), run_name="__main__")
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if not command.extra or package in ("", "bm_envs"):
            raise
        refuse(
            f"bm-envs {name} needs the package {package}: pip install 'bm-envs[{command.extra}]'."
        )


def refuse(sentence: str) -> None:
    """End with one sentence and status 2."""
    print(f"error: {sentence}", file=sys.stderr)
    sys.exit(2)


@dataclass(frozen=True)
class Demo:
    """Show a robot that walks: on a page in the browser, or in a video where there is none."""

    policy: str = "stride"
    """A shipped policy's name, a run directory, an ONNX file, or hub:OWNER/NAME[@REVISION]."""
    video: Path | None = None
    """MP4 to write in place of opening a page."""
    seconds: float = 10.0
    """Seconds of the video."""


def demo(config: Demo) -> None:
    """Show a policy; what is seen is physics under its actions, not its reference."""
    from bm_envs.errors import ConfigError

    shows_page = config.video is None and has_browser() and is_there("viser")
    needed = ("onnx", "onnxruntime") if shows_page else ("onnx", "onnxruntime", "av")
    if lacking := [package for package in needed if not is_there(package)]:
        raise ConfigError(
            f"bm-envs demo needs {', '.join(lacking)}: pip install 'bm-envs[deploy,viz]' for a "
            "video, or 'bm-envs[deploy,web]' for a page in the browser."
        )
    from bm_envs.policy import TRACKER, kind_of

    policy = ["--policy", config.policy]
    if shows_page:
        start("play", [*policy, "--web", "--open"])
        return
    pictures = ["--video", str(config.video or DEMO_VIDEO), "--seconds", str(config.seconds)]
    if kind_of(config.policy) is TRACKER:
        start("replay", [*policy, "--show", "policy", "--fast", *pictures])
    else:
        start("play", [*policy, "--fast", *pictures])


def is_there(package: str) -> bool:
    """Whether a package is installed."""
    return importlib.util.find_spec(package) is not None


def has_browser() -> bool:
    """Whether a page can be shown to who started this."""
    from bm_envs.viewers import has_display

    if not has_display():
        return False
    try:
        webbrowser.get()
    except webbrowser.Error:
        return False
    return True


def main() -> None:
    """Start what the command line names."""
    words = sys.argv[1:]
    if not words or words[0] in HELP:
        print(page())
        return
    if words[0] == "--version":
        import bm_envs

        print(f"bm-envs {bm_envs.__version__}")
        return
    if words[0] == "demo":
        from bm_envs import cli

        cli.call_scripts(spelled_names(), "bm-envs demo")
        sys.argv = sys.argv[1:]
        cli.run(demo, Demo, text=Demo.__doc__)
    for count in (2, 1):
        if (name := " ".join(words[:count])) in COMMANDS and len(words) >= count:
            start(name, words[count:])
            return
    within = [name for name in COMMANDS if name.split()[0] == words[0]]
    if within and (len(words) == 1 or words[1] in HELP):
        print(page(words[0]))
        return
    from bm_envs.errors import unknown_name

    name = " ".join(words[:2]) if within else words[0]
    kinds = within or {name.split()[0] for name in COMMANDS}
    refuse(f"{unknown_name('command', name, kinds)} bm-envs --help tells what each does.")


if __name__ == "__main__":
    main()
