"""The page on all of LAFAN1: right with no file, with some and with all, and that of the files."""

import hashlib
import importlib
import json
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from golden import tracking_facts as facts
from hypothesis import given
from hypothesis import strategies as st
from result_files import track, track_row

from bm_envs.errors import PolicyError, ResultError
from bm_envs.motion import suites
from bm_envs.statistics import wilson

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "docs"))
page = importlib.import_module("lafan1_tables")

FORTY = suites.motions("lafan1-40")
SVG = "{http://www.w3.org/2000/svg}"
LENGTH = 131.46  # s, of the clips here


def digest(name):
    return hashlib.sha256(name.encode()).hexdigest()


class Files:
    """A folder of results and one of policies, both made up."""

    def __init__(self, folder):
        self.results, self.folder = folder / "results", folder / "policies"
        self.results.mkdir()
        self.folder.mkdir()
        self.policies = {}

    def policy(self, name, *motions, **training):
        """A policy that ships."""
        told = {
            "algorithm": "wm_track", "env_steps": 1_500_000, "wall_s": 3600.0, "threads": 1,
            "first_pass": {"env_steps": 400_000, "wall_s": 900.0},
            "machine": {"processor": "AMD EPYC", "cores": 2, "gpu": None},
        }  # fmt: skip
        self.policies[name] = self.folder / f"{name}.onnx"
        (self.folder / f"{name}.json").write_text(json.dumps({
            "format": "bm-envs policy 1", "network": {"sha256": digest(name)},
            "motions": [{"name": motion} for motion in motions], "training": told | training,
        }))  # fmt: skip

    def measured(self, name, *rows, file=None, traces=(), created="2026-12-02", **settings):
        """A file of `benchmarks/track.py` on it."""
        value = track(*rows, **({"policy_sha256": digest(name)} | settings))
        value |= {"traces": list(traces), "created": f"{created}T10:00:00+00:00"}
        (self.results / f"{file or name}.json").write_text(json.dumps(value))

    def board(self):
        return page.read(self.results, self.policies)


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path)


def clip_row(policy, motion, failed_at=None, **figures):
    """A row of the protocol `clip`, completed unless `failed_at` says until when it went."""
    survived = LENGTH if failed_at is None else failed_at
    return track_row(
        policy=policy, motion=motion, suite="lafan1-40", clip_s=LENGTH, survival_s=survived,
        success=float(failed_at is None),
        success_ci95=list(wilson(int(failed_at is None), 1)), **figures,
    )  # fmt: skip


def robust_row(policy, motion, count):
    """A row of the protocol `robust`: so many of 100."""
    return track_row(
        policy=policy, motion=motion, suite="lafan1-40", protocol="robust", episodes=100,
        clip_s=LENGTH, survival_s=LENGTH if count == 100 else LENGTH - 10, success=count / 100,
        success_ci95=list(wilson(count, 100)), mpkpe_mm=120.4, r_mpkpe_mm=50.6,
    )  # fmt: skip


def trace(policy, motion, errors, every_s, failed_s=None):
    return {
        "policy": policy, "motion": motion, "every_s": every_s, "failed_s": failed_s,
        "mpkpe_mm": list(errors),
    }  # fmt: skip


def table_of(text):
    """Rows of the first table of a text, by their first cell."""
    lines = [line for line in re.split(r"\n\n(?=[^|])", text)[0].splitlines() if line[:1] == "|"]
    head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return {row[0].strip("`"): dict(zip(head, row, strict=True)) for row in rows}


def rows_of(board):
    """Of all forty clips."""
    both = [table_of(page.clips(names, board)) for names in (page.TABLE1, page.OTHERS)]
    assert not both[0].keys() & both[1].keys()
    return both[0] | both[1]


def cells_of(board):
    """The picture's cells by their clips: what each says, its line and its cross."""
    root = ET.fromstring(page.picture(board))
    cells = {}
    for group in root.findall(f"{SVG}g"):
        name, status = group.find(f"{SVG}title").text.split(": ")
        assert [text.text for text in group.findall(f"{SVG}text")][:2] == [name, status]
        line = group.find(f"{SVG}polyline")
        points = [] if line is None else [
            tuple(map(float, pair.split(","))) for pair in line.get("points").split()
        ]  # fmt: skip
        crosses = [
            path for path in group.findall(f"{SVG}path") if path.get("stroke") == page.FAILED
        ]
        cells[name] = status, points, crosses
    return cells


# --- which clips ----------------------------------------------------------------------------------


def test_the_clips_are_the_paper_s_and_the_rest():
    # Of the printed names one is no clip of LAFAN1, see `bm_envs/motion/suites.py`.
    assert set(page.TABLE1) - {"run2_subject4"} == facts.TABLE_1 - {"run1_subject4"}
    assert len(page.TABLE1) == 28 and len(page.OTHERS) == 12
    assert set(page.TABLE1) | set(page.OTHERS) == set(FORTY)


def test_with_no_file_every_row_says_not_measured(files):
    board = files.board()
    rows = rows_of(board)
    assert set(rows) == set(FORTY)
    for row in rows.values():
        # Of twelve columns ten would be empty.
        assert list(row)[1:] == ["completed"] and row["completed"] == "not measured"
    assert "complete **0 of the 28**" in page.standing(board)
    assert "40 of the 40 have no measured policy of their own." in page.standing(board)
    assert page.quality(board) == "No clip is measured yet."
    assert page.shared(board) == "No such policy is measured yet."
    assert page.cost(board).splitlines()[-1] == "| together | 0 | 0.0 | 0.0 |"
    for row in table_of(page.table2(board)).values():
        assert list(row.values())[-2:] == ["not measured", "not measured"]
    cells = cells_of(board)
    assert list(cells) == [*page.TABLE1, *page.OTHERS]
    assert all(cell == ("not measured", [], []) for cell in cells.values())


def test_with_all_files_every_row_has_its_figures(files):
    for i, name in enumerate(FORTY):
        policy = f"lafan1_{name}"
        files.policy(policy, name)
        files.measured(
            policy, clip_row(policy, name, mpkpe_mm=60.0 + i), robust_row(policy, name, 92),
            traces=[trace(policy, name, [50.0 + 0.1 * k for k in range(200)], 0.66)],
        )  # fmt: skip
    board = files.board()
    rows = rows_of(board)
    for i, name in enumerate(FORTY):
        row = rows[name]
        assert row["completed"] == "yes" and row["MPKPE, mm"] == str(60 + i)
        assert row["`robust` (95 % interval)"] == "92 of 100 (85 to 96 %)"  # Wilson's, by hand
        assert row["policy"] == f"`lafan1_{name}`"
    said = page.standing(board)
    assert "complete **28 of the 28**" in said and "and **28 of the 28** robustly: 80" in said
    assert "they complete 12, and 12 robustly" in said
    assert "All 40 clips are measured." in said
    text = page.picture(board)
    assert text == page.picture(files.board()), "the same files give the same bytes"
    assert len(text.encode()) < 300_000 and not re.search(r"20\d\d-\d\d", text)
    cells = cells_of(board)
    assert {cell[0] for cell in cells.values()} == {"completed"}
    assert all(len(points) == 200 and not crosses for _, points, crosses in cells.values())
    # 40 runs of an hour on one core, 1.5 million steps each.
    assert "| together | 40 | 60.0 | 40.0 |" in page.cost(board)
    assert "AMD EPYC, 2 cores (40)" in page.cost(board)
    for make in (page.standing, page.quality, page.table2, page.cost):
        assert "not measured" not in make(board) and " nan" not in make(board)


# --- one clip -------------------------------------------------------------------------------------


def test_a_failure_is_told_with_its_time_in_table_and_picture(files):
    name = policy = "walk1_subject1"
    files.policy(policy, name)
    errors = [10.0, 100.0, 1000.0, 5000.0]
    files.measured(
        policy, clip_row(policy, name, failed_at=100.0),
        traces=[trace(policy, name, errors, 25.0, failed_s=100.02)],
    )  # fmt: skip
    board = files.board()
    row = rows_of(board)[name]
    assert row["completed"] == "fails at 100.0 s"
    assert row["`robust` (95 % interval)"] == "not measured"
    assert "complete **0 of the 28**" in page.standing(board)
    status, points, (cross,) = cells_of(board)[name]
    assert status == "fails at 100.0 s"
    # A decade of error takes the same height each time; what is beyond the axis stands at its end.
    (_, a), (_, b), (_, c), (_, d) = points
    assert a - b == pytest.approx(b - c, abs=0.11) and c == d
    # Times are the middles of 25 s, evenly apart, and the cross stands where it failed.
    assert points[1][0] - points[0][0] == pytest.approx(points[3][0] - points[2][0], abs=0.11)
    x, y = map(float, re.match(r"M([\d.]+) ([\d.]+)", cross.get("d")).groups())
    per_s = (points[3][0] - points[0][0]) / 75
    assert x + 4 == pytest.approx(points[3][0] + 12.52 * per_s, abs=0.2)
    assert y + 4 == pytest.approx(d, abs=0.1)


def test_quality_stands_in_the_tables_with_the_reference_s(files):
    name = policy = "dance1_subject2"
    files.policy(policy, name, threads=2)
    figures = {
        "slip_p95_m_s": 0.123, "ref_slip_p95_m_s": 0.31, "impact_p95_bw": 1.44,
        "action_rate": 0.456, "chatter_share": 0.0321, "contact_toggles_s": 2.04,
        "ref_contact_toggles_s": 1.5, "joint_acc_rad_s2": 21.26, "ref_joint_acc_rad_s2": None,
        "torque_over_share": 0.00123,
    }  # fmt: skip
    files.measured(policy, clip_row(policy, name, **figures), robust_row(policy, name, 100))
    board = files.board()
    row = rows_of(board)[name]
    assert list(row.values())[3:-1] == [
        "100 of 100 (96 to 100 %)", "96", "34", "0.12 (0.31)", "1.4", "0.46", "3.2", "120",
    ]  # fmt: skip
    further = list(table_of(page.quality(board))[name].values())
    assert further[1:4] == ["2.0 (1.5)", "21.3", "0.12"]
    assert further[-2:] == ["120", "51"]
    assert table_of(page.quality(board)).keys() == {name}


@pytest.mark.parametrize(
    ("first", "second"),
    [  # failed at, robust episodes of 100 (None: not measured), MPKPE: the second is the better one
        ((100.0, 100, 10.0), (None, 0, 500.0)),
        ((None, None, 10.0), (None, 0, 500.0)),
        ((None, 79, 10.0), (None, 80, 500.0)),
        ((None, 80, 61.0), (None, 80, 60.0)),
    ],
)
@pytest.mark.parametrize("swapped", [False, True])
def test_of_two_policies_the_better_one_has_the_row(files, first, second, swapped):
    clip = "fight1_subject2"
    names = ("b_worse", "a_better") if swapped else ("a_worse", "b_better")
    for name, (failed_at, count, error) in zip(names, (first, second), strict=True):
        files.policy(name, clip)
        rows = [clip_row(name, clip, failed_at, mpkpe_mm=error)]
        files.measured(name, *rows, *([robust_row(name, clip, count)] if count is not None else []))
    board = files.board()
    assert board.best[clip].policy == names[1]
    assert page.cost(board).splitlines()[-3].startswith("| together | 1 |")


def test_the_newest_measurement_counts(files):
    name = policy = "run1_subject2"
    files.policy(policy, name)
    # By name the older one is the later.
    files.measured(policy, clip_row(policy, name, 50.0), file="b", created="2026-12-01")
    files.measured(policy, clip_row(policy, name), file="a", created="2026-12-02")
    assert rows_of(files.board())[name]["completed"] == "yes"


def test_only_what_ships_is_shown_under_the_protocol_as_it_stands(files):
    clip = "run1_subject2"
    files.policy("lafan1_run", clip)
    whole = clip_row("lafan1_run", clip)
    files.measured("lafan1_run", whole, file="another_network", policy_sha256=digest("other"))
    for setting in ({"failure_rules": "off"}, {"lead": 0}, {"feet": "capsules"}):
        files.measured("lafan1_run", whole, file=f"with_{next(iter(setting))}", **setting)
    files.measured("lafan1_run", whole | {"backend": "isaaclab"}, file="another_engine")
    cut = clip_row("lafan1_run", f"{clip}[20:30]") | {"suite": "lafan1-cuts"}
    files.measured("lafan1_run", cut, file="a_cut")
    files.measured("foreign", clip_row("foreign", clip))
    assert files.board().best == {}
    files.measured("lafan1_run", whole)
    assert files.board().best[clip].policy == "lafan1_run"


def test_lengths_are_those_of_the_reference_where_nothing_is_measured(files):
    reference = ROOT / "benchmarks" / "results" / "lafan1_reference.json"
    (files.results / "reference.json").write_bytes(reference.read_bytes())
    rows = rows_of(files.board())
    assert all(row["completed"] == "not measured" for row in rows.values())
    # 8195 frames at 50 a second, of which the first is the start.
    assert rows["walk4_subject1"]["s"] == f"{8194 / 50:.1f}"
    assert sum(float(row["s"]) for row in rows.values()) > 8000


# --- other tables ---------------------------------------------------------------------------------


def test_a_policy_of_many_clips_has_tables_of_its_own(files):
    clips = ["walk1_subject1", "walk1_subject2", "walk4_subject1"]
    files.policy("lafan1_walks", *clips, wall_s=7200.0)
    rows = [
        clip_row("lafan1_walks", clips[0], normalized_return=0.9),
        clip_row("lafan1_walks", clips[1], failed_at=40.0, normalized_return=0.3),
    ]
    files.measured("lafan1_walks", *rows, robust_row("lafan1_walks", clips[0], 50))
    board = files.board()
    assert board.best == {}
    # Neither is counted as a policy of its own, and both rows lead to these tables.
    assert "complete **0 of the 28**" in page.standing(board)
    assert "40 of the 40 have no measured policy of their own; 2 of these" in page.standing(board)
    alone = {name: row["completed"] for name, row in rows_of(board).items()}
    assert {name for name, said in alone.items() if page.SHARED in said} == set(clips[:2])
    row = table_of(page.shared(board))["lafan1_walks"]
    assert list(row.values())[1:] == ["3 clips", "2", "1", "1", "50 of 100", "0.60", "120"]
    by_clip = page.shared(board).split("clip by clip:")[1]
    assert [line.split(" | ")[2] for line in by_clip.strip().splitlines()[2:]] == [
        "yes", "fails at 40.0 s",
    ]  # fmt: skip
    assert "| one policy for many clips | 1 | 1.5 | 2.0 |" in page.cost(board)


def test_the_paper_s_table_2_stands_beside_our_steps(files):
    names = list(facts.TABLE_2)
    samples = facts.PPO["num_envs"] * facts.PPO["num_steps"]
    files.policy("one", names[0], threads=2)
    files.policy("two", names[1], first_pass={}, start_from="dance1")
    for policy, name in zip(("one", "two"), names, strict=False):
        files.measured(policy, clip_row(policy, name, None if policy == "one" else 60.0))
    table = table_of(page.table2(files.board()))
    assert list(table) == names
    for name, row in table.items():
        assert row["paper, adaptive starts: iterations"] == str(facts.TABLE_2[name])
        assert row["the same, million samples"] == f"{facts.TABLE_2[name] * samples / 1e6:.0f}"
    first, second, third = (list(row.values())[-2:] for row in table.values())
    # 900 s on two threads are 30 core-minutes; a run that never completed tells its whole length.
    assert first == ["0.40", "30.0"]
    assert second == ["not in 1.50, after `dance1`", "not in 60.0"]
    assert third == ["not measured", "not measured"]
    assert "went on from (`--start-from`), of `two`." in page.cost(files.board())


def test_a_description_without_threads_is_of_one_core(files):
    name = policy = "jumps1_subject1"
    files.policy(policy, name)
    path = files.folder / f"{policy}.json"
    value = json.loads(path.read_text())
    del value["training"]["threads"]
    path.write_text(json.dumps(value))
    files.measured(policy, clip_row(policy, name))
    assert rows_of(files.board())[name]["core-minutes"] == "60"


def test_what_is_no_result_file_is_refused(files):
    files.policy("a", "walk1_subject1")
    files.measured("a", clip_row("a", "walk1_subject1") | {"success": 0.5})
    with pytest.raises(ResultError, match="success is 0.5"):
        files.board()
    files.measured("a", clip_row("a", "walk1_subject1"))
    (files.folder / "a.json").write_text("{}")
    with pytest.raises(PolicyError, match="not a policy description"):
        files.board()


def test_columns_without_a_figure_are_left_out():
    lines = [["a", "-", "1", "-"], ["b", "2", "-", "-"]]
    assert table_of(page.filled_columns(["clip", "x", "y", "z"], lines)) == {
        "a": {"clip": "a", "x": "-", "y": "1"}, "b": {"clip": "b", "x": "2", "y": "-"},
    }  # fmt: skip


# --- picture and page -----------------------------------------------------------------------------


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=2))
def test_a_larger_error_never_stands_lower_and_none_leaves_the_cell(pair):
    low, high = sorted(pair)
    assert page.TOP <= page.y_of(high) <= page.y_of(low) <= page.CELL_H - page.BOTTOM
    assert page.LEFT <= page.x_of(low) <= page.x_of(high) <= page.CELL_W - page.RIGHT


@pytest.mark.clone
def test_the_page_s_picture_is_that_of_the_files():
    """`python docs/lafan1_tables.py` draws it again after files have changed."""
    assert page.PICTURE.read_text() == page.picture(page.board_here()), f"run python {page.SCRIPT}"
    assert f"](images/{page.PICTURE.name})" in (ROOT / "docs" / "lafan1.md").read_text()


def test_check_tells_of_a_picture_that_is_not_that_of_the_files(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(page, "PAGES", {})
    monkeypatch.setattr(page, "ROOT", tmp_path)
    monkeypatch.setattr(page, "PICTURE", tmp_path / "lafan1.svg")
    assert page.main(["--check"]) == 1 and "lafan1.svg: run python" in capsys.readouterr().out
    assert page.main([]) == 0 and page.main(["--check"]) == 0
    page.PICTURE.write_text(page.PICTURE.read_text().replace("not measured", "completed", 1))
    assert page.main(["--check"]) == 1
