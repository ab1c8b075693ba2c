"""learning/run.py: settings as text, which of them a checkpoint must have, and their defaults.

Without `from __future__ import annotations`: the types of fields are no texts here, as in a script
that somebody writes without it.
"""

import dataclasses
import json
from dataclasses import dataclass, field

import pytest

from bm_envs.errors import ConfigError
from bm_envs.learning import run
from bm_envs.learning.folder import claim_run, same_settings, save_checkpoint
from bm_envs.learning.run import Flags, RunConfig, settings_of, values_of


@dataclass(frozen=True)
class Weights:
    near: float = 1.0
    far: float = 0.5


@dataclass(frozen=True)
class Task:
    weights: Weights = Weights()
    noise: bool = True


@dataclass(frozen=True)
class Config:
    run: Flags[RunConfig] = RunConfig(eval_every=7)
    goal: str = "joystick"
    hidden: tuple[int, ...] = (8, 8)
    task: Task = field(default_factory=lambda: Task(Weights(near=2.0)))


def test_settings_of_a_run_stand_beside_the_others():
    values = values_of(Config())
    assert values["eval_every"] == 7 and values["seed"] == 1 and "run" not in values
    assert values["task"]["weights"] == {"near": 2.0, "far": 0.5}
    for kind in ("Flags[RunConfig]", "run.Flags[run.RunConfig]", run.Flags[RunConfig]):
        made = dataclasses.make_dataclass("Made", [("run", kind, RunConfig())])
        assert values_of(made()) == values_of(RunConfig())
    made = dataclasses.make_dataclass("Made", [("run", RunConfig, RunConfig())])
    assert values_of(made()).keys() == {"run"}


def without(text, *path):
    """Settings of a version that did not have one of them, nor `defaults`."""
    values = json.loads(text)
    del values["defaults"]
    inner = values
    for name in path[:-1]:
        inner = inner[name]
    del inner[path[-1]]
    return json.dumps(values)


@pytest.mark.parametrize(
    ("path", "changed"),
    [
        (("goal",), Config(goal="waypoint")),
        (("hidden",), Config(hidden=(8,))),
        (("eval_every",), Config(run=RunConfig(eval_every=8))),
        (("task", "noise"), Config(task=Task(Weights(near=2.0), noise=False))),
        (("task", "weights", "far"), Config(task=Task(Weights(2.0, far=0.1)))),
    ],
)
def test_a_setting_that_a_checkpoint_does_not_have_is_its_default(path, changed):
    """By the class that has it: a preset's value, or a flag's, is another."""
    default = {"eval_every": RunConfig(eval_every=RunConfig.eval_every)}
    config = dataclasses.replace(Config(), run=default.get(path[-1], Config().run))
    saved = without(settings_of(config), *path)
    assert same_settings(saved, settings_of(config))
    assert not same_settings(saved, settings_of(changed))
    assert not same_settings(settings_of(config), settings_of(changed))


def test_what_is_not_a_setting_has_no_default():
    settings = settings_of(Config(), clips=["a"])
    assert same_settings(settings, settings)
    assert not same_settings(without(settings, "clips"), settings)
    # A value of Config's own, and not of the class that has the setting.
    assert not same_settings(without(settings, "task", "weights", "near"), settings)
    # A setting that is gone may have had a part in the run.
    assert not same_settings(settings, without(settings, "goal"))


def test_other_defaults_of_a_later_version_change_nothing():
    now = settings_of(Config(goal="tour"))
    assert same_settings(now.replace("joystick", "obstacle"), now)


def test_a_run_of_before_a_setting_goes_on(tmp_path):
    settings = settings_of(Config(), "seed")
    saved = without(settings, "task", "weights", "far")
    save_checkpoint(tmp_path / "checkpoint.pt", {"settings": saved})
    config = RunConfig(run_dir=tmp_path, resume=True)
    arguments = (config, "x__1", settings, "settings", ("settings",), "settings")
    with claim_run(*arguments) as folder:
        assert folder.saved == {"settings": saved}
    other = settings_of(Config(task=Task(Weights(2.0, far=0.1))), "seed")
    with pytest.raises(ConfigError, match="is of a run with other settings"):  # noqa: SIM117
        with claim_run(config, "x__1", other, *arguments[3:]):
            pass
