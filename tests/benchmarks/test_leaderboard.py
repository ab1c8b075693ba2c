"""`benchmarks/leaderboard.py`: tables that hold every row, a page that sorts, results run again."""

import copy
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
import result_files
import warm_python
from result_files import track, track_row

from bm_envs.errors import BMError, ConfigError, ResultError
from bm_envs.motion import suites
from bm_envs.results import ERRORS, read_result

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
import leaderboard  # noqa: E402

HOSTILE = '<script>alert(1)</script> | `x` [a](javascript:b) "q" & _it_'


@pytest.fixture
def results(tmp_path):
    """A folder with a file of every kind that has a table, in two folders."""
    folder = tmp_path / "results"
    (folder / "more").mkdir(parents=True)
    cut = "walk1_subject1[5:15]"
    far = track_row(policy="far", motion=cut, suite="lafan1", success=0.0, survival_s=4.2,
                    clip_s=10.0, success_ci95=[0.0, 0.7934507], train_env_steps=None,
                    train_wall_s=None)  # fmt: skip
    for name, value in {
        "walk": track(),
        "more/cut": track(far, far | {"suite": "lafan1-cuts", "policy": HOSTILE}),
        "more/guided": result_files.guided(),
        "gates": result_files.gates(),
        "learning": result_files.learning(),
        "speed": result_files.throughput(),
    }.items():
        write(folder / f"{name}.json", value)
    return folder


def write(path, value):
    path.write_text(json.dumps(value))


def run(results, out, **more):
    leaderboard.main(leaderboard.Config(results=results, out=out, **more))
    return (out / "LEADERBOARD.md").read_text(), (out / "index.html").read_text()


# --- Markdown ---


def cells(line):
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def markdown_tables(text):
    """Heading to rows, each a dictionary by column."""
    found = {}
    for section in re.split(r"^## ", text, flags=re.M)[1:]:
        title, *lines = section.splitlines()
        lines = [line for line in lines if line.startswith("|")]
        if not lines:
            continue  # a text
        head, rule, *rows = map(cells, lines)
        assert set(rule) == {"---"} and all(len(row) == len(head) for row in rows)
        found[title] = [dict(zip(head, row, strict=True)) for row in rows]
    return found


def test_markdown_holds_every_row(results, tmp_path):
    text, _ = run(results, tmp_path / "out")
    tables = markdown_tables(text)
    assert {title: len(rows) for title, rows in tables.items()} == {
        "Tracking: builtin": 2, "Tracking: lafan1-cuts": 2, "Guided tasks": 1,
        "Gates of the diffusion model": 2, "Training runs": 2, "Speed": 2, "Result files": 6,
    }  # fmt: skip
    clip, robust = tables["Tracking: builtin"]
    assert clip == {
        "motion": "walk", "protocol": "clip", "policy": "walk", "success": "100 %",
        "95 % interval": "20.7 to 100 %", "survived, s": "24.5 of 24.5", "MPKPE, mm": "96.0",
        "R-MPKPE, mm": "33.9", "joints, rad": "0.0874", "episodes": "1",
        "obs": "160", "base": "true", "Hz": "50", "delay, ms": "not told",
        "M samples": "26.0", "minutes": "52.8", "video": "-", "result": "walk",
    }  # fmt: skip
    assert (robust["success"], robust["95 % interval"]) == ("98 %", "93 to 99.4 %")
    for row in tables["Tracking: lafan1-cuts"]:
        assert row["M samples"] == row["minutes"] == "not told"
    (row,) = tables["Guided tasks"]
    assert (row["successes"], row["rate"], row["by the head"]) == ("40 of 50", "80 %", "45 of 50")
    assert [row["verdict"] for row in tables["Gates of the diffusion model"]] == [
        "passed", "FAILED",
    ]  # fmt: skip
    assert [row["completed after, M samples"] for row in tables["Training runs"]] == ["1.20", "-"]


def test_guided_files_of_before_0_2_are_counted_by_the_strict_rule_too(tmp_path):
    """The same figures under other names; and one that knows the head's rule alone."""
    old = result_files.guided_before_0_2()
    by_head = result_files.guided_before_0_2()
    for name in ("successes_strict", "success_rate_strict", "ci95_strict", "each"):
        del by_head["rows"][0][name]
    folder = tmp_path / "results"
    folder.mkdir()
    for name, value in {"new": result_files.guided(), "old": old, "head": by_head}.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    rows = {
        row["result"]: row
        for row in markdown_tables(run(folder, tmp_path / "out")[0])["Guided tasks"]
    }
    new, old, head = (dict(rows[name], result="") for name in ("new", "old", "head"))
    assert new == old and list(rows)[-1] == "head"
    assert new["95 % interval"] == "67 to 88.8 %"
    assert (head["successes"], head["rate"], head["by the head"]) == ("-", "-", "45 of 50")


def test_a_gate_that_was_examined_again_is_shown_once(results, tmp_path):
    """The other gates of the older file stay; times are compared, not their texts.

    Gates that were steered by factors of a gradient, as before 0.2, are not shown.
    """
    again = result_files.gates()
    again["rows"] = [
        dict(again["rows"][0], value=0.95),
        dict(again["rows"][0], gate="4", details={"chosen_strength": 30.0}),
        dict(again["rows"][0], gate="5", details={"strength": 30.0}),
    ]  # fmt: skip
    again["created"] = "2099-01-01T00:00:00+02:00"
    write(results / "again.json", again)
    write(results / "other.json", again | {"settings": {"policy": "another", "quick": False}})
    text, _ = run(results, tmp_path / "out")
    rows = markdown_tables(text)["Gates of the diffusion model"]
    assert sorted((row["policy"], row["gate"], row["value"]) for row in rows) == [
        ("another", "2", "0.95"), ("guided_body_pos", "2", "0.95"),
        ("guided_body_pos", "latency", "31"),
    ]  # fmt: skip


def test_markdown_tells_once_what_made_a_file(results, tmp_path):
    text, _ = run(results, tmp_path / "out")
    *tables, files = markdown_tables(text).values()
    named = {row["result"] for table in tables for row in table}
    assert named == {"walk", "more/cut", "more/guided", "gates", "learning", "speed"}
    assert sorted(row["file"] for row in files) == sorted(
        f"[{name}](../results/{name}.json)" for name in named
    )
    (walk,) = (row for row in files if row["file"].startswith("[walk]"))
    assert walk | {"file": ""} == {
        "file": "", "kind": "track", "made": track()["created"][:10], "seed": str(track()["seed"]),
        "machine": "AMD EPYC, 2 cores", "commit": "1123a0c30b+",
        "command": "`python benchmarks/track.py --json benchmarks/results/out.json`",
    }  # fmt: skip


def test_what_nobody_measured_is_named(results, tmp_path):
    text, page = run(results, tmp_path / "out")
    absent = [name for name in suites.CUTS if not name.startswith("walk1")]
    told = f"No result: {', '.join(absent)}."
    assert told in text and f"lafan1-cuts: {told}" in page
    # A reader came for the results: they stand first.
    assert text.index("| walk1_subject1[5:15] |") < text.index(told) < text.index("## Guided")
    assert page.index("<table") < page.index(told) < page.index("Motion by motion")


def test_rows_with_a_repaired_motion_stand_apart():
    """Nor do they fill the place of one that nobody measured."""
    repaired = track_row(motion="walk1_subject1~repaired", suite="lafan1-repaired")
    file = make_file(track(repaired, track_row(motion="walk4_subject1", suite="lafan1-40")))
    groups = leaderboard.tracking([file], Path("out"))
    assert {suite: [entry.row["motion"] for entry in rows] for suite, rows in groups.items()} == {
        "lafan1-40": ["walk4_subject1"], "lafan1-repaired": ["walk1_subject1~repaired"],
    }  # fmt: skip
    assert "walk1_subject1," in leaderboard.missing("lafan1-40", groups["lafan1-40"])
    assert leaderboard.missing("lafan1-repaired", groups["lafan1-repaired"]) == ""


def test_the_best_comes_first_and_numbers_in_names_count():
    def entry(motion, success, error):
        row = track_row(motion=motion, success=success, r_mpkpe_mm=error)
        return track(row)["rows"][0]

    rows = [entry("walk_on_10", 1.0, 5.0), entry("walk_on_2", 0.0, 1.0),
            entry("walk_on_2", 1.0, 9.0), entry("walk_on_2", 1.0, 8.0)]  # fmt: skip
    file = make_file(track(*rows))
    (group,) = leaderboard.tracking([file], Path("out")).values()
    assert [(e.row["motion"], e.row["success"], e.row["r_mpkpe_mm"]) for e in group] == [
        ("walk_on_2", 1.0, 8.0), ("walk_on_2", 1.0, 9.0), ("walk_on_2", 0.0, 1.0),
        ("walk_on_10", 1.0, 5.0),
    ]  # fmt: skip


def make_file(value, path="out.json"):
    from bm_envs.results import ResultFile

    names = ("kind", "created", "command", "commit", "seed", "versions", "machine", "rows")
    return ResultFile(
        path=Path(path), **{name: value[name] for name in names},
        settings=value.get("settings", {}), traces=value.get("traces", []),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "code", "expected"),
    [
        ("walk_on_0", False, "walk_on_0"),
        ("_it_ a|b", False, r"\_it\_ a\|b"),
        ("<b>&", False, r"\<b\>\&"),
        ("[x](y)", False, r"[x]\(y)"),
        ("a | b", True, r"`a \| b`"),
        ("a `b`", True, "`` a `b` ``"),
    ],
)
def test_text_stays_text_in_markdown(text, code, expected):
    assert leaderboard.markdown_cell(leaderboard.Cell(text, code=code)) == expected


# --- the page ---


class Page(HTMLParser):
    """Tables as lists of rows of cells, and everything a browser would load."""

    VOID = {"meta", "input", "rect", "line", "circle", "path"}

    def __init__(self, text):
        super().__init__()
        self.open, self.tables, self.loads, self.scripts, self.figures = [], [], [], [], []
        self.links, self.keys, self.ids = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag not in self.VOID:
            self.open.append(tag)
        self.loads += [
            attrs[key] for key in ("src", "data", "xlink:href", "srcset") if key in attrs
        ]
        if tag == "link":
            self.loads.append(attrs.get("href"))
        if tag == "a":
            self.links.append(attrs["href"])
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if "id" in attrs:
            self.ids.append(attrs["id"])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self.keys.append(attrs.get("data-key"))
        if tag == "figcaption":
            self.figures.append("")
        if tag == "script":
            self.scripts.append("")

    def handle_startendtag(self, tag, attrs):
        assert tag in self.VOID
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "script" in self.open:
            self.scripts[-1] += data
        elif "td" in self.open or "th" in self.open:
            if "button" in self.open and "td" in self.open:
                return
            self.tables[-1][-1][-1] += data
        elif "figcaption" in self.open:
            self.figures[-1] += data


def test_the_page_holds_every_row_and_loads_nothing(results, tmp_path):
    text, html = run(results, tmp_path / "out")
    page = Page(html)
    assert page.loads == [] and "http" not in re.sub(r"<script>.*</script>", "", html, flags=re.S)
    assert len(page.scripts) == 1
    written = markdown_tables(text)
    tracking = [row for title, rows in written.items() if "Tracking" in title for row in rows]
    others = [rows for title, rows in written.items() if "Tracking" not in title]
    assert [len(table) - 1 for table in page.tables] == [len(tracking), *map(len, others)]
    head, *rows = page.tables[0]
    assert head == ["suite", *tracking[0]]
    assert [row[1:4] for row in rows[:2]] == [["walk", "clip", "walk"], ["walk", "robust", "walk"]]
    head, *files = page.tables[-1]
    assert head[-1] == "command"
    assert [f"[{row[0]}]" for row in files] == [row["file"].partition("(")[0] for row in others[-1]]
    assert files[-1][-1] == "python benchmarks/track.py --json benchmarks/results/out.json"
    # Each row leads to its file's row, which has the command.
    about = [unquote(link[1:]) for link in page.links if link.startswith("#")]
    assert len(about) == sum(len(table) - 1 for table in page.tables[:-1])
    assert set(about) == {name for name in page.ids if name.startswith("file-")}
    assert {row[3] for row in rows[2:]} == {"far", HOSTILE}
    assert page.figures == ["walk", "walk1_subject1[5:15]"]
    assert all(key is None or float(key) == float(key) for key in page.keys)


def test_plots_hold_what_the_rows_hold(results, tmp_path):
    _, html = run(results, tmp_path / "out")
    walk, cut = re.findall(r'<figure class="clip">.*?</figure>', html, re.S)
    assert walk.count('class="bar"') == walk.count("<circle") == 2
    width = leaderboard.WIDTH
    assert [float(v) for v in re.findall(r'class="bar".*?width="([\d.]+)"', cut)] == [
        pytest.approx(0.42 * width, abs=0.06)
    ] * 2
    (points,) = re.findall(r'<polyline class="c0" points="(.*?)"', walk)
    assert len(points.split()) == 3
    failed = track(track_row(success=0.0, success_ci95=[0.0, 0.7934507], survival_s=0.4))
    failed["traces"][0]["failed_s"] = 0.42
    write(results / "walk.json", failed)
    _, html = run(results, tmp_path / "out")
    assert "walk failed at 0.42 s" in html


def test_videos_are_linked_where_there_are_any(results, tmp_path):
    for name in ("walk.mp4", "more/cut_walk1_subject1_5_15_.webm"):
        (results / name).write_bytes(b"video")
    text, html = run(results, tmp_path / "out" / "deep")
    links = {link for link in Page(html).links if not link.endswith("json") and link[0] != "#"}
    assert links == {
        "../../results/more/cut_walk1_subject1_5_15_.webm", "../../results/walk.mp4",
    }  # fmt: skip
    rows = markdown_tables(text)["Tracking: builtin"]
    assert {row["video"] for row in rows} == {"[video](../../results/walk.mp4)"}


def test_the_same_results_give_the_same_files(results, tmp_path):
    assert run(results, tmp_path / "a") == run(results, tmp_path / "b")


NODE = shutil.which("node")
HARNESS = """
function cell(text, key) {
  return { textContent: text, getAttribute: (name) => name === "data-key" ? key : null };
}
function row(cells) {
  return { children: cells, hidden: false, get textContent() {
    return cells.map((c) => c.textContent).join(" "); } };
}
function head() {
  const at = { "aria-sort": "none" };
  return { getAttribute: (n) => at[n], setAttribute: (n, v) => { at[n] = v; }, at };
}
const rows = [
  row([cell("walk_on_10", null), cell("9.5", "9.5")]),
  row([cell("walk_on_2", null), cell("-", null)]),
  row([cell("Dance", null), cell("100", "100.0")]),
  row([cell("not told", null), cell("9.5", "9.5")]),
];
const body = { rows: rows.slice(), appendChild(row) {
  this.rows.splice(this.rows.indexOf(row), 1); this.rows.push(row); } };
const heads = [head(), head()];
const table = { tHead: { rows: [{ children: heads }] }, tBodies: [body] };
const names = () => body.rows.map((r) => r.children[0].textContent);
const out = [];
for (const column of [0, 0, 1, 1, 0]) {
  sortBy(table, column);
  out.push([names(), heads.map((h) => h.at["aria-sort"])]);
}
filterBy(table, "WALK 9.5");
out.push(body.rows.filter((r) => !r.hidden).map((r) => r.children[0].textContent));
filterBy(table, "");
out.push(body.rows.filter((r) => !r.hidden).length);
console.log(JSON.stringify(out));
"""


@pytest.mark.skipif(
    NODE is None, reason="node, which runs the page's script here, is not installed"
)
def test_the_pages_script_sorts_and_filters(results, tmp_path):
    """In node with stand-ins for the table's elements: no browser is among the test's packages."""
    _, html = run(results, tmp_path / "out")
    script = tmp_path / "page.js"
    script.write_text(Page(html).scripts[0] + HARNESS)
    done = subprocess.run([NODE, str(script)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    up, down, fewest, most, again, filtered, all_of_them = json.loads(done.stdout)
    assert up == [["Dance", "walk_on_2", "walk_on_10", "not told"], ["ascending", "none"]]
    assert down == [["walk_on_10", "walk_on_2", "Dance", "not told"], ["descending", "none"]]
    # Equal ones stay in their order, and what is not told is last both ways.
    assert fewest == [["walk_on_10", "not told", "Dance", "walk_on_2"], ["none", "ascending"]]
    assert most == [["Dance", "walk_on_10", "not told", "walk_on_2"], ["none", "descending"]]
    assert again[1] == ["ascending", "none"]
    assert filtered == ["walk_on_10"] and all_of_them == 4


def test_the_page_fits_a_window_and_opens_with_results(chromium, tmp_path):
    """That of the project's own files: no table is wider than its place, and the first is seen."""
    out = tmp_path / "out"
    run(ROOT / "benchmarks" / "results", out)
    view = chromium.new_page(viewport={"width": 1280, "height": 800})
    view.goto((out / "index.html").as_uri())
    widths = view.evaluate(
        "[...document.querySelectorAll('.wide')].map(one => [one.scrollWidth, one.clientWidth])"
    )
    assert len(widths) > 5 and not [pair for pair in widths if pair[0] > pair[1]]
    page = view.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert page[0] <= page[1]
    # Of the first table the head and some rows.
    assert view.locator("table tbody tr").nth(5).bounding_box()["y"] < 700
    view.close()


# --- refusals ---


@pytest.mark.slow
def test_a_refused_file_leaves_nothing(results, tmp_path):
    value = json.loads((results / "walk.json").read_text())
    value["rows"][0]["success"] = 1.7
    write(results / "walk.json", value)
    script = str(ROOT / "benchmarks" / "leaderboard.py")
    out = tmp_path / "out"
    done = warm_python.run(
        [sys.executable, script, "--results", str(results), "--out", str(out)],
        capture_output=True, text=True, timeout=300, cwd=ROOT,
    )  # fmt: skip
    path = results / "walk.json"
    assert (done.returncode, done.stdout, done.stderr) == (
        2, "", f"error: {path}: row 1: success is 1.7, expected a number of 0 to 1.\n",
    )  # fmt: skip
    assert not out.exists()


def test_settings_are_checked(results, tmp_path):
    with pytest.raises(ConfigError, match="verify is -1, expected 0 or more"):
        leaderboard.Config(verify=-1)
    (tmp_path / "file").write_text("")
    with pytest.raises(BMError, match="is no folder, expected one for --out"):
        run(results, tmp_path / "file")
    (tmp_path / "out" / "index.html").mkdir(parents=True)
    with pytest.raises(BMError, match="index.html is a folder"):
        run(results, tmp_path / "out")
    assert not (tmp_path / "out" / "LEADERBOARD.md").exists()


# --- running again ---


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """What `track.py` says of the shipped walk on 2 s of its motion."""
    out = tmp_path_factory.mktemp("measured") / "cut.json"
    warm_python.run(
        [sys.executable, str(ROOT / "benchmarks" / "track.py"), "--policy", "walk", "--motion",
         "walk[4:6]", "--protocol", "clip", "--json", str(out)],
        check=True, capture_output=True, timeout=300, cwd=ROOT,
    )  # fmt: skip
    value = json.loads(out.read_text())
    value["command"] = "python benchmarks/track.py --policy walk"
    value["commit"] = value["commit"] or "0" * 40
    return value


def verified(tmp_path, value, policy=None, count=1):
    folder = tmp_path / "results"
    folder.mkdir(exist_ok=True)
    write(folder / "cut.json", value)
    if policy is not None:
        shutil.copy(ROOT / "bm_envs" / "assets" / "policies" / policy, folder / "cut.onnx")
    return leaderboard.verify([read_result(folder / "cut.json")], count, seed=0)


@pytest.mark.slow
def test_a_measured_row_is_borne_out(measured, tmp_path, capsys):
    said, doubts = verified(tmp_path, measured, count=3)
    assert said == (
        "1 of 1 tracking rows were run again and are borne out; the policies of 0 are not at hand."
    )
    assert doubts == {}
    assert "cut.json: row 1: walk, walk[4:6], clip" in capsys.readouterr().out


@pytest.mark.slow
def test_a_changed_figure_is_caught_and_nothing_is_written(measured, tmp_path):
    value = copy.deepcopy(measured)
    value["rows"][0]["r_mpkpe_mm"] *= 0.9
    with pytest.raises(
        ResultError,
        match=r"cut.json: row 1: r_mpkpe_mm is [\d.]+, but run again it is [\d.]+ \(within 5%\)\.$",
    ):
        verified(tmp_path, value)
    with pytest.raises(ResultError, match="r_mpkpe_mm"):
        run(tmp_path / "results", tmp_path / "out", verify=1)
    assert not (tmp_path / "out").exists()
    run(tmp_path / "results", tmp_path / "out")  # the file alone shows nothing


@pytest.mark.slow
def test_a_verification_has_a_fresh_seed_and_can_be_repeated(measured, tmp_path, capsys):
    folder = tmp_path / "results"
    folder.mkdir()
    write(folder / "cut.json", measured)
    seeds = []
    for _ in range(2):
        run(folder, tmp_path / "out", verify=1)
        seeds += re.findall(r"^fresh seed (\d+)$", capsys.readouterr().out, re.M)
    assert len(set(seeds)) == 2
    run(folder, tmp_path / "out", verify=1, seed=int(seeds[0]))
    assert f"seed {seeds[0]} again\n" in capsys.readouterr().out


def test_draws_of_a_second_run_are_the_verifications(measured, monkeypatch, tmp_path):
    """The file's own seed, which its maker knew, has no part in it; nor its number of episodes."""
    started = []

    def start(command, **_):
        started.append(command)
        return subprocess.CompletedProcess(command, 2, "", "error: none")

    monkeypatch.setattr(leaderboard.subprocess, "run", start)
    file = make_file(measured | {"seed": 7})
    with pytest.raises(ResultError, match="cannot be run again"):
        leaderboard.run_again(file, measured["rows"][0], "walk", 123)
    ((*words,),) = started
    assert words[words.index("--seed") + 1] == "123" and "7" not in words
    at = words.index("--protocol")
    assert words[at + 1 : at + 3] == ["clip", "clip-perturbed"] and "--trials" not in words


@pytest.mark.slow
def test_another_policy_under_its_own_name_is_not_ranked(measured, tmp_path, capsys):
    value = copy.deepcopy(measured)
    value["rows"][0]["policy"] = "mine"
    assert verified(tmp_path, value)[0].startswith("0 of 1 ")
    said, doubts = verified(tmp_path, value, "walk.onnx")
    assert said.startswith("1 of 1 ")
    reason = "3 of its 3 layers have the weights of the policy 'walk'"
    assert list(doubts.values()) == [[reason]]
    assert f"not ranked: {tmp_path / 'results' / 'cut.json'}: policy mine: {reason}\n" in (
        capsys.readouterr().out
    )
    with pytest.raises(
        ResultError,
        match=r"policy_sha256 is 13fbbdd7fa42\.\.\., but cut.onnx beside it is another policy\.$",
    ):
        verified(tmp_path, value, "walks.onnx")


def test_a_shipped_name_with_another_digest_is_not_at_hand(measured, tmp_path):
    value = copy.deepcopy(measured)
    value["settings"]["policy_sha256"] = "0" * 64
    assert verified(tmp_path, value)[0] == (
        "0 of 1 tracking rows were run again and are borne out; the policies of 1 are not at hand."
    )


def test_what_is_doubted_is_listed_and_not_ranked(results, tmp_path, monkeypatch):
    found = {(results / "more" / "cut.json", HOSTILE): ["it remembers", "it is another's"]}
    monkeypatch.setattr(leaderboard, "verify", lambda *_: ("said", found))
    text, html = run(results, tmp_path / "out", verify=1, seed=0)
    tables = markdown_tables(text)
    assert [row["policy"] for row in tables["Tracking: lafan1-cuts"]] == ["far"]
    (row,) = tables["Left out"]
    assert (row["rows"], row["reason"]) == ("1", "it remembers; it is another's")
    assert row["result"] == "more/cut" and "it is another&#x27;s" in html


def test_maintainers_have_the_last_word(results, tmp_path, monkeypatch):
    """A policy that they do not rank is left out without any verification."""
    verdicts = tmp_path / "looked_at.json"
    monkeypatch.setattr(leaderboard, "LOOKED_AT", verdicts)
    verdict = {"ranked": False, "reason": "a table of the reference"}
    write(verdicts, {result_files.WALK_SHA256: verdict})
    tables = markdown_tables(run(results, tmp_path / "out")[0])
    assert not [title for title in tables if title.startswith("Tracking")]
    assert {row["reason"] for row in tables["Left out"]} == {"a table of the reference"}
    write(verdicts, {result_files.WALK_SHA256: verdict | {"ranked": True}})
    assert "Left out" not in markdown_tables(run(results, tmp_path / "out")[0])
    for bad in ([], {"a": True}, {"a": {"ranked": 1, "reason": "x"}}, {"a": {"ranked": True}}):
        write(verdicts, bad)
        with pytest.raises(ConfigError, match='expected {"ranked": true or false, "reason": text}'):
            run(results, tmp_path / "out")


def test_what_no_table_shows_is_listed(results, tmp_path):
    before = result_files.gates()
    before["rows"] = [dict(before["rows"][0], details={"strength": 30.0})]
    write(results / "before.json", before)
    write(results / "again.json", result_files.gates() | {"created": "2099-01-01T00:00:00+00:00"})
    accuracy = ROOT / "benchmarks" / "results" / "physics_accuracy.json"
    shutil.copy(accuracy, results)
    left = markdown_tables(run(results, tmp_path / "out")[0])["Left out"]
    assert {(row["result"], row["what"], row["rows"], row["reason"]) for row in left} == {
        ("before", "gates", "1", "steered by factors of a gradient, as before 0.2"),
        ("gates", "gates", "2", "examined again later"),
        ("physics_accuracy", "physics_accuracy",
         str(len(json.loads(accuracy.read_text())["rows"])),
         "files of the kind physics_accuracy have no table here"),
    }  # fmt: skip


# --- what a policy is told ---


def test_privilege_is_the_rows_own_where_it_tells_it(results, tmp_path):
    blind = track_row(observation_size=154, base_state="none", control_hz=100.0)
    value = track(blind)
    value["settings"]["policy_sha256"] = "0" * 64
    write(results / "walk.json", value)
    (row,) = markdown_tables(run(results, tmp_path / "out")[0])["Tracking: builtin"]
    assert [row[key] for key in ("obs", "base", "Hz")] == ["154", "none", "100"]
    del blind["observation_size"], blind["base_state"], blind["control_hz"]
    write(results / "walk.json", value)
    (row,) = markdown_tables(run(results, tmp_path / "out")[0])["Tracking: builtin"]
    assert [row[key] for key in ("obs", "base", "Hz")] == ["not told", "not told", "50"]


def test_a_delay_is_borne_if_no_trial_failed():
    def sim2sim(*rows):
        return make_file({**track(), "kind": "sim2sim", "rows": [
            {"policy_sha256": digest, "motion": "walk", "state": state, "command_ms": command,
             "sensor_ms": sensor, "trials": 5, "survived": survived}
            for digest, state, command, sensor, survived in rows
        ]})  # fmt: skip

    found = leaderboard.borne_delays([
        sim2sim(("a", "true", 0.0, 0.0, 5), ("a", "true", 20.0, 0.0, 5),
                ("a", "estimated", 10.0, 5.0, 5), ("b", "true", 0.0, 0.0, 4)),
        sim2sim(("a", "true", 20.0, 0.0, 4), ("a", "true", 30.0, 0.0, 5),
                ("a", "estimated", 20.0, 0.0, 0)),
    ])  # fmt: skip
    assert found == {("a", "walk"): (15.0, "estimated")}


# --- comparisons of trainers ---


def test_trainers_are_compared_in_pairs(results, tmp_path):
    """Two motions, three seeds: what all three figures are, by hand."""
    base = result_files.learning()["rows"][0]

    def runs(algorithm, motion, minutes, survivals):
        return [
            base | {
                "algorithm": algorithm, "motion": motion, "seed": seed,
                "first_pass": {"env_steps": 10, "wall_s": 60 * m} if m else None,
                "clip": {"success": float(m is not None), "survival": s},
            }
            for seed, (m, s) in enumerate(zip(minutes, survivals, strict=True))
        ]  # fmt: skip

    rows = [
        *runs("ppo_track", "walk", (1.0, 4.0, None), (1.0, 1.0, 0.2)),
        *runs("wm_track", "walk", (0.5, 2.0, 1.0), (1.0, 1.0, 1.0)),
        *runs("ppo_track", "stand", (8.0, None, None), (1.0, 0.4, 0.6)),
        *runs("wm_track", "stand", (1.0, 1.0, None), (1.0, 1.0, 0.3)),
        base | {"algorithm": "wm_track", "motion": "alone"},
    ]  # fmt: skip
    for row in rows:
        row["wall_s"] = 3600.0
    write(results / "pairs.json", result_files.result("learning", rows))
    text, _ = run(results, tmp_path / "out")
    ppo, wm = markdown_tables(text)["Trainers compared"]
    # Of six, one is dropped at either end.
    assert [row["survived share, interquartile mean"] for row in (ppo, wm)] == ["75 %", "100 %"]
    within = [f"completed within {m} minutes" for m in (2, 5, 15)]
    assert [ppo[key] for key in within] == ["16.7 %", "33.3 %", "50 %"]
    assert [wm[key] for key in within] == ["66.7 %", "83.3 %", "83.3 %"]
    assert (ppo["motions"], ppo["runs"]) == ("2", "6")
    # 2 to 0 pairs: p = 2 / 4. Ratios 2, 2 and 8, all one way: 2 of 8 signs.
    assert (
        "Only ppo_track completed the clip in 0 of 6 pairs, only wm_track in 2 (McNemar's exact "
        "test: p = 0.5)." in text
    )
    assert "ppo_track took 3.17 times the minutes of wm_track" in text and "p = 0.25)" in text


# --- rows and second runs ---


def again_of(row, **around):
    """Second runs of a row of `clip`: the same, and 20 starts that all complete it."""
    spread = dict.fromkeys(("survival_s", *ERRORS, "normalized_return"), 0.01)
    near = row | {"protocol": "clip-perturbed", "episodes": 20, "spread": spread, **around}
    return {"clip": row, "clip-perturbed": near}


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"success": 0.0}, "success is 0.0, but run again it is 1"),
        ({"survival_s": 23.0}, "survival_s is 23.0, but run again it is 24.5"),
        ({"mpkpe_mm": None}, "mpkpe_mm is None, but run again it is 96.03"),
        ({"joint_pos_rad": 0.0935}, "joint_pos_rad is 0.0935, but run again it is 0.0874"),
        ({"normalized_return": 0.98}, "normalized_return is 0.98, but run again it is 0.925"),
    ],
)
def test_what_is_compared(changes, name):
    file = make_file(track(track_row(**changes)))
    with pytest.raises(ResultError, match=f"out.json: row 1: {re.escape(name)}"):
        leaderboard.compare(file, file.rows[0], again_of(track_row()))
    honest = make_file(track(track_row()))
    leaderboard.compare(honest, honest.rows[0], again_of(track_row()))
    with pytest.raises(ResultError, match="row 1: success is 1.0, but from starts beside it 1 of"):
        leaderboard.compare(honest, honest.rows[0], again_of(track_row(), success=0.05))


def test_what_a_row_tells_of_its_policy_is_compared():
    told = {"observation_size": 160, "base_state": "true", "control_hz": 50.0}
    file = make_file(track(track_row(**{**told, "observation_size": 154, "base_state": "none"})))
    with pytest.raises(ResultError, match="observation_size is 154, but the policy's is 160"):
        leaderboard.compare(file, file.rows[0], again_of(track_row(**told)))


def test_rates_of_robust_are_compared_by_their_intervals():
    def robust(success):
        spread = dict.fromkeys(("survival_s", *ERRORS, "normalized_return"), 0.5)
        return track_row(protocol="robust", episodes=100, success=success, survival_s=20.0,
                         spread=spread)  # fmt: skip

    near, far = (make_file(track(robust(success))) for success in (0.8, 1.0))
    leaderboard.compare(near, near.rows[0], {"robust": robust(0.7)})
    with pytest.raises(ResultError, match="success is 1, but 100 fresh episodes gave 0.7 "):
        leaderboard.compare(far, far.rows[0], {"robust": robust(0.7)})


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "the motion's SHA-256 is 2953a948324d..., but run again it is ffffffffffff..."),
        ({"clip_s": 24.52}, "clip_s is 24.52, but run again it is 24.5 (the same)."),
    ],
)
def test_another_version_of_the_motion_is_told(changes, sentence):
    again, told = track(track_row()), track(track_row(**changes))
    if not changes:
        again["settings"]["motion_sha256"]["walk"] = "f" * 64
    file = make_file(told)
    with pytest.raises(ResultError, match=re.escape(sentence)):
        leaderboard.check_motion(file, file.rows[0], again)


@pytest.mark.parametrize("motion", ["walk_on_3", "walk1_subject1~repaired[2:4]"])
def test_a_motion_that_is_computed_may_have_other_last_digits(motion):
    again, told = (track(track_row(motion=motion, suite="x")) for _ in range(2))
    again["settings"]["motion_sha256"][motion] = "f" * 64
    leaderboard.check_motion(make_file(told), make_file(told).rows[0], again)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("python a.py --policy walk --seed 1", "walk"),
        ("python a.py --policy='a b'", "a b"),
        ("python a.py --policy", None),
        ("python a.py --policy-config x", None),
        ("python a.py --policy 'open", None),
    ],
)
def test_a_flag_of_a_command(command, expected):
    assert leaderboard.option(command, "--policy") == expected


def test_another_engine_is_named_beside_the_policy():
    entry = leaderboard.Entry(make_file(track()), {"policy": "walk", "backend": "mujoco"})
    assert leaderboard.driven(entry) == "walk"
    entry.row["backend"] = "isaaclab"
    assert leaderboard.driven(entry) == "walk (isaaclab)"


def test_a_run_named_by_its_seed_is_named_by_its_variant_too():
    value = track()
    value["command"] = "python benchmarks/track.py --policy 'runs/dance1[0:10]/default/3'"
    entry = leaderboard.Entry(make_file(value), {"policy": "3", "backend": "mujoco"})
    assert leaderboard.driven(entry) == "default/3"
    value["command"] = "python benchmarks/track.py --suite builtin"
    assert leaderboard.driven(leaderboard.Entry(make_file(value), entry.row)) == "3"


def test_the_committed_leaderboard_is_that_of_the_committed_results(tmp_path):
    results = shutil.copytree(ROOT / "benchmarks" / "results", tmp_path / "results")
    text, _ = run(results, tmp_path / "out")  # beside it, as they are kept: links are relative
    for name in ("LEADERBOARD.md", "index.html"):
        kept = (ROOT / "benchmarks" / "leaderboard" / name).read_bytes()
        assert kept == (tmp_path / "out" / name).read_bytes(), f"make {name} again"
    assert "lafan1_walk4_subject1" in text
