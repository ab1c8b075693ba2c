"""Other people's trainers on our environments: the adapters, and that each client takes them."""

import importlib.metadata
import importlib.util
import json
import os
import re
import sys
import tomllib
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import warm_python

from bm_envs.adapters import longest_episode
from bm_envs.errors import BackendUnavailable, ConfigError
from bm_envs.results import check_result

ROOT = Path(__file__).parents[2]
CLIENTS = ROOT / "benchmarks" / "clients"
SB3 = "stable_baselines3"
RSL_RL = "rsl_rl"
PIP = {"sb3": "stable-baselines3", "rsl_rl": "rsl-rl-lib"}


def needs(*packages):
    absent = [name for name in packages if importlib.util.find_spec(name) is None]
    reason = f"{', '.join(absent)} is not installed: the extra clients has all but jax"
    return pytest.mark.skipif(bool(absent), reason=reason)


def several(num_envs=4, **arguments):
    return gymnasium.make_vec(
        "BMTrack-G1-v0", num_envs=num_envs, motion="walk", preset="laptop", threads=1, **arguments
    )


def actions(env, count):
    rng = np.random.default_rng(0)
    return rng.normal(0, 1, (count, *env.action_space.shape)).astype(np.float32)


def run(*command, **arguments):
    return warm_python.run([sys.executable, *command], timeout=900, **arguments)


def load(script):
    name = f"clients_{script}"
    spec = importlib.util.spec_from_file_location(name, CLIENTS / f"{script}.py")
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- without a client's package -------------------------------------------------------------------


@pytest.mark.parametrize(("adapter", "package", "absent"), [
    ("sb3", "stable-baselines3", SB3), ("rsl_rl", "rsl-rl-lib", RSL_RL),
    ("rsl_rl", "rsl-rl-lib", "tensordict"),
])  # fmt: skip
def test_a_missing_package_is_one_sentence(adapter, package, absent):
    code = (
        f"import sys; sys.modules[{absent!r}] = None\n"
        f"import bm_envs.adapters\nimport bm_envs.adapters.{adapter}"
    )
    done = run("-c", code, cwd=ROOT)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"{BackendUnavailable.__module__}.BackendUnavailable: bm_envs.adapters.{adapter} needs the "
        f"package {package}: pip install 'bm-envs[clients]'."
    )


@pytest.mark.parametrize(
    ("arguments", "steps"),
    [
        ({}, 150),  # the preset's 3 s
        ({"episode_s": 0.5}, 25),
        ({"episode_s": None}, 24.5 * 50),  # the walk's last frame
        ({"max_episode_steps": 20}, 20),
        ({"episode_s": 0.5, "max_episode_steps": 400}, 25),
    ],
)
def test_the_longest_episode_is_as_long_as_told(arguments, steps):
    env = several(2, overrides={"start": {"mode": "first"}, "failure_distance": 9.0}, **arguments)
    assert longest_episode(env) == steps
    env.close()


def test_the_longest_episode_of_a_guided_task_is_its_time():
    env = gymnasium.make_vec("BMGuided-G1-WalkPerturb-v0", num_envs=2, max_episode_steps=60)
    assert longest_episode(env) == 60
    env.close()
    env = gymnasium.make_vec("BMGuided-G1-WalkPerturb-v0", num_envs=2)
    assert longest_episode(env) == 15 * 50
    env.close()


# --- Stable-Baselines3 ----------------------------------------------------------------------------


@needs(SB3)
@pytest.mark.parametrize("critic", ["info", "dict"])
def test_sb3_gets_what_the_environment_gives(critic):
    from bm_envs.adapters.sb3 import SB3VecEnv

    plain, env = several(critic=critic), SB3VecEnv(several(critic=critic))
    env.seed(5)
    first, info = plain.reset(seed=5)
    np.testing.assert_equal(env.reset(), first)
    assert [row["clip"] for row in env.reset_infos] == info["clip"].tolist()
    ended = cut = 0
    for action in actions(plain, 170):
        obs, reward, terminated, truncated, info = plain.step(action)
        got_obs, got_reward, dones, infos = env.step(action)
        np.testing.assert_equal(got_obs, obs)
        np.testing.assert_equal(got_reward, reward)
        np.testing.assert_equal(dones, terminated | truncated)
        for i, row in enumerate(infos):
            terms = [value for name, value in row.items() if name.startswith("reward_")]
            # Sums of float32, in another order.
            assert sum(terms) == pytest.approx(float(reward[i]), abs=1e-6)
            assert row["TimeLimit.truncated"] == bool(truncated[i])
            assert ("terminal_observation" in row) == ("termination" in row) == bool(dones[i])
            if not dones[i]:
                assert row["frame"] == info["frame"][i]
                continue
            ended, cut = ended + 1, cut + int(truncated[i])
            final = info["final_obs"]
            last = {k: v[i] for k, v in final.items()} if critic == "dict" else final[i]
            np.testing.assert_equal(row["terminal_observation"], last)
            assert row["frame"] == info["final_info"]["frame"][i]
            assert row["termination"] == info["termination"][i]
            assert env.reset_infos[i]["frame"] == info["frame"][i]
    assert ended > cut, "premise: episodes failed"
    env.close()
    plain.close()


@needs(SB3)
def test_sb3_tells_episodes_that_were_cut_off():
    from bm_envs.adapters.sb3 import SB3VecEnv

    env = SB3VecEnv(several(episode_s=0.06))
    env.reset()
    for step in range(1, 7):
        _, _, dones, infos = env.step(np.zeros((4, 29), np.float32))
        assert dones.tolist() == [step % 3 == 0] * 4
        assert [row["TimeLimit.truncated"] for row in infos] == dones.tolist()
    env.close()


@needs(SB3)
def test_sb3s_wrappers_and_gymnasiums_count_the_same_episodes():
    from stable_baselines3.common.vec_env import VecMonitor

    from bm_envs.adapters.sb3 import SB3VecEnv

    theirs = VecMonitor(SB3VecEnv(several()))
    ours = SB3VecEnv(gymnasium.wrappers.vector.RecordEpisodeStatistics(several()))
    ended = 0
    for env in (theirs, ours):
        env.seed(1)
        env.reset()
    for action in actions(several(), 60):
        (*_, dones, a), (*_, b) = theirs.step(action), ours.step(action)
        for i in np.flatnonzero(dones):
            ended += 1
            assert a[i]["episode"]["l"] == b[i]["episode"]["l"]
            # Sums of up to 60 rewards in float32.
            assert a[i]["episode"]["r"] == pytest.approx(b[i]["episode"]["r"], abs=1e-5)
    assert ended


@needs(SB3)
def test_sb3_options_and_attributes_are_the_batchs():
    from bm_envs.adapters.sb3 import SB3VecEnv

    env = SB3VecEnv(several())
    env.set_options({"frame": [3, 5, 7, 9]})
    env.reset()
    assert [row["frame"] for row in env.reset_infos] == [3, 5, 7, 9]
    env.reset()
    assert [row["frame"] for row in env.reset_infos] != [3, 5, 7, 9], "options serve once"
    env.set_options([{"frame": 1}, {}, {}, {}])
    with pytest.raises(ConfigError, match="^set_options got different options for the robots"):
        env.reset()
    assert env.get_attr("num_envs", [0, 1]) == [4, 4]
    assert not env.has_attr("nothing of the kind")
    assert len(env.env_method("get_state")) == 4
    with pytest.raises(ConfigError, match=r"^env_method\('get_state'\) has indices 0, expected"):
        env.env_method("get_state", indices=0)
    with pytest.raises(ConfigError, match="^step_wait was called before step_async"):
        env.step_wait()
    env.close()


@needs(SB3)
@pytest.mark.parametrize(("make", "sentence"), [
    (lambda: several(autoreset_mode="next_step"),
     "SB3VecEnv got an environment with autoreset_mode 'next_step', expected 'same_step', which "
     "make_vec makes by default."),
    (lambda: gymnasium.make("BMTrack-G1-v0"), "SB3VecEnv got a TrackEnv, expected a vector "
     "environment of bm_envs, as gymnasium.make_vec('BMTrack-G1-v0', num_envs=64) makes it."),
    (lambda: None, "SB3VecEnv got a NoneType, expected a vector environment of bm_envs, as "
     "gymnasium.make_vec('BMTrack-G1-v0', num_envs=64) makes it."),
])  # fmt: skip
def test_other_environments_are_refused(make, sentence):
    from bm_envs.adapters.sb3 import SB3VecEnv

    with pytest.raises(ConfigError, match=f"^{re.escape(sentence)}$"):
        SB3VecEnv(make())


# --- rsl_rl ---------------------------------------------------------------------------------------


@needs(RSL_RL)
def test_rsl_rl_gets_what_the_environment_gives():
    import torch

    from bm_envs.adapters.rsl_rl import RslRlVecEnv

    plain, env = several(), RslRlVecEnv(several())
    env.seed(5)
    first, info = plain.reset(seed=5)
    np.testing.assert_array_equal(env.get_observations()["policy"], first)
    np.testing.assert_array_equal(env.get_observations()["critic"], info["critic_obs"])
    assert (env.num_actions, env.max_episode_length) == (29, 150)
    length = np.zeros(4, int)
    ended = 0
    for action in actions(plain, 170):
        obs, reward, terminated, truncated, info = plain.step(action)
        got, got_reward, dones, extras = env.step(torch.from_numpy(action))
        assert got.batch_size == (4,)
        np.testing.assert_array_equal(got["policy"], obs)
        np.testing.assert_array_equal(got["critic"], info["critic_obs"])
        np.testing.assert_array_equal(got_reward, reward)
        np.testing.assert_array_equal(dones.bool(), terminated | truncated)
        np.testing.assert_array_equal(extras["time_outs"], truncated & ~terminated)
        length = np.where(terminated | truncated, 0, length + 1)
        np.testing.assert_array_equal(env.episode_length_buf, length)
        # Means of N sums of float32.
        assert sum(extras["log"].values()) == pytest.approx(float(reward.mean()), abs=1e-6)
        ended += int(dones.sum())
    assert ended
    env.close()


@needs(RSL_RL)
def test_rsl_rl_episodes_of_a_given_age_end_so_much_earlier():
    import torch

    from bm_envs.adapters.rsl_rl import RslRlVecEnv

    envs = several(3, episode_s=0.2)  # 10 steps
    envs.reset(seed=0)  # whose starts are more than 10 steps before the clip's end
    env = RslRlVecEnv(envs)
    env.episode_length_buf = torch.tensor([0, 4, 9])
    ends = []
    for _ in range(10):
        _, _, dones, extras = env.step(torch.zeros(3, 29))
        assert torch.equal(dones.bool(), extras["time_outs"])
        ends.append(dones.tolist())
    assert np.argwhere(np.array(ends)).tolist() == [[0, 2], [5, 1], [9, 0]]
    with pytest.raises(ConfigError, match=r"^episode_length_buf has shape \(2,\), expected \(3,\)"):
        env.episode_length_buf = torch.zeros(2)
    limited = RslRlVecEnv(several(2, max_episode_steps=20))
    with pytest.raises(ConfigError, match="expected False beside max_episode_steps: give the"):
        limited.episode_length_buf = torch.zeros(2)
    guided = RslRlVecEnv(gymnasium.make_vec("BMGuided-G1-Joystick-v0", num_envs=2))
    assert set(guided.get_observations().keys()) == {"policy"}
    with pytest.raises(ConfigError, match="expected False in a guided task"):
        guided.episode_length_buf = torch.zeros(2)


# --- what clients are promised --------------------------------------------------------------------


# In an environment of the client's own alone: Minari's collector wants jax, which no extra has.
PACKAGES = {
    "gymnasium": ["gymnasium"], "sb3": [SB3], "rsl_rl": [RSL_RL, "tensordict"], "skrl": ["skrl"],
    "torchrl": ["torchrl"], "minari": ["minari", "jax"],
}  # fmt: skip


@pytest.mark.parametrize("client", [
    pytest.param(client, marks=needs(*packages)) for client, packages in PACKAGES.items()
])  # fmt: skip
def test_promises_to_clients_are_kept(client, tmp_path):
    out = tmp_path / "rows.json"
    done = run(CLIENTS / "client.py", "--client", client, "--rows", out, cwd=tmp_path,
               env={**os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = json.loads(out.read_text())
    assert rows and not [(row["name"], row["reason"]) for row in rows if not row["passed"]]
    assert {row["version"] for row in rows} == {importlib.metadata.version(PIP.get(client, client))}


@pytest.mark.parametrize("client", ["sb3", "rsl_rl", "skrl"])
def test_a_small_training_has_a_curve(client, tmp_path):
    package = {"sb3": SB3}.get(client, client)
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed: the extra clients has it")
    out = tmp_path / "rows.json"
    done = run(
        CLIENTS / "client.py", "--client", client, "--train", "laptop", "--steps", 3072,
        "--num-envs", 32, "--rows", out, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(out.read_text())
    assert (row["what"], row["name"], row["passed"]) == ("train", "laptop", True)
    assert row["steps"] == pytest.approx(3072, rel=0.35)  # whole iterations
    assert 2 <= len(row["curve"]) <= 20
    lengths = [point[1] for point in row["curve"]]
    assert 1 <= min(lengths) and max(lengths) <= 150
    header = {
        "kind": "clients", "created": "2026-11-21T17:23:22+00:00", "command": "python try.py",
        "commit": "1123a0c30bf8", "seed": None, "versions": {},
        "machine": {"processor": "x", "cores": 2, "gpu": None},
    }  # fmt: skip
    check_result({**header, "rows": [row]}, "out.json")


def test_curves_count_episodes_by_where_they_ended():
    curve = load("client").curve
    # 20 stretches of 10 steps: two episodes end in the first, one in the last.
    ended = [(4, 2, 0.5), (10, 4, 0.1), (200, 5, 1.0)]
    assert curve(ended, 200) == [[10, 3.0, 0.1], [200, 5.0, 0.2]]
    assert curve([], 200) == []


# --- CleanRL's script -----------------------------------------------------------------------------

# The lines that the edits are about, and none of the rest.
LINES = """\
def make_env(env_id):
    def thunk():
            env = gym.make(env_id)
        env = gym.wrappers.TransformObservation(env, lambda obs: np.clip(obs, -10, 10))
    self.actor_logstd = nn.Parameter(torch.zeros(1, np.prod(envs.single_action_space.shape)))
        [make_env(args.env_id) for i in range(args.num_envs)]
            for info in infos["final_info"]:
"""


def edit(tmp_path, text, *flags):
    script, out = tmp_path / "theirs.py", tmp_path / "edited.py"
    script.write_text(text)
    done = run(CLIENTS / "cleanrl.py", "--script", script, "--out", out, *flags, cwd=ROOT)
    return done, out


def test_cleanrls_script_is_edited_in_three_places(tmp_path):
    done, out = edit(tmp_path, LINES)
    assert done.returncode == 0, done.stderr
    text = out.read_text()
    assert "gym.make(env_id, motion='walk', preset='laptop')\n" in text
    assert "np.clip(obs, -10, 10), env.observation_space)\n" in text
    assert "autoreset_mode=gym.vector.AutoresetMode.SAME_STEP" in text
    kept = [line for line in LINES.splitlines() if line in text.splitlines()]
    assert kept == [LINES.splitlines()[i] for i in (0, 1, 4)], "nothing else has changed"
    assert done.stdout.count("\n-") == 4


def test_cleanrls_log_reads_the_episodes_that_ended(tmp_path):
    _, out = edit(tmp_path, LINES)
    line = out.read_text().splitlines()[-1].strip()
    infos = {
        "final_info": {"episode": {"r": np.array([1.5, 0, 2.5]), "l": np.array([3, 0, 4])}},
        "_final_info": np.array([True, False, True]),
    }
    found = eval(line.removeprefix("for info in ").removesuffix(":"), {"infos": infos})
    assert [(e["episode"]["r"], e["episode"]["l"]) for e in found] == [(1.5, 3), (2.5, 4)]


def test_cleanrls_noise_is_the_one_told(tmp_path):
    done, out = edit(tmp_path, LINES, "--noise-std", "0.4", "--preset", "train")
    assert done.returncode == 0 and "preset='train'" in out.read_text()
    (value,) = re.findall(r"torch\.full\(\(1, .*\), (-[\d.]+)\)", out.read_text())
    assert float(value) == pytest.approx(np.log(0.4))


@pytest.mark.parametrize(("text", "flags", "sentence"), [
    (LINES.replace("gym.make(env_id)", "gym.make(id)"), (),
     "'env = gym.make(env_id)' is there 0 times, expected once as in CleanRL 1.2.0: give another"),
    (LINES + LINES, (), "'env = gym.make(env_id)' is there 2 times, expected once"),
    (LINES, ("--noise-std", "0"), "noise_std is 0.0, expected a positive number."),
])  # fmt: skip
def test_another_script_is_refused(tmp_path, text, flags, sentence):
    done, out = edit(tmp_path, text, *flags)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert sentence in done.stderr
    assert not out.exists()


# --- the page -------------------------------------------------------------------------------------


def snippets():
    text = (ROOT / "docs" / "your_own_ppo.md").read_text()
    return re.findall(r"^## ([^\n]+)$|^```python\n(.*?)^```$", text, re.M | re.S)


def sections():
    """`(section, code)` of the page."""
    found, title = [], ""
    for heading, code in snippets():
        title = heading or title
        if code:
            found.append((title, code))
    return found


SMALL = {"num_envs=64": "num_envs=4", "num_envs=256": "num_envs=4", "2_000_000": "256",
         "learn(500,": "learn(2,"}  # fmt: skip
SECTIONS = {
    "The environment": ["gymnasium"], "Stable-Baselines3": [SB3], "rsl_rl": [RSL_RL],
    "skrl": ["skrl"], "TorchRL": ["torchrl"], "Minari": ["minari", "jax"],
}  # fmt: skip


def test_the_page_has_code_for_each_client():
    assert [title for title, _ in sections()] == list(SECTIONS)


@pytest.mark.parametrize(("title", "code"), [
    pytest.param(title, code, id=title, marks=needs(*SECTIONS.get(title, [])))
    for title, code in sections()
])  # fmt: skip
def test_the_pages_code_runs(title, code, tmp_path):
    for large, small in SMALL.items():
        code = code.replace(large, small)
    done = run(
        "-c", code, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "MINARI_DATASETS_PATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_noise_of_unit_size_costs_what_the_page_says():
    """0.1 /s * 0.02 s * 29 joints * variance 2 of a change = 0.116 a step; laptop: 0.16 of it."""
    for preset, cost in (("train", 0.116), ("laptop", 0.116 * 0.16)):
        env = gymnasium.make_vec("BMTrack-G1-v0", num_envs=64, motion="walk", preset=preset)
        env.reset(seed=0)
        rng, costs, began = np.random.default_rng(0), [], np.ones(64, bool)
        for _ in range(31):
            action = rng.normal(0, 1, (64, 29)).astype(np.float32)
            *_, info = env.step(action)
            # Robots that have just begun have an action of 0 before: their change has variance 1.
            costs.append(info["reward_action_rate"][~began])
            began = info.get("_termination", np.zeros(64, bool))
        # A sum of 29 squares over 2 has relative deviation sqrt(2 / 29); some 1700 of them are
        # averaged, neighbours correlated by 1/4: 1 % is more than three deviations.
        assert -np.concatenate(costs).mean() == pytest.approx(cost, rel=0.02)
        env.close()


# --- the command ----------------------------------------------------------------------------------


def test_the_pins_of_the_extra_are_the_versions_that_are_tested():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = [line for line in project["optional-dependencies"]["clients"] if "==" in line]
    assert {line.partition("==")[0] for line in pinned} >= {
        "stable-baselines3", "rsl-rl-lib", "skrl", "torchrl", "tensordict", "minari",
    }  # fmt: skip
    normal = {
        line.lower().replace("_", "-") for line in (ROOT / "constraints.txt").read_text().split()
    }
    for line in pinned:
        name, _, version = line.partition("==")
        assert line in normal, "constraints.txt has another version"
        if importlib.util.find_spec(name.replace("-", "_").removesuffix("_lib")):
            assert importlib.metadata.version(name) == version


def test_clients_that_do_not_run_have_a_row_with_the_reason(tmp_path):
    """An interpreter that fails, but for pip, stands for an installation that is broken."""
    out = tmp_path / "out.json"
    python = tmp_path / "envs" / "sb3" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(
        "#!/bin/sh\ncase $2 in pip) exit 0 ;; esac\necho 'ImportError: broken' >&2\nexit 1\n"
    )
    python.chmod(0o755)
    done = run(
        CLIENTS / "try.py", "--client", "sb3", "--train", "laptop", "quiet", "--reuse", "--dir",
        tmp_path / "envs", "--json", out, cwd=ROOT,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "")
    result = json.loads(out.read_text())
    check_result(result, "out.json")
    assert [(r["what"], r["name"], r["version"], r["reason"]) for r in result["rows"]] == [
        (what, name, "2.9.2", "ImportError: broken")
        for what, name in (("check", "all"), ("train", "laptop"), ("train", "quiet"))
    ]


def test_a_client_that_cannot_be_installed_has_a_row_with_the_reason(tmp_path):
    out, python = tmp_path / "out.json", tmp_path / "envs" / "sb3" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\necho 'ERROR: No matching distribution found' >&2\nexit 1\n")
    python.chmod(0o755)
    done = run(
        CLIENTS / "try.py", "--client", "sb3", "--reuse", "--dir", tmp_path / "envs", "--json", out,
        cwd=ROOT,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "")
    (row,) = json.loads(out.read_text())["rows"]
    told = (row["name"], row["passed"], row["reason"])
    assert told == ("pip install", False, "ERROR: No matching distribution found")


@pytest.mark.parametrize(("flags", "sentence"), [
    (("--jobs", "0"), "jobs is 0, expected 1 or more."),
    (("--plot", "curves.pdf"), "curves.pdf: expected a name that ends in .svg or .png."),
    (("--steps", "100"), "steps is 100, expected 20 or more for each of 64 robots."),
    (("--client", "sb3", "sb3"), "--client has a client twice, expected each once."),
])  # fmt: skip
def test_bad_flags_of_the_command_are_one_line(flags, sentence):
    done = run(CLIENTS / "try.py", *flags, cwd=ROOT)
    assert (done.returncode, done.stderr) == (2, f"error: {sentence}\n")


def test_a_client_without_a_training_says_so(tmp_path):
    done = run(
        CLIENTS / "client.py", "--client", "minari", "--train", "laptop", "--rows",
        tmp_path / "x.json", cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 2 and done.stderr.startswith("error: --client is 'minari', which")


def test_curves_are_drawn(tmp_path):
    rows = [
        {"client": client, "name": name, "curve": [[10, 20.0, 0.1], [20, 30.0, 0.2]]}
        for client in ("sb3", "rsl_rl") for name in ("laptop", "published")
    ]  # fmt: skip
    load("try").draw(tmp_path / "curves.png", rows)
    assert (tmp_path / "curves.png").read_bytes()[:4] == b"\x89PNG"
