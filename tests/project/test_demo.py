"""The site's demo page: its TypeScript against the package, and the page in a real browser.

Needs Node with npm (20 or newer), a registry or a cache that `npm ci` can ask, and for the page
Chromium and playwright. Everything is built once, into a temporary folder.
"""

import base64
import contextlib
import gzip
import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import foreign_exports
import imageio.v3 as imageio
import numpy as np
import onnx
import pytest
from policy_files import isaac_spec

from bm_envs import evaluation
from bm_envs.diffusion import sampler
from bm_envs.diffusion.costs import Corrected, Sum
from bm_envs.diffusion.model import load_model
from bm_envs.diffusion.steering import command_cost, guide_by, predicted_velocity, steering_for
from bm_envs.envs import TrackVectorEnv
from bm_envs.errors import PolicyError
from bm_envs.motion import library
from bm_envs.policy import SHIPPED, load_policy, shipped_test_vectors
from bm_envs.results import check_result
from bm_envs.robots import g1
from bm_envs.tasks.guided.states import NOW, PAST, States, states_of

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "docs/demo"
sys.path.append(str(ROOT / "benchmarks"))
demo_page = importlib.import_module("demo_page")
TRACKERS, GUIDED = ("walk", "walks", "stroll", "stride", "jog"), "guided_body_pos"
WALK_TICKS = 50
PATIENCE = 600.0  # s; networks and pictures are computed by a processor that may be busy
COMMANDS = [((0.6, 0.0, 0.0), (0.0, 0.0, 0.0), 1.0), ((0.4, 0.0, -0.5), (0.1, -0.05, 0.2), 0.36)]


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """The demo's folder with its packages, and what `export.py` writes beside it."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("no node and npm on this machine: the demo page is not built")
    version = subprocess.run([node, "--version"], capture_output=True, text=True).stdout
    if int(version.lstrip("v").split(".")[0]) < 20:
        pytest.skip(f"node {version.strip()} is older than 20: the demo page is not built")
    folder = tmp_path_factory.mktemp("demo") / "demo"
    shutil.copytree(DEMO, folder, ignore=shutil.ignore_patterns("node_modules", "dist"))
    run(sys.executable, DEMO / "export.py", folder / "dist/data", cwd=ROOT)
    done = subprocess.run(
        [npm, "ci", "--prefer-offline"], cwd=folder, capture_output=True, text=True, timeout=600
    )
    if done.returncode and any(word in done.stderr for word in ("ENOTFOUND", "ECONN", "EAI_AGAIN")):
        pytest.skip(f"npm reaches no registry: {done.stderr.strip().splitlines()[0]}")
    assert done.returncode == 0, done.stderr
    return folder


def run(*command, cwd):
    """A command that must succeed; its output."""
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, capture_output=True, text=True, timeout=600,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# --- the TypeScript against the package -----------------------------------------------------------


class Recorded:
    """A source of noise that gives what was drawn before."""

    def __init__(self, *draws):
        self.draws = list(draws)

    def standard_normal(self, shape, dtype):
        draw = self.draws.pop(0)
        assert draw.shape == tuple(shape) and draw.dtype == dtype
        return draw


def guided_case(model, frame, command, offset, share, calls):
    """A question about one tick of the diffusion model, and the package's answer."""
    clip = library.load_motion("walk")
    rng = np.random.default_rng(frame)
    rows = slice(frame - PAST + 1, frame + 1)
    qpos = clip.qpos()[rows]
    qvel = np.concatenate(
        [clip.body_lin_vel_w[rows, 0], rng.normal(0, 0.3, (PAST, 3)), clip.joint_vel[rows]], 1
    ).astype(float)
    states = rng.standard_normal((1, sampler.LENGTH, model.width), np.float32)
    actions = rng.standard_normal((1, PAST, 29), np.float32)
    question = {
        "qpos": qpos.tolist(), "qvel": qvel.tolist(), "states": states.ravel().tolist(),
        "actions": actions.ravel().tolist(), "command": command, "offset": offset,
        "share": share, "calls": calls,
    }  # fmt: skip
    window = States(*(value[None] for value in states_of(qpos, qvel)))
    past = model.representation.encode(window, NOW)
    steering = steering_for(model)
    cost = Sum([(np.array([share]), command_cost(np.array([command]), steering))])
    guide = guide_by(Corrected(cost, np.array([offset])), model, steering)

    def denoise(*inputs):
        clean, acts = model.denoise(*inputs)
        return clean, model.bound_action(acts)

    found = sampler.sample(
        denoise, model.scale(past).astype(np.float32), 29, Recorded(states, actions), steps=calls,
        guide=lambda clean, levels: model.bound(clean, guide, levels), action_steps=PAST,
    )  # fmt: skip
    answer = {
        "past": past[0], "action": model.unscale_action(found.actions[0, NOW]),
        "predicted": predicted_velocity(model, found)[0],
    }  # fmt: skip
    return question, answer


def walked(name, motion, ticks):
    """Configurations of a tracker's robot after each of its first ticks. `[ticks, 36]`."""
    policy = load_policy(name)
    task = evaluation.protocol_task(policy, "clip", failure_rules=False)
    env = TrackVectorEnv(1, motion, config=task, autoreset_mode="disabled", threads=1)
    act, (obs, _), places = evaluation.in_project_order(policy), env.reset(seed=0), []
    for _ in range(ticks):
        obs, *_ = env.step(act(obs))
        sim = env.simulator
        places.append(np.concatenate([sim.root_pos[0], sim.root_quat[0], sim.joint_pos[0]]))
    env.close()
    return np.stack(places)


@pytest.fixture(scope="session")
def answers(demo):
    """What the page's code says to questions, and what the package says."""
    model = load_model(GUIDED)
    vectors = {name: shipped_test_vectors(name)["cases"] for name in TRACKERS}
    guided = [
        guided_case(model, 200 + 50 * i, *asked, calls)
        for i, (asked, calls) in enumerate(zip(COMMANDS, (5, 10), strict=True))
    ]
    questions = {
        "trackers": [{"policy": name, "cases": cases} for name, cases in vectors.items()],
        "walk": {"policy": "walks", "motion": "turn_left", "ticks": WALK_TICKS},
        "guided": [question for question, _ in guided],
    }
    (demo / "in.json").write_text(json.dumps(questions))
    run("npm", "run", "vectors", "--", "dist/data", "in.json", "out.json", cwd=demo)
    return json.loads((demo / "out.json").read_text()), vectors, [answer for _, answer in guided]


def test_observations_and_actions_are_the_test_vectors(answers):
    found, vectors, _ = answers
    for cases, answered in zip(vectors.values(), found["trackers"], strict=True):
        assert len(cases) == len(answered) > 4
        for case, answer in zip(cases, answered, strict=True):
            np.testing.assert_allclose(answer["observation"], case["observation"], atol=1e-5)
            size = max(1.0, np.abs(case["action"]).max())
            np.testing.assert_allclose(answer["action"], case["action"], atol=1e-5 * size)


def test_the_control_loop_walks_as_the_environment_does(answers):
    """A second of it: the engines are two builds, and the network's sums have another order."""
    expected = walked("walks", "turn_left", WALK_TICKS)
    np.testing.assert_allclose(answers[0]["walk"], expected, atol=1e-3)
    assert np.abs(expected[-1] - expected[0]).max() > 0.1  # it moves


def test_the_guided_tick_is_the_packages(answers):
    found, _, expected = answers
    for answer, right in zip(found["guided"], expected, strict=True):
        for name, value in right.items():
            size = max(1.0, np.abs(value).max())
            np.testing.assert_allclose(
                np.reshape(answer[name], value.shape), value, atol=2e-5 * size, err_msg=name
            )


# --- the page -------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def site(demo):
    """A folder with the built page as `demo/`, as in the site."""
    run("npm", "run", "build", cwd=demo)
    folder = demo.parent / "site"
    folder.mkdir()
    (demo / "dist").rename(folder / "demo")
    (folder / "demo.html").touch()
    (folder / "assets/images").mkdir(parents=True)
    (folder / "assets/images/favicon.png").touch()
    return folder


@pytest.fixture(scope="module")
def view(site, chromium):
    """The page when it has loaded and a robot plays."""
    served, faults = demo_page.Served(site), []
    view = chromium.new_page(viewport={"width": 1280, "height": 760})
    view.set_default_timeout(PATIENCE * 1000)
    view.on("pageerror", lambda error: faults.append(str(error)))
    view.on(
        "request",
        lambda request: (
            faults.append(request.url)
            if not request.url.startswith((served.url.rsplit("/", 2)[0], "blob:", "data:"))
            else None
        ),
    )
    view.goto(served.url)
    view.wait_for_selector("#cover", state="hidden")
    yield view
    view.close()
    served.shutdown()
    assert faults == [] and served.missing == []
    assert {"/demo/mujoco.wasm", "/demo/onnxruntime.wasm"} <= set(served.asked)


def step(view, ticks):
    """So many control steps; the figures after them."""
    found = view.evaluate("ticks => demo.step(ticks)", ticks)
    assert "falls" in found, found
    return found


def play(view, policy, motion=None):
    found = view.evaluate("([policy, motion]) => demo.play(policy, motion ?? undefined)",
                          [policy, motion])  # fmt: skip
    assert found["kind"] == "playing", found
    return found


def drop(view, name, content):
    """Drop a file on the page, as a person does; what the page says."""
    view.evaluate(
        """([name, content]) => {
            const bytes = Uint8Array.from(atob(content), letter => letter.charCodeAt(0));
            const dropped = new DataTransfer();
            dropped.items.add(new File([bytes], name));
            window.dispatchEvent(new DragEvent("drop", {dataTransfer: dropped, cancelable: true}));
        }""",
        [name, base64.b64encode(content).decode()],
    )


def test_types_are_right(demo):
    run("npm", "run", "check", cwd=demo)


def test_what_is_sent_is_small_and_the_projects_own(site):
    """Under 15 MB compressed, runtimes included; and no motion or policy of LAFAN1."""
    files = [path for path in (site / "demo").rglob("*") if path.is_file()]
    assert sum(len(gzip.compress(path.read_bytes(), 6)) for path in files) < 15e6
    assert not [path.name for path in files if "lafan" in path.name.lower()]
    names = {path.name for path in files}
    assert {"walk.bin", "walk.onnx", "denoiser.onnx", "notices.txt", "mujoco.wasm"} <= names


def test_the_benchmark_loads_the_page_and_reads_its_speed(site, chromium, tmp_path, monkeypatch):
    """Through its command; what was sent is what the page asked for, compressed."""
    asked = []

    class Served(demo_page.Served):
        def server_close(self):
            asked.extend(self.asked)
            super().server_close()

    monkeypatch.setattr(demo_page, "Served", Served)
    monkeypatch.setattr(demo_page, "chromium", lambda: contextlib.nullcontext(chromium))
    out = tmp_path / "out.json"
    demo_page.main(demo_page.Config(site=site, loads=1, seconds=2, json=out))
    value = json.loads(out.read_text())
    value["commit"] = value["commit"] or "0" * 40
    check_result(value, "out.json")
    rows = {row["what"]: row for row in value["rows"]}
    assert list(rows) == ["load", "sent", *demo_page.POLICIES]
    assert [row["count"] for row in rows.values()] == [1, 1, 2, 2]
    # Files that are fetched for a policy later are not among those of the load.
    names = {path.partition("?")[0] for path in asked} - {"/assets/images/favicon.png"}
    later = {"/demo/data/policies/walks.onnx", *(n for n in names if "/motions/" in n)}
    files = {name: len(gzip.compress((site / name[1:]).read_bytes(), 6)) for name in names}
    least = sum(size for name, size in files.items() if name not in later)
    assert least <= 1e6 * rows["sent"]["value"] + 1e3 and rows["sent"]["value"] < 15
    assert 1e6 * rows["sent"]["value"] <= sum(files.values()) + 1e3
    assert 0 < rows["load"]["value"] and all(0 < rows[p]["value"] for p in demo_page.POLICIES)


def test_the_lock_file_names_no_registry():
    text = (DEMO / "package-lock.json").read_text()
    assert '"integrity"' in text and "resolved" not in text and "http" not in text


def test_the_page_shows_how_fast_it_is(view):
    view.wait_for_function(
        r"/real time[\d.]+ x/.test(document.getElementById('figures').textContent)"
    )


def test_a_person_drives_the_diffusion_model_and_pushes_it(view):
    assert play(view, GUIDED)["motion"] is None
    view.locator("#view").hover(position={"x": 1000, "y": 100})
    figures = step(view, 50)  # the warm-up, in which nothing is asked
    assert figures["command"] == [0, 0, 0]
    view.keyboard.down("w")
    walking = step(view, 105)
    assert walking["command"] == pytest.approx([0.6, 0, 0])
    # The mean of the last second; the benchmark's joystick asks for half of the speed.
    assert 0.4 < walking["motion"][0] < 0.8
    view.keyboard.up("w")
    # To the left by 0.5 m/s, the strongest push of the paper's.
    heading = walking["heading"]
    view.evaluate("angle => demo.push(0.5, angle)", heading + np.pi / 2)
    pushed = step(view, 5)
    way = np.subtract(pushed["place"], walking["place"])[:2]
    assert way @ [-np.sin(heading), np.cos(heading)] > 0.02
    # The pad, to its right edge: a turn to the right.
    box = view.locator("#stick").bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    view.mouse.move(*middle)
    view.mouse.down()
    view.mouse.move(box["x"] + box["width"] + 20, middle[1], steps=3)
    turned = step(view, 90)
    view.mouse.up()
    assert turned["command"] == pytest.approx([0, 0, -0.5], abs=0.05)
    assert turned["motion"][2] < -0.15
    assert turned["falls"] == 0 and not turned["down"] and turned["place"][2] > 0.6


def test_a_tracker_walks_twenty_seconds(view):
    assert play(view, "walk")["motions"] == ["walk"]
    figures = step(view, 1000)
    clip = library.load_motion("walk")
    assert figures["falls"] == 0 and figures["progress"] == pytest.approx([20.0, clip.duration_s])
    reference = clip.body_pos_w[1000, 0]
    assert np.linalg.norm(np.subtract(figures["place"], reference)) < 0.3
    assert np.linalg.norm(reference[:2] - clip.body_pos_w[0, 0, :2]) > 5  # it was a way


def test_a_drag_pulls_the_robot_and_the_tracker_goes_on(view):
    def stands(pull):
        play(view, "walks", "stand")
        step(view, 25)
        view.wait_for_timeout(500)  # until it is drawn there
        if pull:
            torso = view.evaluate("demo.onScreen(15)")
            view.mouse.move(*torso)
            view.mouse.down()
            view.mouse.move(torso[0] + 60, torso[1], steps=4)
        places = [step(view, 15)["place"]]
        if pull:
            view.mouse.up()
        return places, step(view, 100)

    (alone, _), (pulled, after) = stands(False), stands(True)
    assert np.linalg.norm(np.subtract(alone, pulled)[0, :2]) > 0.01
    assert after["falls"] == 0 and after["place"][2] > 0.6


@pytest.mark.parametrize("inside", [True, False], ids=["its motion", "a motion of the page"])
def test_a_policy_of_ones_own_is_dropped_in(view, inside):
    """One in another project's order of terms and joints walks as the same one does here."""
    spec, clip = load_policy("walks").spec, library.load_motion("turn_left")
    joints = g1.order_map(g1.JOINT_NAMES, g1.ISAAC_JOINT_NAMES)
    bodies = g1.order_map(g1.BODY_NAMES, g1.TRACKED_BODIES)
    motion = {name: getattr(clip, name)[:, joints] for name in ("joint_pos", "joint_vel")} | {
        name: getattr(clip, name)[:, bodies]
        for name in ("body_pos_w", "body_quat_w", "body_lin_vel_w", "body_ang_vel_w")
    }
    terms = spec.observation_names[::-1]
    model = foreign_exports.reordered(
        terms, g1.ISAAC_JOINT_NAMES, policy="walks", motion=motion if inside else None,
        metadata=isaac_spec(spec).to_metadata() | {"observation_names": ",".join(terms)},
    )  # fmt: skip
    name = f"mine_{inside}.onnx"
    drop(view, name, model.SerializeToString())
    view.wait_for_function(f"document.getElementById('policy').value === '{name}'")
    chosen = view.locator("#motion")
    assert chosen.input_value() == ("its own" if inside else "walk")
    if not inside:
        chosen.select_option("turn_left")
    step(view, 1)
    view.locator("#restart").click()
    figures = step(view, 100)
    assert figures["falls"] == 0 and figures["progress"][1] == pytest.approx(clip.duration_s)
    expected = walked("walks", "turn_left", 100)[-1]
    np.testing.assert_allclose(figures["place"], expected[:3], atol=0.01)


REFUSED = {
    "no ONNX file": ("notes.onnx", None),
    "lack action_scale": ("scale.onnx", {"action_scale": None}),
    "expected no histories": ("past.onnx", {"observation_history_lengths": "1,1,1,1,1,1,1,3"}),
    "it observes 'height_scan'": ("scan.onnx", {"observation_names": "height_scan"}),
    "29 joints": ("joints.onnx", {"joint_names": "left_knee_joint,right_knee_joint"}),
    "joint_stiffness of left_hip_pitch_joint is 1000000": (
        "stiff.onnx", {"joint_stiffness": ",".join(["1000000", *["100"] * 28])},
    ),
    "expected [1, 157]": (
        "size.onnx", {"observation_names": "command,motion_anchor_ori_b,motion_anchor_pos_b,"
                      "base_ang_vel,joint_pos,joint_vel,actions"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("sentence", REFUSED)
def test_a_file_that_lacks_something_is_refused_with_one_sentence(view, tmp_path, sentence):
    """The package refuses the same ones, and what played before goes on."""
    name, changes = REFUSED[sentence]
    path = tmp_path / name
    if changes is None:
        path.write_text("These are notes and no network.")
    else:
        model = onnx.load(SHIPPED / "walks.onnx")
        metadata = {entry.key: entry.value for entry in model.metadata_props} | changes
        del model.metadata_props[:]
        onnx.helper.set_model_props(model, {k: v for k, v in metadata.items() if v is not None})
        onnx.save(model, path)
    with pytest.raises(PolicyError):
        load_policy(path)
    play(view, "walks", "stand")
    drop(view, name, path.read_bytes())
    said = view.locator("#said")
    said.filter(has_text=name).wait_for()
    text = said.inner_text()
    assert text.startswith(f"{name}: ") and sentence in text and text.endswith(".")
    assert "\n" not in text and len(text) < 300
    assert view.locator("#policy").input_value() == "walks"
    assert step(view, 5)["progress"][0] == pytest.approx(0.1)


@pytest.mark.parametrize(("width", "height"), [(1280, 760), (390, 780)])
def test_the_robot_is_in_sight_at_the_size_of_a_phone_and_of_a_laptop(view, width, height):
    """Nothing lies over it, buttons and pad are whole, and it is seen against the ground."""
    view.set_viewport_size({"width": width, "height": height})
    if (width < 640) == view.locator("#panel").evaluate("panel => panel.open"):
        view.locator("summary").click()  # a phone's is shut from the start
    play(view, GUIDED)
    step(view, 1)
    view.wait_for_timeout(1000)
    for body in (0, 6, 12, 15, 22, 29):  # pelvis, feet, torso, hands
        place = view.evaluate("body => demo.onScreen(body)", body)
        assert view.evaluate("([x, y]) => document.elementFromPoint(x, y)?.id", place) == "view"
    for name in ("#push", "#restart", "#pause", "#stick", "#figures"):
        box = view.locator(name).bounding_box()
        assert box["x"] >= 0 and box["y"] >= 0
        assert box["x"] + box["width"] <= width and box["y"] + box["height"] <= height
    picture = imageio.imread(view.screenshot(timeout=PATIENCE * 1000))[..., :3].astype(int)
    x, y = map(round, view.evaluate("demo.onScreen(15)"))
    around = picture[y - 60 : y + 60, x - 30 : x + 30].reshape(-1, 3)
    assert around.max() > 200 and around.min() < 60  # its light and its dark parts
