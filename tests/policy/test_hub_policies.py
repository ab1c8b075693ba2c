"""Policies to a hub and back with the real client, against a small hub on loopback."""

import dataclasses
import hashlib
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import warm_python
from hub_server import HubServer, Model, environment
from policy_files import make_clip, make_mlp
from result_files import guided, track, track_row

from bm_envs.diffusion.model import load_model
from bm_envs.errors import HubError, PolicyError
from bm_envs.policy import (
    MOTION_OUTPUTS,
    PolicySpec,
    load_policy,
    read_onnx,
    remove_motion,
    shipped_test_vectors,
    write_onnx,
    write_policy_json,
)
from bm_envs.policy import hub as hub_files
from bm_envs.tasks.guided.config import CONFIGS

pytest.importorskip("huggingface_hub")
ROOT = Path(__file__).resolve().parents[2]
# The client reads its environment when it is imported, hence processes. `time.sleep` is its waiting
# between retries.
RUN = """
import runpy, sys, time
time.sleep = lambda seconds: None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
LOAD = """
import sys, time
time.sleep = lambda seconds: None
from bm_envs.errors import PolicyError
from bm_envs.policy import load_policy
from bm_envs.diffusion.model import load_model
try:
    found = (load_model if sys.argv[2] == "model" else load_policy)(sys.argv[1])
    print(found.name)
    print(found.sha256)
except PolicyError as error:
    print(f"PolicyError: {error}")
"""


@pytest.fixture
def server():
    with HubServer({}) as running:
        yield running


@pytest.fixture
def home(tmp_path):
    return tmp_path / "hf_home"


def command(server, home, *arguments, script="tools/hub.py", token="hf_test", expect=0, **more):
    given = {"HF_HUB_DISABLE_XET": "1", **({"HF_TOKEN": token} if token else {}), **more}
    done = warm_python.run(
        [sys.executable, "-c", RUN, str(ROOT / script), *map(str, arguments)],
        env=environment(server.url, home, **given), capture_output=True, text=True, timeout=300,
        cwd=home.parent,
    )  # fmt: skip
    assert done.returncode == expect, done.stderr
    return done


def refused(server, home, *arguments, **more):
    """The one sentence of a command that ends with status 2; the client may warn before it."""
    done = command(server, home, *arguments, expect=2, **more)
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and done.stderr.rstrip().endswith(lines[0]), done.stderr
    return lines[0].removeprefix("error: ")


def load(server, home, reference, what="policy", **more):
    given = {"HF_HUB_DISABLE_XET": "1", **more}
    done = warm_python.run(
        [sys.executable, "-c", LOAD, reference, what], env=environment(server.url, home, **given),
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def make_run(folder, *, licence="Apache-2.0", name="wiggle", seed=0, results=True):
    """A run directory with a small network, its motion inside, and all that training leaves."""
    folder.mkdir(parents=True)
    clip = dataclasses.replace(make_clip(), licence=licence, name=name)
    spec = PolicySpec.for_g1()
    write_onnx(folder / "policy.onnx", make_mlp(hidden=(16,), seed=seed), spec, clip)
    write_policy_json(
        folder / "policy.json", spec, onnx_file=folder / "policy.onnx", motions=[clip],
        embedded=True, licence="Apache-2.0",
        training={"algorithm": "ppo_track", "env_steps": 2_500_000, "wall_s": 240.0},
    )  # fmt: skip
    for left, text in {
        "checkpoint.pt": "a pickle", "events.out.tfevents.1": "events", "train.py": "print()",
        "metrics.jsonl": '{"step": 1}\n', "config.json": '{"seed": 1}\n',
    }.items():  # fmt: skip
        (folder / left).write_text(text)
    if results:
        (folder / "results").mkdir()
        row = {"policy": "run", "motion": "walk", "suite": "builtin"}
        robust = {"protocol": "robust", "episodes": 100, "success": 0.98, "survival_s": 24.3,
                  "success_ci95": [0.9299882098, 0.9944965]}  # fmt: skip
        sha256 = hashlib.sha256((folder / "policy.onnx").read_bytes()).hexdigest()
        value = track(track_row(**row), track_row(**row, **robust), policy_sha256=sha256)
        (folder / "results" / "out.json").write_text(json.dumps(value))
    return folder


PUSHED = {
    "README.md", "SHA256SUMS", "config.json", "metrics.jsonl", "policy.json", "policy.onnx",
    "results/out.json",
}  # fmt: skip


def files_in(folder):
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


# --- there and back ---


def test_a_policy_goes_there_and_comes_back(server, home, tmp_path):
    run = make_run(tmp_path / "run")
    done = command(server, home, "push", run, "me/wiggle")
    model = server.models["me/wiggle"]
    assert not model.private and len(model.commits) == 2  # made, and one commit
    assert set(model.commits[model.head]) - {".gitattributes"} == PUSHED
    assert f"policy hub:me/wiggle@{model.head}" in done.stdout

    elsewhere = tmp_path / "elsewhere"
    done = command(server, tmp_path / "other_home", "pull", "me/wiggle", elsewhere, token=None)
    assert done.stdout == f"hub:me/wiggle@{model.head} in {elsewhere} (7 files)\n"
    assert files_in(elsewhere) == PUSHED | {"hub.json"}
    assert not any(path.is_symlink() for path in elsewhere.rglob("*"))
    told = json.loads((elsewhere / "hub.json").read_text())
    assert (told["repository"], told["commit"]) == ("me/wiggle", model.head)
    for name, digest in told["sha256"].items():
        content = (elsewhere / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == digest
        assert content == model.commits[model.head][name]
    sums = (elsewhere / "SHA256SUMS").read_text().splitlines()
    assert dict(line.split("  ")[::-1] for line in sums) == {
        name: digest for name, digest in told["sha256"].items() if name != "SHA256SUMS"
    }
    obs = np.random.default_rng(0).normal(size=(64, 160)).astype(np.float32)
    np.testing.assert_array_equal(load_policy(elsewhere)(obs), load_policy(run)(obs))
    info = load_policy(elsewhere).info
    assert info["licence"] == "Apache-2.0" and info["training"]["env_steps"] == 2_500_000


def test_the_card_holds_the_evaluation_as_the_hub_reads_it(server, home, tmp_path):
    from huggingface_hub import ModelCard

    run = make_run(tmp_path / "run")
    (tmp_path / "look.png").write_bytes(b"picture")
    command(server, home, "push", run, "me/wiggle", "--stage", tmp_path / "staged", "--picture",
            tmp_path / "look.png", "--training-command", "python algos/ppo_track.py --motion x",
            token=None)  # fmt: skip
    assert not server.requests  # nothing is pushed, nobody is asked
    assert files_in(tmp_path / "staged") == PUSHED | {"picture.png"}
    found = ModelCard.load(tmp_path / "staged" / "README.md")
    data = found.data
    assert (data.license, data.library_name, data.pipeline_tag, data.model_name) == (
        "apache-2.0", "bm-envs", "robotics", "wiggle",
    )  # fmt: skip
    assert "BMTrack-G1-v0" in data.tags
    rates = {
        (result.dataset_config, result.dataset_split): (result.metric_value, result.dataset_args)
        for result in data.eval_results
        if result.metric_type == "success"
    }
    assert rates == {
        ("walk", "clip"): (1.0, {"episodes": 1, "backend": "mujoco"}),
        ("walk", "robust"): (0.98, {"episodes": 100, "backend": "mujoco"}),
    }
    errors = [r.metric_value for r in data.eval_results if r.metric_type == "r_mpkpe_mm"]
    assert errors == [33.92, 33.92]
    for line in (
        "| walk, robust | 98.0% | 93.0% to 99.4% | 100 | 33.9 |",
        "python algos/ppo_track.py --motion x", "![wiggle](picture.png)",
        "2.5 million control steps; 4 minutes.", "`config.json` has every setting.",
        "Motion `wiggle` (Apache-2.0): inside the file.", "--policy hub:me/wiggle",
    ):  # fmt: skip
        assert line in found.text, line


def test_a_push_replaces_and_a_revision_stays(server, home, tmp_path):
    command(server, home, "push", make_run(tmp_path / "one"), "me/wiggle")
    model = server.models["me/wiggle"]
    first = model.head
    second_run = make_run(tmp_path / "two", seed=5, results=False)
    (second_run / "metrics.jsonl").unlink()
    command(server, home, "push", second_run, "me/wiggle", "--message", "better")
    assert len(model.commits) == 3 and model.messages[-1] == "better"
    assert set(model.commits[model.head]) == PUSHED - {"metrics.jsonl", "results/out.json"} | {
        ".gitattributes"
    }
    model.tags["v1"] = first
    digest = {
        name: hashlib.sha256((tmp_path / name / "policy.onnx").read_bytes()).hexdigest()
        for name in ("one", "two")
    }
    for reference, commit, which in (
        ("hub:me/wiggle", model.head, "two"), ("hub:me/wiggle@v1", first, "one"),
        (f"hub:me/wiggle@{first}", first, "one"),
    ):  # fmt: skip
        assert load(server, home, reference) == [f"me/wiggle@{commit[:10]}", digest[which]]
    asked = len(server.requests)
    assert load(server, home, f"hub:me/wiggle@{first}")[1] == digest["one"]
    assert len(server.requests) == asked  # a commit that is here needs no network
    assert load(server, home, "hub:me/wiggle@v1", HF_HUB_OFFLINE="1")[1] == digest["one"]


def test_commands_take_policies_of_the_hub(server, home, tmp_path):
    command(server, home, "push", make_run(tmp_path / "run"), "me/wiggle")
    head = server.models["me/wiggle"].head
    command(server, home, "--policy", "hub:me/wiggle", "--motion", "stand[0:0.3]", "--protocol",
            "clip", "--json", tmp_path / "out.json", script="benchmarks/track.py")  # fmt: skip
    (row,) = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert row["policy"] == f"me/wiggle@{head[:10]}"


def test_results_of_every_guided_task_go_on_the_card(server, home, tmp_path):
    digest = load_model("guided_body_pos").sha256
    for task in CONFIGS:
        file = guided()
        file["rows"][0]["task"] = task
        file["settings"]["policy_sha256"] = digest
        (tmp_path / f"{task}.json").write_text(json.dumps(file))
    command(server, home, "push", "guided_body_pos", "me/guided", "--stage", tmp_path / "staged",
            "--results", *(tmp_path / f"{task}.json" for task in CONFIGS), token=None)  # fmt: skip
    from huggingface_hub import ModelCard

    data = ModelCard.load(tmp_path / "staged" / "README.md").data
    rates = {r.dataset_name: r.metric_value for r in data.eval_results if "rate" in r.metric_type}
    assert rates == dict.fromkeys(CONFIGS, 0.8)


def test_a_diffusion_model_goes_the_same_way(server, home):
    shipped = ROOT / "bm_envs" / "assets" / "policies" / "guided_body_pos"
    command(server, home, "push", "guided_body_pos", "me/guided", "--licence", "MIT", "--private")
    model = server.models["me/guided"]
    assert model.private
    assert set(model.commits[model.head]) - {".gitattributes"} == {
        "README.md", "SHA256SUMS", "denoiser.onnx", "policy.json",
    }  # fmt: skip
    digest = hashlib.sha256((shipped / "denoiser.onnx").read_bytes()).hexdigest()
    found = load(server, home, "hub:me/guided", "model", HF_TOKEN="hf_test")
    assert found == [f"me/guided@{model.head[:10]}", digest]
    (sentence,) = load(server, home, "hub:me/guided", HF_TOKEN="hf_test")
    assert sentence.startswith("PolicyError: ") and "holds no policy.onnx" in sentence


@pytest.mark.parametrize("name", ["walk", pytest.param("lafan1_walk3", marks=pytest.mark.clone)])
def test_a_shipped_tracker_takes_its_test_vectors_along(server, home, name):
    command(server, home, "push", name, "me/walk")
    model = server.models["me/walk"]
    pushed = json.loads(model.commits[model.head]["policy_vectors.json"])
    assert pushed == shipped_test_vectors(name)


# --- motions ---


@pytest.mark.parametrize(
    ("licence", "name", "under"),
    [
        ("CC BY-NC-ND 4.0", "wiggle", "'wiggle' under CC BY-NC-ND 4.0"),
        ("Apache-2.0", "dance1_subject1[0:10]", "'dance1_subject1[0:10]' under CC BY-NC-ND 4.0"),
        *(
            ("Apache-2.0", name, f"'{name}' under CC BY-NC-ND 4.0")
            for name in ("dance1_subject1~repaired", "dance1_subject1~repaired[0:10]")
        ),
        ("", "wiggle", "'wiggle' under a licence that it does not tell"),
    ],
)
def test_a_motion_that_may_not_be_passed_on_stays(server, home, tmp_path, licence, name, under):
    run = make_run(tmp_path / "run", licence=licence, name=name)
    assert refused(server, home, "push", run, "me/wiggle") == (
        f"{run / 'policy.onnx'}: holds the motion {under}, which may not be passed on; give "
        "--no-motion."
    )
    assert not server.models
    command(server, home, "push", run, "me/wiggle", "--no-motion", "--stage", tmp_path / "staged")
    policy = load_policy(tmp_path / "staged")
    assert policy.motion is None and policy.spec.extra["motion_name"] == name
    assert policy.info["motions"][0]["embedded"] is False
    assert policy.info["network"]["sha256"] == policy.sha256
    assert "not part of these files" in (tmp_path / "staged" / "README.md").read_text()
    # Its results are of the file that it was made from; a second push of it takes them, too.
    again = tmp_path / "again"
    command(server, home, "push", tmp_path / "staged", "me/wiggle", "--stage", again)
    assert (again / "policy.onnx").read_bytes() == (tmp_path / "staged/policy.onnx").read_bytes()


@pytest.mark.parametrize("residual", [False, True])
def test_without_the_motion_the_actions_are_the_same(tmp_path, residual):
    clip, spec = make_clip(), PolicySpec.for_g1()
    mlp = make_mlp(hidden=(16,), residual=residual)
    write_onnx(tmp_path / "with.onnx", mlp, spec, clip)
    remove_motion(tmp_path / "with.onnx", tmp_path / "without.onnx")
    obs = np.random.default_rng(1).normal(size=(32, 160)).astype(np.float32)
    before, after = load_policy(tmp_path / "with.onnx"), load_policy(tmp_path / "without.onnx")
    np.testing.assert_array_equal(before(obs), after(obs))
    model = read_onnx(tmp_path / "without.onnx")
    assert [value.name for value in model.graph.input] == ["obs"]
    assert [value.name for value in model.graph.output] == ["actions"]
    assert not {t.name for t in model.graph.initializer} & {f"motion_{n}" for n in MOTION_OUTPUTS}
    table = np.asarray(clip.joint_pos[3], np.float32).tobytes()
    assert table in (tmp_path / "with.onnx").read_bytes()  # the premise
    assert table not in (tmp_path / "without.onnx").read_bytes()
    extra = {**before.spec.extra, "motion_embedded": "0"}
    extra["motion_removed_from_sha256"] = before.sha256
    del extra["motion_hold_last_frame"]
    assert after.spec == dataclasses.replace(before.spec, extra=extra)


# --- what goes wrong on the way there ---


def test_pushing_needs_to_be_allowed(server, home, tmp_path):
    run = make_run(tmp_path / "run")
    for token in (None, "hf_wrong"):
        assert refused(server, home, "push", run, "me/wiggle", token=token) == (
            "hub:me/wiggle: the Hub refuses it (401); log in with 'hf auth login' or set HF_TOKEN."
        )
    assert not server.models


def test_an_upload_that_breaks_leaves_the_repository_as_it_was(server, home, tmp_path):
    command(server, home, "push", make_run(tmp_path / "one"), "me/wiggle")
    model = server.models["me/wiggle"]
    before = dict(model.commits)
    server.drop_uploads = 1000
    sentence = refused(server, home, "push", make_run(tmp_path / "two", seed=1), "me/wiggle")
    assert sentence.startswith("hub:me/wiggle: the upload failed (")
    assert model.commits == before
    server.drop_uploads = 1
    command(server, home, "push", tmp_path / "two", "me/wiggle")  # a retry goes through
    assert server.drop_uploads == 0 and len(model.commits) == len(before) + 1


def test_pushing_without_a_network(server, home, tmp_path):
    run = make_run(tmp_path / "run")
    assert refused(server, home, "push", run, "me/wiggle", HF_HUB_OFFLINE="1") == (
        "hub:me/wiggle: nothing was pushed and HF_HUB_OFFLINE is set."
    )
    server.down = True
    assert refused(server, home, "push", run, "me/wiggle").startswith(
        "hub:me/wiggle: the upload failed ("
    )


def test_what_is_not_pushed(server, home, tmp_path):
    run = make_run(tmp_path / "run")
    other = make_run(tmp_path / "other", seed=3)
    absent = tmp_path / "absent.png"
    bad = tmp_path / "bad.json"
    value = json.loads((run / "results" / "out.json").read_text())
    value["rows"][0]["success"] = 1.7
    bad.write_text(json.dumps(value))
    for arguments, sentence in (
        (("run/none", "me/x"), "run/none: no such policy file or run directory."),
        (("wlak", "me/x"), "Unknown policy 'wlak'; did you mean 'walk'"),
        ((run, "mine"), "'mine': is no policy of the Hub, expected hub:OWNER/NAME[@REVISION]."),
        ((run, "me/x@v1"), "'me/x@v1': a push makes a revision, expected OWNER/NAME."),
        ((run, "me/x", "--results", other / "results" / "out.json"), "is not about this policy"),
        ((run, "me/x", "--results", bad), "row 1: success is 1.7, expected a number of 0 to 1."),
        ((run, "me/x", "--results", run / "results" / "out.json"), "Two result files are called"),
        ((run, "me/x", "--picture", absent), f"{absent}: no such picture, expected a file in"),
    ):
        found = refused(server, home, "push", *arguments)
        assert sentence in found, found
    described = json.loads((run / "policy.json").read_text())
    (run / "policy.json").write_text(json.dumps({**described, "licence": ""}))
    assert "nobody says under which terms" in refused(server, home, "push", run, "me/x")
    (run / "policy.onnx").write_bytes((other / "policy.onnx").read_bytes())
    assert "is about a network with SHA-256" in refused(server, home, "push", run, "me/x")
    (run / "policy.json").unlink()
    assert "has no description, expected policy.json" in refused(server, home, "push", run, "me/x")
    assert not server.models


def test_a_path_of_a_machine_stays(server, home, tmp_path):
    run = make_run(tmp_path / "run")
    (run / "config.json").write_text('{"run_dir": "/home/me/runs/x"}')
    done = command(server, home, "push", run, "me/x", "--stage", tmp_path / "staged")
    assert "config.json holds the path '/home/me/runs/x" in done.stdout
    assert files_in(tmp_path / "staged") == PUSHED - {"config.json"}


# --- what goes wrong on the way back ---


@pytest.fixture
def pushed(server, home, tmp_path):
    """A repository as a push leaves it."""
    command(server, home, "push", make_run(tmp_path / "run"), "me/wiggle", "--stage",
            tmp_path / "staged")  # fmt: skip
    model = server.models["me/wiggle"] = Model()
    names = files_in(tmp_path / "staged")
    model.commit({name: (tmp_path / "staged" / name).read_bytes() for name in names})
    return model


def test_what_is_not_there_is_told(server, home, tmp_path, pushed):
    pushed.private = True
    out = tmp_path / "out"
    for reference, sentence in (
        ("me/wiggle", "hub:me/wiggle: the Hub has no such model, or not for everyone."),
        ("me/none", "hub:me/none: the Hub has no such model, or not for everyone."),
        ("me/a--x", "hub:me/a--x: is no name of a repository, expected OWNER/NAME."),
        ("wiggle", "'hub:wiggle': is no policy of the Hub, expected hub:OWNER/NAME[@REVISION]."),
    ):
        assert refused(server, home, "pull", reference, out, token=None) == sentence
        assert not out.exists() and not list(tmp_path.glob(".out*"))
    assert refused(server, home, "pull", "me/wiggle@v9", out) == (
        "hub:me/wiggle@v9: the Hub has no such revision of this model."
    )
    assert load(server, home, "hub:me/wiggle") == [
        "PolicyError: hub:me/wiggle: the Hub has no such model, or not for everyone."
    ]
    command(server, home, "pull", "me/wiggle", out)  # with a token
    assert files_in(out) == PUSHED | {"hub.json"}


def test_an_interrupted_transfer_leaves_nothing_and_goes_on(server, home, tmp_path, pushed):
    out = tmp_path / "out"
    key = "me/wiggle/policy.onnx"
    server.sent[key] = pushed.commits[pushed.head]["policy.onnx"][:3000]
    sentence = refused(server, home, "pull", "me/wiggle", out)
    assert sentence.startswith("hub:me/wiggle: the download failed (")
    assert not out.exists() and not list(tmp_path.glob(".out*"))
    server.sent.clear()
    server.drop = 1  # cut in the middle, and taken up again by the client
    command(server, home, "pull", "me/wiggle", out)
    assert server.drop == 0 and files_in(out) == PUSHED | {"hub.json"}


def test_without_a_network_what_is_here_is_used(server, home, tmp_path, pushed):
    sentence = "hub:me/wiggle: is not in the Hub cache and"
    assert refused(server, home, "pull", "me/wiggle", tmp_path / "a", HF_HUB_OFFLINE="1") == (
        f"{sentence} HF_HUB_OFFLINE is set."
    )
    server.down = True
    assert refused(server, home, "pull", "me/wiggle", tmp_path / "a") == (
        f"{sentence} {server.url} gave no answer."
    )
    server.down = False
    command(server, home, "pull", "me/wiggle", tmp_path / "a")
    command(server, home, "pull", "me/wiggle", tmp_path / "b", HF_HUB_OFFLINE="1")
    assert files_in(tmp_path / "a") == files_in(tmp_path / "b")


def test_a_file_with_another_digest_is_never_used(server, home, tmp_path, pushed):
    files = dict(pushed.commits[pushed.head])
    files["policy.json"] = files["policy.json"].replace(b"Apache-2.0", b"Apache-2.1")
    pushed.commit(files)
    out = tmp_path / "out"
    sentence = refused(server, home, "pull", "me/wiggle", out)
    assert re.fullmatch(
        r"hub:me/wiggle: policy.json has SHA-256 \w{12}\.\.\., expected \w{12}\.\.\. of its "
        r"SHA256SUMS; nothing of it is used\.",
        sentence,
    )
    assert not out.exists()
    assert load(server, home, "hub:me/wiggle") == [f"PolicyError: {sentence}"]


def test_files_that_could_be_executed_are_not_fetched(server, home, tmp_path, pushed):
    files = dict(pushed.commits[pushed.head])
    pushed.commit({**files, "policy.pt": b"pickle", "setup.py": b"import os", ".bashrc": b"x"})
    command(server, home, "pull", "me/wiggle", tmp_path / "out")
    assert files_in(tmp_path / "out") == PUSHED | {"hub.json"}
    assert not [line for line in server.requests if "policy.pt" in line or "setup.py" in line]


def test_a_repository_without_a_policy(server, home, tmp_path):
    server.models["me/text"] = Model()
    server.models["me/text"].commit({"README.md": b"# text"})
    assert refused(server, home, "pull", "me/text", tmp_path / "out") == (
        "hub:me/text: holds no policy.onnx or denoiser.onnx."
    )
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_there_is_not_touched(server, home, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    assert refused(server, home, "pull", "me/wiggle", tmp_path / "out") == (
        f"{tmp_path / 'out'}: is there already, expected a name for a new folder."
    )
    assert files_in(tmp_path / "out") == {"mine"} and not server.requests


EVIL = b'{"evil": 1}'


@pytest.mark.parametrize(
    "name",
    ["../../evil.json", "results/../../evil.json", "..\\evil.json", "evil\0.json", ".git/evil.json",
     "x" * 300 + "evil.json"],
)  # fmt: skip
def test_names_that_lead_out_of_the_folder(server, home, tmp_path, pushed, name):
    files = dict(pushed.commits[pushed.head])
    del files["SHA256SUMS"]  # whose list would refuse them all
    pushed.commit({**files, name: EVIL})
    before = files_in(tmp_path)
    sentence = refused(server, home, "pull", "me/wiggle", tmp_path / "out")
    assert sentence.startswith("hub:me/wiggle: ") and sentence.isprintable()
    new = {path for path in files_in(tmp_path) - before if not path.startswith(home.name)}
    assert not new and not [path for path in tmp_path.parent.glob("evil*")]
    for path in home.rglob("*evil*"):
        assert path.resolve().is_relative_to(home.resolve())


@pytest.mark.parametrize("commit", ["..", "x" * 5000])
def test_a_commit_that_is_a_path(server, home, tmp_path, pushed, commit):
    pushed.commits[commit] = pushed.commits.pop(pushed.head)
    pushed.tags["main"] = commit
    before = files_in(tmp_path)
    sentence = refused(server, home, "pull", "me/wiggle", tmp_path / "out")
    assert sentence.startswith("hub:me/wiggle: ") and sentence.isprintable()
    assert len(sentence) < 400
    assert not {p for p in files_in(tmp_path) - before if not p.startswith(home.name)}


HTML = b"<!doctype html><html><body>Please log in</body></html>"


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("policy.onnx", HTML, "policy.onnx: not a readable ONNX model"),
        ("policy.json", HTML, "policy.json: not a readable JSON file"),
        ("results/out.json", HTML, "results/out.json: not a readable JSON file"),
    ],
)
def test_a_page_in_place_of_a_file(server, home, tmp_path, pushed, name, content, told):
    files = dict(pushed.commits[pushed.head])
    del files["SHA256SUMS"]
    pushed.commit({**files, name: content})
    sentence = refused(server, home, "pull", "me/wiggle", tmp_path / "out")
    assert sentence.startswith(f"hub:me/wiggle: {told}")
    assert sentence.endswith("; nothing of it is used.")
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))


@pytest.mark.parametrize("change", ["longer", "other"])
def test_a_transfer_that_is_not_what_was_announced(server, home, tmp_path, pushed, change):
    true = pushed.commits[pushed.head]["policy.onnx"]
    server.sent["me/wiggle/policy.onnx"] = {
        "longer": true + b"x", "other": bytes(len(true)),
    }[change]  # fmt: skip
    sentence = refused(server, home, "pull", "me/wiggle", tmp_path / "out")
    assert "Consistency check failed" in sentence or "has SHA-256" in sentence
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))


@pytest.mark.parametrize(
    "sums", [HTML, b"\xff\x00" * 10**6, b"0" * 64 + b"  "]
)  # fmt: skip
def test_sums_that_are_none(server, home, tmp_path, pushed, sums):
    pushed.commit({**pushed.commits[pushed.head], "SHA256SUMS": sums})
    sentence = refused(server, home, "pull", "me/wiggle", tmp_path / "out")
    assert "its SHA256SUMS has the line '" in sentence and len(sentence) < 300
    assert sentence.isprintable() and not (tmp_path / "out").exists()


def test_an_answer_of_another_shape(server, home, tmp_path, pushed, monkeypatch):
    import hub_server

    send = hub_server._Handler._json
    for answer in ([], {"sha": 3, "siblings": 3}):
        monkeypatch.setattr(
            hub_server._Handler, "_json", lambda self, value, status=200, a=answer: send(self, a)
        )
        sentence = refused(server, home, "pull", "me/wiggle", tmp_path / "out")
        assert sentence.startswith("hub:me/wiggle: ") and len(sentence) < 400
        assert not (tmp_path / "out").exists()


# --- sums and names ---


def test_sums(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.json").write_text("{}")
    (tmp_path / "y.onnx").write_text("y")
    assert set(hub_files.check_sums(tmp_path, "here")) == {"a/x.json", "y.onnx"}
    hub_files.write_sums(tmp_path)
    assert len(hub_files.check_sums(tmp_path, "here")) == 3
    (tmp_path / "more.json").write_text("{}")
    with pytest.raises(HubError, match="here: more.json is not in its SHA256SUMS"):
        hub_files.check_sums(tmp_path, "here")
    (tmp_path / "more.json").unlink()
    (tmp_path / "y.onnx").unlink()
    with pytest.raises(HubError, match="here: y.onnx of its SHA256SUMS is missing"):
        hub_files.check_sums(tmp_path, "here")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hub:me/walk", ("me/walk", None)),
        ("me/walk@v1.0", ("me/walk", "v1.0")),
        ("hub:me/walk@refs/pr/3", ("me/walk", "refs/pr/3")),
        ("hub:walk", None),
        ("hub:me/walk/more", None),
        ("hub:../walk", None),
        ("hub:me/walk@../x", None),
        ("hub:me/walk@", None),
    ],
)
def test_references(text, expected):
    if expected is not None:
        assert hub_files.parse_reference(text) == expected
        return
    with pytest.raises(HubError, match=re.escape(f"'{text}': is no policy of the Hub")):
        hub_files.parse_reference(text)


def test_without_the_client(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", None)
    with pytest.raises(PolicyError) as caught:
        load_policy("hub:me/walk")
    assert str(caught.value) == (
        "hub:me/walk: fetching it from the Hub needs the package huggingface_hub: pip install"
        " 'bm-envs[hub]'."
    )
