"""The site: built without warnings, complete in itself, its tables against facts and behaviour."""

import ast
import dataclasses
import importlib
import json
import os
import re
import subprocess
import sys
import types
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import gymnasium
import numpy as np
import pytest
import tyro
from golden import tracking_facts as facts
from mkdocs.exceptions import PluginError
from mkdocs.utils import yaml_load

import bm_envs
from bm_envs.results import ERROR_HEADS

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
for folder in ("docs", "algos"):
    sys.path.insert(0, str(ROOT / folder))
hooks = importlib.import_module("hooks")
site_tables = importlib.import_module("site_tables")
guided_tables = importlib.import_module("guided_tables")
lafan1_tables = importlib.import_module("lafan1_tables")
learning_tables = importlib.import_module("learning_tables")
results_tables = importlib.import_module("results_tables")
glossary_tables = importlib.import_module("glossary_tables")
choices_tables = importlib.import_module("choices_tables")
robustness_tables = importlib.import_module("robustness_tables")
motions_tables = importlib.import_module("motions_tables")
tour_tables = importlib.import_module("tour_tables")
human_tables = importlib.import_module("human_tables")
latent_tables = importlib.import_module("latent_tables")
deployment_tables = importlib.import_module("deployment_tables")
drawing = importlib.import_module("drawing")

IDS = [name for name in gymnasium.registry if name.startswith("BM")]
ENVIRONMENTS = {  # page of each id
    re.search(r"<!-- environment (\S+) -->", path.read_text())[1]: f"environments/{path.stem}.html"
    for path in (DOCS / "environments").glob("*.md")
}
# What makes a browser fetch something when a page is opened.
LOADING = {"src", "srcset", "poster", "data", "background", "action"}
LOADING_LINKS = {"stylesheet", "icon", "preload", "prefetch", "modulepreload", "preconnect"}


class Page(HTMLParser):
    """What a built page loads and links to, its ids, formulas, text and tables."""

    def __init__(self, text):
        super().__init__()
        self.loads, self.links, self.ids, self.classes = [], [], set(), set()
        self.formulas, self.scripts, self.tables = 0, [], []
        self.cell, self.inside = None, None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.inside = tag if tag in ("script", "style") else None
        self.ids.add(found.get("id"))
        self.classes.update((found.get("class") or "").split())
        self.loads += [found[name] for name in LOADING & found.keys() if found[name]]
        if tag == "link" and LOADING_LINKS & set((found.get("rel") or "").split()):
            self.loads.append(found["href"])
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        self.formulas += tag == "math"
        if tag == "table":
            self.tables.append([])
        elif tag == "tr" and self.tables:
            self.tables[-1].append([])
        elif tag in ("td", "th") and self.tables:
            self.cell = ""

    def handle_endtag(self, tag):
        self.inside = None
        if tag in ("td", "th") and self.cell is not None:
            self.tables[-1][-1].append(self.cell.strip())
            self.cell = None

    def handle_data(self, data):
        if self.inside:
            self.scripts.append(data)
        if self.cell is not None:
            self.cell += data

    def table(self, *heads):
        """Rows of the first table whose first heads are these, by their first cell."""
        rows = next(t for t in self.tables if tuple(t[0][: len(heads)]) == heads)
        return {row[0]: dict(zip(rows[0], row, strict=True)) for row in rows[1:]}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file",
         str(ROOT / "mkdocs.yml"), "--site-dir", str(folder)],
        capture_output=True, text=True, cwd=folder, timeout=600,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},  # the theme's own notice
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr and "ERROR" not in done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site):
    return {
        path.relative_to(site).as_posix(): Page(path.read_text()) for path in site.rglob("*.html")
    }


# --- the site as a whole --------------------------------------------------------------------------


def test_every_page_of_the_repository_is_in_the_site(pages):
    written = {Path(page).with_suffix(".html").as_posix() for page in hooks.own_pages(DOCS)}
    others = {
        "index", "quickstart", "contributing", "changelog", "third_party_notices", "404",
        "demo/index",
    }  # fmt: skip
    assert pages.keys() == written | {f"{name}.html" for name in others}
    assert len(written) > 15


def test_pages_load_nothing_from_other_hosts(site, pages):
    for name, page in pages.items():
        assert page.loads, name
        for address in page.loads:
            parts = urlsplit(address)
            assert not parts.scheme and not parts.netloc, f"{name} loads {address}"
            target = (site / name).parent / unquote(parts.path)
            if name == "404.html":  # which is served from anywhere, so its addresses begin at /
                target = site / unquote(parts.path).lstrip("/")
            assert target.is_file(), f"{name} loads {address}, which is not there"
        assert not re.search(r"https?://|url\(|import\(", "".join(page.scripts)), name
    styles = list(site.rglob("*.css"))
    assert styles
    for path in styles:
        text = path.read_text()
        assert "@import" not in text
        for address in re.findall(r"url\(\s*['\"]?(.*?)['\"]?\s*\)", text):
            assert re.match(r"data:|#", address) or (path.parent / address).is_file(), address


def test_the_theme_is_given_no_reason_to_fetch(pages):
    """Its script asks other hosts for diagrams (class `mermaid`) and a repository's figures."""
    for name, page in pages.items():
        assert not page.classes & {"mermaid", "md-source", "md-source__repository"}, name


def test_links_lead_somewhere(site, pages):
    checked = 0
    for name, page in pages.items():
        if name == "404.html":
            continue
        for address in page.links:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            path = ((site / name).parent / unquote(parts.path)).resolve() if parts.path else None
            target = name if path is None else path.relative_to(site.resolve()).as_posix()
            assert (site / target).is_file(), f"{name}: {address}"
            if parts.fragment and target.endswith(".html") and parts.fragment != "__top":
                assert unquote(parts.fragment) in pages[target].ids, f"{name}: {address}"
            checked += 1
    assert checked > 500


def test_formulas_are_drawn_by_the_browser_itself(site, pages):
    source = re.sub(r"```.*?```|`.*?`", "", (DOCS / "method.md").read_text(), flags=re.S)
    displayed = len(re.findall(r"\$\$.+?\$\$", source, re.S))
    inline = len(re.findall(r"\$[^$]+\$", re.sub(r"\$\$.+?\$\$", "", source, flags=re.S)))
    assert displayed > 15 and inline > 20
    assert pages["method.html"].formulas == displayed + inline
    text = (site / "method.html").read_text()
    assert "arithmatex" not in text and r"\frac" not in text
    half = hooks.on_page_content(r'<span class="arithmatex">\(\frac{1}{2} &lt; x\)</span>')
    # MathML Core: a fraction is <mfrac> of numerator and denominator.
    assert "<mfrac><mrow><mn>1</mn></mrow><mrow><mn>2</mn></mrow></mfrac>" in half
    assert "<mo>&#x0003C;</mo>" in half and half.startswith("<math ")


def test_a_marker_that_names_no_table_is_one_sentence():
    page = types.SimpleNamespace(file=types.SimpleNamespace(src_uri="environments/x.md"))
    for marker, text in (
        ("<!-- tabel x -->", "environments/x.md: no table 'tabel', expected one of environment, "),
        ("<!-- settings algos/ppo_track.py Nothing -->", "algos/ppo_track.py has no class Nothing"),
        ("<!-- results throughput -->", "throughput.json is of kind 'throughput', expected "),
        ("<!-- results nothing -->", "environments/x.md: .*nothing.json"),
    ):
        with pytest.raises(PluginError, match=text):
            hooks.on_page_markdown(f"text\n\n{marker}\n", page, None, None)
    # Comments in the middle of a line are none of ours.
    assert site_tables.fill("a <!-- tabel --> b") == "a <!-- tabel --> b"


def test_who_reads_a_page_in_the_repository_is_told_of_the_site_s_tables():
    line, pages = site_tables.ON_THE_SITE, [DOCS / page for page in hooks.own_pages(DOCS)]
    texts = [page.read_text() for page in pages]
    assert sum(len(site_tables.MARKER.findall(text)) for text in texts) > 20
    for page, text in zip(pages, texts, strict=True):
        for found in site_tables.MARKER.finditer(text):
            assert found[0].startswith(line), (page, found[0])
    marker = "<!-- settings algos/ppo_guided.py Weights -->"
    assert site_tables.fill(f"{line}\n{marker}\n") == site_tables.fill(f"{marker}\n")


def test_pages_that_the_navigation_does_not_name_are_put_under_more(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("a.md", "b.md", "sub/c.md"):
        (tmp_path / name).touch()
    config = types.SimpleNamespace(docs_dir=str(tmp_path), nav=[{"Home": "a.md"}])
    hooks.on_config(config)
    assert config.nav == [{"Home": "a.md"}, {"More": ["b.md", "sub/c.md"]}]
    config.nav = [{"Home": "a.md"}, {"Rest": [{"B": "b.md"}, "sub/c.md"]}]
    hooks.on_config(config)
    assert len(config.nav) == 2


def test_the_demo_is_in_the_site_as_it_was_built(tmp_path):
    """Scripts without their data are no page."""
    files = {"main.js": "built", "mujoco.wasm": "", "data/settings.json": "{}"}
    texts = []
    for name in files:
        (tmp_path / "dist" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "dist" / name).write_text(files[name])
        found = hooks.demo_files(tmp_path)
        texts.append(found["main.js"] if isinstance(found["main.js"], str) else "as built")
    assert "made without the demo" in texts[0] and texts == [texts[0], texts[0], "as built"]
    assert found == {name: tmp_path / "dist" / name for name in files}


def test_links_between_root_and_docs_work_in_both_places():
    assert hooks.here("[t](docs/training.md#x) [c](CONTRIBUTING.md)") == (
        "[t](training.md#x) [c](contributing.md)"
    )
    assert hooks.there("[n](../THIRD_PARTY_NOTICES.md)") == "[n](third_party_notices.md)"
    assert hooks.there("[r](../../README.md#limits)", 1) == "[r](../index.md#limits)"


def test_the_notebook_s_page_opens_it_where_the_repository_is():
    text = (DOCS / hooks.NOTEBOOK).read_text()
    link = (
        "https://colab.research.google.com/github/someone/bm-envs/blob/main/docs/quickstart.ipynb"
    )
    page = hooks.notebook_page(text, "https://github.com/someone/bm-envs")
    assert f'href="{link}"' in page and (DOCS / hooks.NOTEBOOK).is_file()
    for elsewhere in ("", "https://example.org/someone/bm-envs"):
        page = hooks.notebook_page(text, elsewhere)
        assert "colab" not in page and f'href="{hooks.NOTEBOOK}"' in page


# --- tables of environments -----------------------------------------------------------------------


def test_every_environment_has_a_page():
    assert ENVIRONMENTS.keys() == set(IDS)


def indices(rows):
    return [tuple(map(int, index.split(":"))) for index in rows]


@pytest.mark.parametrize("name", IDS)
def test_observation_tables_cover_the_space(pages, name):
    found = indices(pages[ENVIRONMENTS[name]].table("index", "term"))
    env = gymnasium.make(name)
    assert found[0][0] == 0 and found[-1][1] == env.observation_space.shape[0]
    assert all(a[1] == b[0] for a, b in zip(found, found[1:], strict=False))
    env.close()


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("BMTrack-G1-v0", facts.POLICY_OBSERVATION),
        ("BMTrack-G1-NoStateEst-v0", facts.NO_STATE_ESTIMATION),
    ],
)
def test_observations_are_the_published_ones(pages, name, published):
    rows = pages[ENVIRONMENTS[name]].table("index", "term").values()
    assert {row["term"]: indices([row["index"]])[0] for row in rows} == {
        term: place[:2] for term, place in published.items()
    }
    critic = [t for t in pages[ENVIRONMENTS[name]].tables if t[0][:2] == ["index", "term"]][1]
    assert {row[1]: indices([row[0]])[0] for row in critic[1:]} == facts.CRITIC_OBSERVATION


def test_noise_is_what_the_table_says(pages):
    """512 draws of each number: none beyond the half-width, the largest above 0.9 of it.

    That a term of 3 numbers stays below by chance has probability 0.9^1536.
    """
    rows = pages[ENVIRONMENTS["BMTrack-G1-v0"]].table("index", "term").values()
    env = gymnasium.make_vec("BMTrack-G1-v0", num_envs=512, motion="stand")
    obs, info = env.reset(seed=0)
    for row in rows:
        (start, stop), (low, high) = (
            indices([row["index"]])[0], facts.CRITIC_OBSERVATION[row["term"]],
        )  # fmt: skip
        largest = abs(obs[:, start:stop] - info["critic_obs"][:, low:high]).max()
        if row["noise"] == "-":
            assert largest == 0, row
        else:
            width = float(row["noise"])
            # float32: a value near 5 has lost 5e-7 to the sum.
            assert 0.9 * width < largest <= width + 1e-6, row
            assert width == facts.POLICY_OBSERVATION[row["term"]][2]
    env.close()


def test_rewards_ends_and_disturbances_are_the_published_ones(pages):
    page = pages[ENVIRONMENTS["BMTrack-G1-v0"]]
    rows = page.table("term", "weight, 1/s")
    counted = {name: row for name, row in rows.items() if row["weight, 1/s"] != "off"}
    assert counted.keys() == facts.REWARDS.keys()
    for name, (weight, std) in facts.REWARDS.items():
        assert float(counted[name]["weight, 1/s"]) == weight
        width = counted[name]["width"]
        assert (None if width == "-" else float(width.split()[0])) == std

    ends = page.table('info["termination"]', "kind")
    assert str(facts.FAILURE_HEIGHT) in ends["anchor_pos"]["when"]
    assert str(facts.FAILURE_TILT) in ends["anchor_ori"]["when"]
    assert str(facts.EPISODE) in ends["time_limit"]["when"].replace("10 s", "10.0 s")

    settings = [t[1:] for t in page.tables if t[0][0] == "setting"]

    def values(name, text):
        found = [row for table in settings for row in table if row[0] == name and text in row[2]]
        return ast.literal_eval(found[0][1])

    assert values("foot_friction", "Sliding") == facts.FOOT_FRICTION_RANGE
    assert values("torso_com", "centre of mass") == facts.TORSO_COM
    assert values("interval_s", "next push") == facts.PUSH_INTERVAL
    assert values("pos", "Root position") == facts.RESET_POS
    assert values("rot", "Roll") == facts.RESET_ROT


def test_joints_are_the_published_ones(pages):
    rows = pages[ENVIRONMENTS["BMTrack-G1-v0"]].table("#", "joint").values()
    assert [row["joint"] for row in rows] == list(facts.JOINTS)
    for row in rows:
        published = facts.JOINTS[row["joint"]]
        shown = [float(row[head]) for head in list(row)[2:]]
        columns = [published[i] for i in (1, 2, 5, 10, 11, 8, 12)]
        # Four digits are shown.
        np.testing.assert_allclose(shown, columns, rtol=6e-4)


@pytest.mark.parametrize("name", IDS)
def test_episodes_end_and_tell_as_the_tables_say(pages, name):
    page = pages[ENVIRONMENTS[name]]
    env = gymnasium.make(name)
    _, info = env.reset(seed=0)
    first, terminated, truncated = info, False, False
    while not (terminated or truncated):
        _, _, terminated, truncated, info = env.step(np.zeros(env.action_space.shape, np.float32))
    assert terminated, "premise: a robot that asks for the default pose falls, or fails to follow"
    row = page.table('info["termination"]', "kind")[info["termination"]]
    assert row["kind"] == "termination"
    told = page.table("key", "of a single environment")
    assert info.keys() == told.keys() and first.keys() <= told.keys()
    env.close()


@pytest.mark.parametrize("name", IDS)
def test_arguments_are_accepted_with_their_defaults(pages, name):
    rows = pages[ENVIRONMENTS[name]].table("argument", "type").values()
    given = {row["argument"]: ast.literal_eval(row["default"]) for row in rows}
    if name == "BMTrack-G1-NoStateEst-v0":
        del given["state_estimation"]  # given by the id
    if name == "BMTrack-G1-23-v0":
        del given["robot"]
    if name.startswith("BMGuided"):
        del given["task"]
    gymnasium.make(name, **given).close()


# --- tables of scripts and files ------------------------------------------------------------------


def flags_of(kind, module):
    """Flags of a script's class, their defaults and in which module those are written.

    A group of type `Flags` has its flags beside the others.
    """
    for item in dataclasses.fields(kind):
        if str(item.type).startswith("Flags["):
            group = type(item.default)
            for name in (inner.name for inner in dataclasses.fields(group)):
                value = getattr(item.default, name)
                yield "--" + name.replace("_", "-"), value, sys.modules[group.__module__]
        else:
            yield "--" + item.name.replace("_", "-"), item.default, module


FLAG_TABLES = [
    (path.stem, *found)
    for path in sorted((DOCS / "algorithms").glob("*.md"))
    for found in re.findall(r"^<!-- settings algos/(\w+)\.py (\w+) -->$", path.read_text(), re.M)
]


@pytest.mark.parametrize(("page", "script", "kind"), FLAG_TABLES)
def test_flags_have_the_defaults_of_the_script(pages, page, script, kind):
    module = importlib.import_module(script)
    flags = list(flags_of(getattr(module, kind), module))
    tables = [t[1:] for t in pages[f"algorithms/{page}.html"].tables if t[0][0] == "flag"]
    names = [name for name, _, _ in flags]
    rows = next(table for table in tables if [row[0] for row in table] == names)
    for (_, value, written_in), (_, default, _) in zip(flags, rows, strict=True):
        if value is dataclasses.MISSING:
            assert default == "required" or default.endswith("()")
        else:
            assert eval(default, vars(written_in) | {"__builtins__": {}}) == value
    assert any(row[2] for row in rows)


def test_every_algorithm_s_flags_are_on_a_page(capsys):
    """And they are those that the command's `--help` has."""
    scripts = {path.stem for path in (ROOT / "algos").glob("*.py")}
    assert {script for _, script, kind in FLAG_TABLES if kind == "Config"} == scripts
    for script in sorted(scripts):
        module = importlib.import_module(script)
        with pytest.raises(SystemExit):
            tyro.cli(module.Config, args=["--help"])
        # Of a pair `--x, --no-x` the first, of a group's `--task.noise` the group.
        taken = re.findall(r"^ *(--[a-z][\w-]*)", capsys.readouterr().out, re.M)
        assert {name for name, _, _ in flags_of(module.Config, module)} == set(taken), script


def test_results_are_those_of_the_file(pages):
    rows = json.loads((ROOT / "benchmarks/results/walk.json").read_text())["rows"]
    tables = [t for t in pages["algorithms/ppo_track.html"].tables if t[0][0] == "motion"]
    (shown,) = [t[1:] for t in tables if t[0][1] == "protocol"]
    assert len(shown) == len(rows) == 2
    clip, robust = rows
    # By hand: "completed" counts episodes, and a single one has no interval.
    assert shown[0][2] == "1 of 1" and shown[1][2] == "100 of 100 (96 to 100 %)"
    assert float(shown[0][4]) == pytest.approx(clip["mpkpe_mm"], abs=0.5)
    assert float(shown[1][6]) == pytest.approx(robust["joint_pos_rad"], abs=5e-4)


# --- tables of guided runs, which are kept in the pages -------------------------------------------


def table_in(page, name):
    """Rows of a kept table, by their first cell."""
    (block,) = re.findall(
        rf"<!-- {name}: begin -->\n(.*?)<!-- {name}: end -->", (ROOT / page).read_text(), re.S
    )
    lines = [line for line in block.splitlines() if line.startswith("| ")]
    head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return {row[0]: dict(zip(head, row, strict=True)) for row in rows}


@pytest.mark.clone
def test_kept_tables_are_those_of_the_files():
    """Their scripts write them again after files have changed."""
    for made in (
        guided_tables, lafan1_tables, learning_tables, results_tables, glossary_tables,
        choices_tables, robustness_tables, motions_tables, tour_tables, human_tables,
        latent_tables,
        deployment_tables,
    ):  # fmt: skip
        script = f"docs/{made.__name__}.py"
        assert made.write(["--check"], made.PAGES, script) == 0, f"run python {script}"
    # By hand: the pushed walk, in both pages.
    for page, name in (("docs/guided.md", "tasks"), ("docs/results.md", "guided")):
        table = table_in(page, name)
        (row,) = (table[title] for title in table if "pushed" in title and "each" in title)
        for model, label in (("body_pos", "Body-Pos"), ("joint_rot", "Joint-Rot")):
            path = ROOT / f"benchmarks/results/guided_walk_perturb_{model}.json"
            if path.is_file():
                (found,) = json.loads(path.read_text())["rows"]
                # Old files count by the strict rule under another name.
                count = found.get("successes_strict", found["successes"])
                assert row[label].startswith(f"{count} of {found['trials']} ("), page


@pytest.mark.clone
def test_the_conclusions_tell_the_worst_policy_as_well_as_the_best():
    """What is robust is said of every line of the table that was measured so."""
    page = (DOCS / "results.md").read_text()
    said = page[page.index("<!-- conclusions: begin") : page.index("<!-- conclusions: end")]
    rows = table_in("docs/results.md", "shipped")
    measured = {name: row["robust"] for name, row in rows.items() if row["robust"] != "-"}
    assert len(measured) > 3
    assert not [name for name, robust in measured.items() if f"{name} {robust}" not in said]


def guided_run(task, model="body_pos", *, trials=50, steering=None, **figures):
    """A row of `benchmarks/guided.py`, steered as shipped."""
    chosen = dataclasses.asdict(steering or guided_tables.STEERING[model])
    chosen = {name: "inf" if value == np.inf else value for name, value in chosen.items()}
    row = {
        "task": task, "representation": model, "trials": trials, "successes": 40,
        "successes_head": 41, "upright_strict": 45, "sampler": "10", "steering": chosen,
        "outside_box": 0.0123,
    }  # fmt: skip
    return row | figures


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A folder of results: `kept(name, row, seed)` puts a file into it."""
    monkeypatch.setattr(guided_tables, "RESULTS", tmp_path)

    def put(name, row, seed=5):
        (tmp_path / f"{name}.json").write_text(json.dumps({"seed": seed, "rows": [row]}))

    return put


def cells_of(text):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]


def test_rows_whose_file_is_absent_are_left_out(kept):
    assert guided_tables.tasks() == guided_tables.places() == guided_tables.short() == ""
    assert guided_tables.gates() == guided_tables.doses() == guided_tables.costs() == ""
    kept("guided_waypoint_joint_rot", guided_run("waypoint", "joint_rot"), seed=3)
    _, _, row = cells_of(guided_tables.tasks())
    # Wilson's interval of 40 of 50 by hand: 67.0 to 88.8 %.
    found = "40 of 50 (67 to 88.8 %); by the head 41; outside 1.2 %; seed 3"
    assert row == ["waypoint, our approach", "-", found, "not given"]
    assert found.replace("; outside 1.2 %", "") in guided_tables.short()


def test_runs_that_were_steered_by_factors_of_a_gradient_are_left_out(kept):
    """As before 0.2. At strength 0 nothing is steered, and a policy of PPO has no steering."""
    linear = guided_tables.Steering(scaling="linear", strength=30.0)
    for name, steering in (("old", linear), ("new", guided_tables.Steering(strength=0.5))):
        kept(name, guided_run("joystick", steering=steering))
    kept("unguided", guided_run("joystick", steering=dataclasses.replace(linear, strength=0.0)))
    kept("ppo", guided_run("joystick") | {"steering": None})
    shown = {name: guided_tables.row_of(name) for name in ("old", "new", "unguided", "ppo", "no")}
    assert [name for name, row in shown.items() if row is None] == ["old", "no"]


def test_what_is_the_paper_s_and_what_is_ours_is_read_from_the_run():
    plain, whose = guided_tables.Steering(), guided_tables.papers_and_ours

    def of(task, **changes):
        papers, ours = whose(guided_run(task, steering=dataclasses.replace(plain, **changes)))
        return papers, set(ours)

    ours = {"turn terms", "positions", "correction", "recovery after a push"}
    assert of("joystick") == (["eq. 7 (velocity)"], ours)
    none = dict(turn=0.0, consistent=0.0, correct_s=np.inf, recover_at=np.inf)
    assert of("joystick", **none) == (["eq. 7 (velocity)"], set())
    assert of("waypoint") == (["eq. 7 (velocity)"], ours | {"approach"})
    bounded = {"bounded speed of eq. 8's step", "correction", "recovery after a push"}
    assert of("waypoint", places="paper", turn=0.0) == (["eq. 8 (place)"], bounded)
    assert of("waypoint", places="paper") == (["eq. 8 (place)"], bounded | {"turn to the place"})
    papers, mine = of("obstacle")
    assert papers == ["eq. 7 (velocity)", "eqs. 9, 10 (distance)"]
    assert mine == ours | {"approach", "path planner", "eq. 9 moves only velocities"}
    assert "path planner" not in of("obstacle", around=False)[1]
    assert of("obstacle", obstacle=0.0)[0] == ["eq. 7 (velocity)"]
    papers, theirs = of("obstacle", places="paper")
    assert papers == ["eq. 8 (place)", "eqs. 9, 10 (distance)"]
    led = {"path planner", "eq. 9 moves velocities, positions", "turn to the place"}
    assert theirs == bounded | led
    still = of("obstacle", places="paper", consistent=0.0, around=False)[1]
    assert still == bounded | {"turn to the place", "eq. 9 moves only velocities"}
    assert of("composition")[1] == mine
    assert whose(guided_run("walk_perturb")) == ([], [])
    assert of("joystick", strength=0.0) == ([], set())


def test_parts_of_the_guidance_are_shown_by_task(kept):
    assert guided_tables.parts() == ""
    paper = guided_tables.Steering(places="paper")
    for name, row in (
        ("walk_perturb", guided_run("walk_perturb")),
        ("joystick", guided_run("joystick")),
        ("waypoint_paper", guided_run("waypoint", steering=paper)),
    ):
        kept(f"guided_{name}_body_pos", row)
    head, _, *rows = cells_of(guided_tables.parts())
    asked = ["joystick", "waypoint, eq. 8"]  # the other asks for nothing
    assert head == ["part", "from", *asked, "what it does", "off by"]
    shown = {row[0]: row[1:] for row in rows}
    assert len(shown) == len(rows)
    assert shown["eq. 7 (velocity)"] == ["paper", "x", "", "", ""]
    assert shown["eq. 8 (place)"] == ["paper", "", "x", "", ""]
    assert shown["positions"][:3] == ["ours", "x", ""]
    assert shown["correction"][:3] == ["ours", "x", "x"]


def test_what_turns_a_part_off_does():
    """Each flag of the table, as it is typed, takes its part from a run that had it."""
    for part, (_, typed) in guided_tables.PARTS.items():
        flag = re.fullmatch(r"`--steering\.(no-)?([\w-]+)(?: (\w+))?`", typed)
        if flag is None or flag[2] == "speed":
            assert typed == ""
            continue
        name = flag[2].replace("-", "_")
        plain = guided_tables.Steering()
        if part == "turn to the place":
            plain = dataclasses.replace(plain, places="paper")
        value = False if flag[1] else type(getattr(plain, name))(flag[3])
        off = dataclasses.replace(plain, **{name: value})
        had, has = (
            sum(guided_tables.papers_and_ours(guided_run("obstacle", steering=steering)), [])
            for steering in (plain, off)
        )
        assert part in had and part not in has, part


def test_joystick_s_commands_are_shown_by_halves(kept):
    pairs = [((0.41, 0.66), 0.0), ((0.1, -0.35), 0.0), ((0.4, 0.4), 0.5), ((0.4, None), -0.45)]
    phases = [
        {"halves": [{"forward": speed, "yaw_rate": turn} for speed in speeds]}
        for speeds, turn in pairs
    ]
    phases[3]["halves"][1] = {"forward": None, "yaw_rate": None}  # all had fallen
    kept("guided_joystick_body_pos", guided_run("joystick", by_phase=phases))
    # A file of before 0.2 has the judged half of a speed, and of a turn its angle in 3 s.
    old = guided_run("joystick", mean_segment_value=[0.55, 0.25, 1.5, 0.9], steering=None)
    kept("guided_joystick_ppo", old | {"steering": None, "sampler": None}, seed=0)
    head, _, new, ppo = cells_of(guided_tables.joystick())
    assert head[2:6] == [
        "forward at 0.6 m/s", "forward at -0.3 m/s", "turn at 0.5 rad/s", "turn at -0.5 rad/s",
    ]  # fmt: skip
    assert new[0] == "Body-Pos" and new[-1] == "5"
    assert new[2:6] == ["0.41, 0.66", "0.10, -0.35", "0.50, 0.50", "-0.45, -"]
    assert ppo[2:6] == ["-, 0.55", "-, -0.25", "0.50 over both", "-0.30 over both"]


def test_costs_of_one_s_own_are_shown_with_what_came_of_them(kept):
    cost = {"strength": 0.5, "mean_executed": 0.01234, "outcome": {"pelvis_m": 0.7012, "x": None}}
    kept("cost_pelvis_low_body_pos", guided_run("walk_perturb", cost=cost))
    kept("cost_pelvis_low_body_pos_watched", guided_run(
        "walk_perturb", outside_box=None, cost={**cost, "strength": 0.0, "mean_executed": 0.5}
    ))  # fmt: skip
    *_, asked, watched = cells_of(guided_tables.costs())
    assert asked[:4] == [
        "`benchmarks/costs/pelvis_low.py`", "walk_perturb", "0.5",
        "cost 0.0123, pelvis 0.701 m, x -",
    ]  # fmt: skip
    assert watched[2] == "0" and watched[3].startswith("cost 0.5, ")
    assert "outside 1.2 %" in asked[4] and "outside" not in watched[4]


def test_gates_of_the_present_steering_replace_the_others(kept, tmp_path):
    def put(kind, sampler, *rows):
        value = {"settings": {"sampler": sampler}, "seed": 1000, "rows": list(rows)}
        (tmp_path / f"gates_{kind}_body_pos.json").write_text(json.dumps(value))

    def gate_4(strength, slope):
        dose = {"strength": strength, "forward": [-0.1, None], "slope": slope, "falls": 0.02}
        details = {"chosen_strength": strength, "slope": slope, "falls": 0.02,
                   "targets": [-0.3, 0.9], "by_strength": [dose]}  # fmt: skip
        return {"gate": "4", "value": 0.98, "details": details}

    box = {"success_rate": 1.0, "success_rate_at_strength_0": 0.0}
    put("guided", "full", gate_4(30.0, 0.5), {"gate": "1b", "value": 0.0099, "details": {}})
    assert "slope" not in guided_tables.gates() and guided_tables.doses() == ""
    put("steered", "10", gate_4(1.0, 0.8), {"gate": "box", "value": 0.004, "details": box})
    rows = {row[0]: row[1:] for row in cells_of(guided_tables.gates())}
    assert rows["1b"][1:3] == ["1.0 cm", "-"] and "calls" not in rows["1b"][0]
    assert rows["4"][0].endswith("(10 calls)") and rows["4"][1] == "0.98, 0.8, 2 %"
    assert rows["box"][1] == "0.4 %; 100 %; 0 %"
    *_, dose = cells_of(guided_tables.doses())
    assert dose == ["Body-Pos", "1 (its own)", "-0.10", "-", "0.80", "2 %"]


def test_the_steering_of_each_model_is_told_by_its_flags(monkeypatch):
    own = guided_tables.Steering(scaling="even_share", strength=0.65, around=False)
    both = {"body_pos": guided_tables.Steering(), "joint_rot": own}
    monkeypatch.setattr(guided_tables, "STEERING", both)
    assert guided_tables.differences() == (
        "Body-Pos has the defaults; Joint-Rot has `--steering.strength 0.65`, "
        "`--steering.scaling even_share`, `--steering.no-around`."
    )


def test_a_kept_table_has_one_place():
    tables = {"x": lambda: "| a |"}
    page = "text\n<!-- x: begin -->\nold\n<!-- x: end -->\n"
    new = "text\n<!-- x: begin -->\n\n| a |\n\n<!-- x: end -->\n"
    assert guided_tables.filled(page, tables) == new == guided_tables.filled(new, tables)
    assert "begin -->\n<!-- x" in guided_tables.filled(new, {"x": str})
    for wrong in ("text", page * 2):
        with pytest.raises(ValueError, match=r"places for the table 'x', expected one"):
            guided_tables.filled(wrong, tables)


def test_motion_files_hold_what_the_table_says(pages):
    rows = pages["motions.html"].table("key", "shape")
    told = {name for key in rows for name in key.split(", ")}
    with np.load(ROOT / "bm_envs/assets/motions/walk.npz") as archive:
        assert set(archive.files) == told
        for key, row in rows.items():
            if row["shape"].startswith("["):
                wanted = row["shape"].strip("[]").split(", ")
                shape = archive[key].shape
                assert len(shape) == len(wanted)
                assert all(w in ("T", str(n)) for w, n in zip(wanted, shape, strict=True))


# --- what pages say -------------------------------------------------------------------------------


def code_blocks():
    found = []
    run = ("own_cost", "own_loop", "live_reference", "motions", "extending", "retarget")
    for path in (DOCS / page for page in hooks.own_pages(DOCS)):
        if path.parent != DOCS or path.stem in run:
            blocks = re.findall(r"^```python\n(.*?)^```$", path.read_text(), re.M | re.S)
            found += [pytest.param(b, id=f"{path.stem}-{i}") for i, b in enumerate(blocks)]
    return found


@pytest.mark.parametrize("code", code_blocks())
def test_python_on_the_pages_runs(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "page", "exec"), {"__name__": "page"})


def test_citation_and_changelog_tell_the_version():
    cited = yaml_load((ROOT / "CITATION.cff").read_text())
    assert cited["version"] == bm_envs.__version__ and cited["cff-version"] == "1.2.0"
    assert cited["license"] == "Apache-2.0"
    (paper,) = cited["references"]
    assert paper["identifiers"][0]["value"] == "arXiv:2508.08241"
    assert f"## [Unreleased]: {bm_envs.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_picture_of_the_house_is_drawn_from_the_code():
    """`python docs/house.py` draws it again after imports have changed."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "house.py"), "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr or "run python docs/house.py"


TEXTS = ["README.md", *(f"docs/{page}" for page in hooks.own_pages(DOCS))]
# A figure as measurements have them: a count of tries, a share, an error, a time, a rate.
MEASURED = re.compile(
    r"(?<![\w.])\d[\d,.]*\s(?:of\s\d|%|mm\b|minutes\b|(?:core-)?hours\b|core-minutes\b|"
    r"control\ssteps/s|GB\b)"
)
# Sections whose figures were chosen, not measured, or are printed in the paper.
NOT_MEASURED = {
    ("docs/algorithms/ddpm_guided.md", "### Data"): "a share of the collector's settings",
    ("docs/lafan1.md", "## Error over time"): "an axis",
    ("docs/reliability.md", "# Reliability"): "bounds that a reader must keep to",
    ("docs/retarget.md", "## What is refused, and what is warned of"): "bounds",
    ("docs/submit.md", "## You will be refused if"): "bounds",
    ("docs/training.md", "## What differs, and what for"): "settings",
    ("docs/training.md", "## More than one process"): "when a run is ended",
}


def unmeasured(page, text):
    """Sections of a page with measured figures that name no result file; generated parts apart."""
    files = {path.name for path in (ROOT / "benchmarks/results").glob("*.json")} | {"policy.json"}
    text = re.sub(r"<!-- (\w+): begin -->.*?<!-- \1: end -->", "", text, flags=re.S)
    text = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    for section in re.split(r"^(?=#{1,5} )", text, flags=re.M):
        said = re.sub(r"95 % intervals?|`[^`]*`", "", section)
        named = set(re.findall(r"\w+\.json", section))
        for marker in re.findall(r"<!-- results (.+?) -->", section):
            named |= {f"{name}.json" for name in marker.split()}
        if MEASURED.search(said) and not files & named:
            yield page, section.partition("\n")[0]


def test_figures_on_pages_are_those_of_result_files():
    """As far as a machine sees: what a section measures, it or its table takes from a file."""
    assert len(TEXTS) > 20
    found = {one for page in TEXTS for one in unmeasured(page, (ROOT / page).read_text())}
    assert found == NOT_MEASURED.keys()
    # Of the front page and of the results' every figure is generated, and no file helps.
    for page in ("README.md", "docs/results.md"):
        text = re.sub(r"\w+\.json", "", (ROOT / page).read_text())
        assert not list(unmeasured(page, text))
    said = "# Speed\n\nIt takes 12 minutes.\n\n## More\n\n7 of 9 pass (`walk.json`).\n"
    assert list(unmeasured("x.md", said)) == [("x.md", "# Speed")]
    assert list(unmeasured("x.md", said.replace("walk.json", "no_such.json")))[1][1] == "## More"


def test_result_files_named_on_pages_exist():
    named = {
        (page, name)
        for page in TEXTS
        for name in re.findall(r"benchmarks/results/(\w+\.json)", (ROOT / page).read_text())
    }
    assert len(named) > 50
    # Commands write files into that folder, too, that nobody has to have made.
    written = {
        name
        for page in TEXTS
        for name in re.findall(r"--json benchmarks/results/(\w+\.json)", (ROOT / page).read_text())
    }
    missing = {name for _, name in named if not (ROOT / "benchmarks/results" / name).is_file()}
    assert missing <= written


def test_pages_show_no_figure_that_was_only_noticed():
    """What was tried once belongs in a note."""
    assert not [page for page in TEXTS if "exploratory" in (ROOT / page).read_text().lower()]


# --- words and sentences --------------------------------------------------------------------------

OLD_NAMES = ("error_mm", "relative, mm", "global, mm", "mpkpe global")


def test_metrics_have_one_name_on_all_pages():
    assert set(ERROR_HEADS) == set(glossary_tables.ERRORS)
    assert list(ERROR_HEADS.values())[:2] == ["MPKPE, mm", "R-MPKPE, mm"]
    assert not [
        (page, old) for page in TEXTS for old in OLD_NAMES if old in (ROOT / page).read_text()
    ]
    words = [word.name for word in glossary_tables.WORDS]
    assert len(words) == len(set(words)) and words == sorted(words)


def test_names_in_the_glossary_are_the_code_s():
    code = "".join(map(Path.read_text, code_files()))
    lines = [*glossary_tables.WORDS, *glossary_tables.OUTCOMES]
    missing = [
        name for word in lines for name in word.written.split()
        if not re.search(rf"\b{re.escape(name)}\b", code)
    ]  # fmt: skip
    assert not missing


def code_files():
    folders = ("bm_envs", "algos", "benchmarks", "tools")
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def spoken(node):
    """A text of the code with `…` for each value put into it; None for what is no text."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        parts = (getattr(part, "value", "") for part in node.values)
        return "".join(part if isinstance(part, str) else "…" for part in parts)
    return None


def test_sentences_of_the_troubleshooting_page_are_the_code_s():
    """Each quoted sentence is one of the code, word by word, with `…` for what differs."""
    said = {
        re.sub("…+", "…", text)
        for path in code_files()
        for node in ast.walk(ast.parse(path.read_text()))
        if (text := spoken(node)) is not None
    }
    quoted = re.findall(r"^> (.+)$", (DOCS / "troubleshooting.md").read_text(), re.M)
    assert len(quoted) > 25
    assert not [sentence for sentence in quoted if re.sub("…+", "…", sentence) not in said]
    assert not [sentence for sentence in quoted if len(re.sub("…", "", sentence)) < 12]


# --- tables of trainings --------------------------------------------------------------------------


def training(seed, minutes, *, steps=100_000, error=80.0, robust=None, **other):
    """A row of `benchmarks/learning.py`; `minutes` None: it ended without having passed."""
    reached = None if minutes is None else {"env_steps": steps, "wall_s": 60 * minutes}
    return {
        "algorithm": "wm_track", "motion": "walk", "seed": seed, "env_steps": 200_000,
        "wall_s": 540.0, "commit": f"{seed}abcdef0123", "first_pass": reached,
        "first_robust": robust and reached,
        "clip": {"mpkpe_mm": error, "r_mpkpe_mm": error / 2},
        "curve": [[50_000, 60.0, 0.5, None], [100_000, 120.0, 1.0, robust]],
    } | other  # fmt: skip


def test_table_of_trainings_has_a_value_a_seed_and_the_median(tmp_path, monkeypatch):
    monkeypatch.setattr(learning_tables, "RESULTS", tmp_path)

    def put(name, *rows):
        (tmp_path / f"{name}.json").write_text(json.dumps({"rows": rows}))

    # Runs of one motion may stand in several files, in any order of seeds.
    put("first", training(3, 2.0, error=90.4), training(2, None))
    put("second", training(1, 6.0, steps=123_456), training(1, None, against=True))
    _, _, new, old = cells_of(learning_tables.completed("first", "second"))
    assert new == [
        "`walk`", "`wm_track.py`", "1abcdef, 2abcdef, 3abcdef", "123, not in 200, 100",
        "6.0, not in 9.0, 2.0", "6.0", "80, -, 90", "40, -, 45",
    ]  # fmt: skip
    assert old[:2] == ["", "`wm_track.py`, old commit"]
    assert old[2:] == ["1abcdef", "not in 200", "not in 9.0", "none", "-", "-"]
    put("third", training(1, 3.0, robust=0.96), training(2, 5.0, robust=0.99))
    _, _, row = cells_of(learning_tables.robust("third"))
    assert row[2:6] == ["0.10 (all seeds)", "3.0, 5.0", "4.0", "96, 99"]


def test_a_median_is_infinite_where_most_runs_have_not_passed():
    runs = [training(1, 2.0), training(2, 4.0, steps=300_000), training(3, None)]
    assert learning_tables.median(runs, "first_pass") == 240.0
    assert learning_tables.median(runs, "first_pass", "env_steps") == 300_000
    assert learning_tables.median(runs[1:] + [training(4, None)], "first_pass") == np.inf


def test_a_logarithmic_axis_gives_equal_ratios_equal_lengths():
    places = [drawing.log_share(value, 10.0, 1000.0) for value in (10.0, 100.0, 1000.0)]
    assert places == pytest.approx([0.0, 0.5, 1.0])
    # The middle of a cross is where it was asked for: each stroke goes 4 either way.
    assert drawing.cross(10.0, 20.0, "red").startswith('<path d="M6.0 16.0l8 8m0 -8l-8 8"')


def choice(motion, variant, seed, steps, **other):
    """A row of `benchmarks/learning.py` with a variant."""
    return {
        "algorithm": "ppo_track", "motion": motion, "variant": variant, "seed": seed,
        "time_to_failure_s": 1.234 * seed, "reward_per_step": 0.0456,
        "first_pass": {"env_steps": steps}, "clip": {
            "survival": 0.25, "survival_s": 6.125, "mpkpe_mm": 80.4, "r_mpkpe_mm": 40.6,
        },
        "manner": {
            "foot_contact_mismatch": 0.0784, "action_accel": 0.129, "joint_accel_rad_s2": 20.44,
        },
    } | other  # fmt: skip


def test_tables_of_choices_have_a_value_a_seed(tmp_path, monkeypatch):
    monkeypatch.setattr(choices_tables, "RESULTS", tmp_path)

    def put(name, *rows):
        (tmp_path / f"{name}.json").write_text(json.dumps({"rows": rows}))

    uniform = [choice("a", "uniform starts", seed, 2_048_000 * seed) for seed in (2, 1)]
    put("own", *uniform, choice("a", "default", 1, 1_024_000))
    put("alone", choice("b", "uniform starts", 1, 4_096_000))
    put(
        "trainers", choice("a", "default", 1, 1), choice("b", "default", 1, 512_000),
        choice("b", "default", 1, 2, algorithm="wm_track"),
    )  # fmt: skip
    _, _, own, alone, *paper = cells_of(choices_tables.starts("own", "alone"))
    assert own == ["`a`", "2.0, 4.1", "1.0", "1000, 2000", "500"]
    assert alone == ["`b`", "4.1", "0.5", "2000", "250"]
    assert [row[3:] for row in paper] == [["3000", "1500"], ["2800", "1800"]]  # its Table II

    head, _, row, _ = cells_of(choices_tables.choices("own", 2))
    assert head[3] == "survived, s of 24.5"
    assert row == ["uniform starts", "1.23, 2.47", "0.046, 0.046", "6.1, 6.1"]
    *_, row = cells_of(choices_tables.optional_rewards("own"))
    assert row == ["`a`", "default", "25", "7.8", "0.13", "20.4", "80", "41"]
    # Two motions of one file are two lines.
    put("both", choice("a", "default", 1, 0), choice("b", "default", 1, 0))
    assert [row[:3] for row in cells_of(choices_tables.optional_rewards("both"))[2:]] == [
        ["`a`", "default", "25"], ["`b`", "default", "25"],
    ]  # fmt: skip

    put("overlap", *(
        choice("a", "default", seed, 0, env_steps=29_696, wall_s=30.0 * seed, commit="0123456789")
        for seed in (2, 1)
    ))  # fmt: skip
    *_, row = cells_of(choices_tables.spent("overlap"))
    assert row == ["default", "0123456", "30, 30", "0.5, 1.0"]

    errors = {"pos_mm": 1.26, "rot_deg": 0.34, "joint_pos_rad": 0.0056}
    coasting = {name: 2 * value for name, value in errors.items()}
    put("error", *({"step": k, "model": errors, "coasting": coasting} for k in (3, 4)))
    _, _, row = cells_of(choices_tables.model_error("error"))
    assert row == ["4", "1.3", "2.5", "0.3", "0.7", "0.006", "0.011"]


def test_tables_of_speed_show_the_engine_before_what_is_compared_with_it(tmp_path, monkeypatch):
    monkeypatch.setattr(results_tables, "RESULTS", tmp_path)
    results_tables.read.cache_clear()
    rows = [
        {"what": what, "variant": variant, "num_envs": n, "control_steps_per_s": 1000.0 * n,
         "lowest": 900.0 * n, "highest": 1100.0 * n, "ratio_to_raw": 0.876, "raw": raw}
        for what, variant, n in results_tables.SHOWN
        for raw in [{"single_env": "raw_loop", "ppo": "raw_engine_ppo"}.get(what, "raw_engine")]
        for what in (what, raw)
    ]  # fmt: skip
    rows += [
        {"what": "peer", "variant": "one", "task": "walk", "num_envs": 2, "ratio_to_env": 0.166,
         "control_steps_per_s": 2173.3, "env_num_envs": 4096},
        {"what": "peer", "variant": "two", "task": "run", "num_envs": 1, "error": "no module"},
    ]  # fmt: skip
    machine = {"processor": "CPU", "cores": 2, "gpu": None}
    (tmp_path / "throughput.json").write_text(json.dumps({"rows": rows, "machine": machine}))
    _, _, *lines = cells_of(results_tables.engine().split("\n\n")[0])
    assert [line[0] for line in lines[:3]] == [
        "engine", "the environment", "the environment and a network (512-256-128)",
    ]  # fmt: skip
    assert lines[0] == ["engine", "512", "512,000 (460,800 to 563,200)", "0.88"]
    assert [line[0] for line in lines[-2:]] == [
        "engine, 5 ms physics", "the whole training loop, 5 ms physics",
    ]  # fmt: skip
    # The short table has the same lines, without the engine's and without the spread.
    (tmp_path / "throughput.json").write_text(json.dumps(
        {"rows": rows, "machine": machine, "command": "python x.py", "commit": "0123456789"}
    ))  # fmt: skip
    results_tables.read.cache_clear()
    short = results_tables.speed()
    assert cells_of(short.split("\n\n")[0])[2] == ["the environment", "512", "512,000", "0.88"]
    assert "benchmarks/results/throughput.json, commit 0123456\n    python x.py" in short
    head, _, one, two = cells_of(results_tables.peers())
    assert head[-1] == "to ours (4096 robots)" and one[2:] == ["2", "2,173", "0.17"]
    assert two == ["two", "run", "1", "does not run: `no module`", "-"]

    error = {"solver_error": {"joint_vel_rad_s": 7.76e-7}, "total_error": {"joint_vel_rad_s": 19.9}}
    row = {"physics_dt": 0.005, "setting": "standard", "us_per_control_step": 131.8, **error}
    (tmp_path / "physics_accuracy.json").write_text(json.dumps({"rows": [row]}))
    assert cells_of(results_tables.solver())[2] == ["5 ms", "standard", "7.8e-07", "20", "132"]
    results_tables.read.cache_clear()
