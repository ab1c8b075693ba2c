"""JSON from outside: one reader with bounds, and what is read of a policy's own files."""

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hostile_limits import SECONDS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from policy_files import make_clip, make_mlp, save_checkpoint

from bm_envs import cli
from bm_envs.diffusion.model import load_model
from bm_envs.errors import BMError, PolicyError
from bm_envs.policy import (
    PolicySpec,
    load_policy,
    mlp_from_checkpoint,
    named_motions,
    read_policy_json,
    read_run_config,
    training_figures,
    write_onnx,
    write_policy_json,
)

ROOT = Path(__file__).resolve().parent.parent
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**40), 10**40)
    | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=20,
)  # fmt: skip


@pytest.mark.slow
@given(VALUES)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_what_json_writes_is_read_as_json_reads_it(value):
    for ascii_only in (True, False):
        text = json.dumps(value, ensure_ascii=ascii_only)
        assert cli.parse_json(text) == json.loads(text) == value


@given(st.text(st.sampled_from('[]{}:,"0123456789eE+-.ntfalsrueNIy \\u')) | st.text())
@settings(max_examples=300, deadline=None, derandomize=True)
def test_any_text_is_json_or_a_value_error(text):
    try:
        value = cli.parse_json(text)
    except ValueError:
        return
    json.dumps(value, allow_nan=False)  # what comes through can be written again


BAD = {
    "nothing": b"", "a brace": b"{", "nul": b"\0", "nul in a text": b'"a\0b"',
    "utf-16": b"\xff\xfe{\0}\0",
    "latin": b'"\xe9"', "half a pair": b'["\\ud800"]', "half a pair as key": b'{"\\udfff": 1}',
    "half a pair alone": b'"\\ud800"', "raw surrogate": b'"\xed\xa0\x80"',
    "nan": b"[NaN]", "infinity": b'{"a": -Infinity}', "1e999": b"[1e999]", "-1e999": b"[-1e999]",
    "10^400": b"[1" + b"0" * 400 + b"]", "10^5000": b"[1" + b"0" * 5000 + b"]",
    "a key twice": b'{"a": 1, "a": 2}', "a key twice inside": b'[{"a": {"b": 1, "b": 1}}]',
    "lists 100 deep": b"[" * 100 + b"]" * 100,
    "objects 100 deep": b'{"a":' * 100 + b"1" + b"}" * 100,
    "lists without end": b"[" * 10**6, "objects without end": b'{"a":' * 200_000,
    "two values": b"{} {}", "a comment": b"{} // x", "a single quote": b"{'a': 1}",
    "a tab": b'"a\tb"',
    "too large": b" " * (2**24 + 1) + b"1",
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_json_that_is_refused(tmp_path, name):
    path = tmp_path / "a.json"
    path.write_bytes(BAD[name])
    start = time.process_time()
    with pytest.raises(PolicyError, match="a.json: not a readable JSON file") as caught:
        cli.read_json(path, PolicyError)
    assert time.process_time() - start < SECONDS
    assert str(caught.value).isprintable() and len(str(caught.value)) < 400


def test_json_that_is_read(tmp_path):
    path = tmp_path / "a.json"
    for content, expected in (
        (b"\xef\xbb\xbf{}", {}),  # a BOM, as some editors write it
        (b"[" * 64 + b"]" * 64, None),
        (b'["\\ud83d\\ude00"]', ["\N{GRINNING FACE}"]),
        (b"[1e308, -0.0, 12345678901234567890]", [1e308, -0.0, 12345678901234567890]),
    ):
        path.write_bytes(content)
        found = cli.read_json(path)
        assert expected is None or found == expected


@pytest.mark.parametrize("name", ["missing.json", "folder", "loop", "a\0b", "x" * 5000, "locked"])
def test_files_that_cannot_be_opened(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "locked").write_text("{}")
    (tmp_path / "locked").chmod(0)
    if name == "locked" and os.access(tmp_path / "locked", os.R_OK):
        pytest.skip("this user reads everything")
    with pytest.raises(BMError, match="not a readable JSON file") as caught:
        cli.read_json(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_megabyte_takes_less_than_two_seconds():
    for text in ("[" + "[]," * 330_000 + "[]]", "[" + "{}," * 330_000 + "{}]", "1," * 5,
                 '{"' + '":0,"'.join(map(str, range(80_000))) + '":0}',
                 '"' + "\\u0061" * 160_000 + '"', "[" + "1e5," * 250_000 + "1]",
                 "[" + "9" * 308 + "]", "0." + "1" * 10**6):  # fmt: skip
        start = time.process_time()
        try:
            cli.parse_json(text)
        except ValueError:
            pass
        assert time.process_time() - start < SECONDS


def test_control_characters_reach_no_terminal():
    assert cli.shortened("a\x1b[31mb\0c") == "a?[31mb?c"
    assert cli.shortened("\n\n  first\nsecond") == "first"
    assert len(cli.shortened("x" * 10**6)) == 160
    assert cli.shortened("") == ""


# --- a policy's own files ---


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    spec = PolicySpec.for_g1()
    mlp = make_mlp(hidden=(8,))
    write_onnx(folder / "policy.onnx", mlp, spec, None)
    write_policy_json(folder / "policy.json", spec, onnx_file=folder / "policy.onnx",
                      motions=[make_clip(5)], training={"env_steps": 1}, evaluation=[{"a": 1}],
                      licence="MIT")  # fmt: skip
    save_checkpoint(folder, mlp)
    assert named_motions(load_policy(folder))[0]["name"] == "wiggle"  # the premise
    return folder


JUNK = [True, False, 0, -3, 1.5, 10**300, "", "x", "a\0b", [], [1], [None], [[]], {}, {"a": []}]


def described(run, tmp_path, **changes):
    value = json.loads((run / "policy.json").read_text()) | changes
    (tmp_path / "policy.json").write_text(json.dumps(value))
    for name in ("policy.onnx", "config.json", "checkpoint.pt"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    return tmp_path


@pytest.mark.parametrize(
    "key", ["motions", "network", "training", "evaluation", "licence", "action"]
)
@pytest.mark.parametrize("value", [None, *JUNK], ids=repr)
def test_odd_types_in_policy_json(run, tmp_path, key, value):
    folder = described(run, tmp_path, **{key: value})
    try:
        policy = load_policy(folder)
        assert isinstance((policy.info or {}).get("training", {}), dict)
        assert all(isinstance(entry["name"], str) for entry in named_motions(policy))
        right = {"motions": list, "evaluation": (list, dict), "licence": str}.get(key, dict)
        assert value is None or (isinstance(value, right) and not isinstance(value, bool))
    except PolicyError as error:
        assert str(error).startswith(str(folder)) and "\n" not in str(error)
        assert key in str(error) and len(str(error)) < 400


@pytest.mark.parametrize("key", ["name", "sha256", "frames", "licence"])
@pytest.mark.parametrize("value", JUNK, ids=repr)
def test_odd_types_in_a_motion_of_policy_json(run, tmp_path, key, value):
    motion = {"name": "walk", "sha256": "a", "frames": 3, "licence": "MIT"} | {key: value}
    folder = described(run, tmp_path, motions=[motion])
    right = int if key == "frames" else str
    if isinstance(value, right) and not isinstance(value, bool):
        named_motions(load_policy(folder))
        return
    with pytest.raises(PolicyError, match=rf"policy.json: motions\[0\].{key} is .*, expected"):
        named_motions(load_policy(folder))


@pytest.mark.parametrize("content", BAD.values(), ids=BAD)
def test_files_of_a_run_that_are_no_json(run, tmp_path, content):
    folder = described(run, tmp_path)
    (folder / "policy.json").write_bytes(content)
    (folder / "config.json").write_bytes(content)
    for read in (
        lambda: load_policy(folder).info, lambda: read_policy_json(folder / "policy.json"),
        lambda: read_run_config(folder), lambda: training_figures(folder),
        lambda: mlp_from_checkpoint(folder),
    ):  # fmt: skip
        with pytest.raises(PolicyError, match="json: not a readable JSON file") as caught:
            read()
        assert "\n" not in str(caught.value)


def test_a_run_that_has_not_ended_has_no_figures(run, tmp_path):
    folder = described(run, tmp_path)
    with pytest.raises(
        PolicyError, match="training lacks wall_s, first_pass, .*the run has not en"
    ):
        training_figures(folder)


@pytest.mark.slow
@given(st.dictionaries(st.sampled_from(["network", "task", "motion", "seed", "x"]), VALUES), VALUES)
@settings(max_examples=150, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
def test_any_config_of_a_run_gives_a_network_or_one_sentence(run, tmp_path, config, deep):
    folder = described(run, tmp_path)
    whole = {"network": {"residual": True, "activation": "elu"},
             "task": {"observations": ["command"],
                      "actuation": {"action_scale": deep}}}  # fmt: skip
    for value in (config, deep, whole, whole | {"network": deep}, whole | {"task": deep},
                  whole | {"task": {"observations": deep}},
                  whole | {"network": {"residual": deep, "activation": deep}}):  # fmt: skip
        (folder / "config.json").write_text(json.dumps(value))
        try:
            mlp_from_checkpoint(folder)
        except PolicyError as error:
            assert str(error).startswith(str(folder)) and "\n" not in str(error)


@pytest.mark.slow
@given(st.dictionaries(
    st.sampled_from(["joint_names", "joint_stiffness", "action_scale", "observation_names",
                     "observation_history_lengths", "observation_terms_scale", "body_names",
                     "observation_terms_clip", "anchor_body_name", "command_names", "run_path",
                     "joint_effort_limit", "default_joint_pos"]), VALUES, min_size=1,
))  # fmt: skip
@settings(max_examples=200, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
def test_any_config_of_a_policy_gives_a_policy_or_one_sentence(run, tmp_path, config):
    path = tmp_path / "c.json"
    path.write_text(json.dumps(config))
    try:
        policy = load_policy(run, config=path)
        assert all(map(math.isfinite, policy.spec.action_scale))
    except PolicyError as error:
        assert "\n" not in str(error) and len(str(error)) < 600


@pytest.mark.parametrize("value", [None, 3, [], {}, {"data": 3}, {"data": [3]}, {"data": [{}]},
                                   {"data": [{"experts": [3], "clips": {}}]}])  # fmt: skip
def test_what_a_diffusion_model_tells_of_its_data_may_be_missing(tmp_path, value):
    model = load_model("guided_body_pos")
    (tmp_path / "denoiser.onnx").write_bytes(model.path.read_bytes())
    (tmp_path / "policy.json").write_text(json.dumps(value))
    found = load_model(tmp_path)
    assert found.clips_of_experts() == {}


def test_each_tracker_of_a_diffusion_model_has_its_own_clips(tmp_path):
    """Over all parts of the data; a tracker's clips are those from its first to the next one's."""
    (tmp_path / "denoiser.onnx").write_bytes(load_model("guided_body_pos").path.read_bytes())
    part = {
        "experts": [{"policy": "a", "first_clip": 0}, {"policy": "b", "first_clip": 2}],
        "clips": [{"name": name} for name in "uvw"],
    }
    again = {"experts": [{"policy": "b", "first_clip": 0}], "clips": [{"name": "w"}, {"name": "x"}]}
    (tmp_path / "policy.json").write_text(json.dumps({"data": [part, again]}))
    assert load_model(tmp_path).clips_of_experts() == {"a": ["u", "v"], "b": ["w", "x"]}


def test_a_command_says_one_sentence(run, tmp_path):
    (tmp_path / "c.json").write_text("[" * 100_000)
    done = subprocess.run(
        [sys.executable, "benchmarks/track.py", "--policy", str(run), "--motion", "walk[0:1]",
         "--policy-config", str(tmp_path / "c.json"), "--json", str(tmp_path / "o.json")],
        capture_output=True, text=True, cwd=ROOT, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == (
        f"error: {tmp_path / 'c.json'}: not a readable JSON file (it nests more than 64 deep).\n"
    )
