"""docs/robustness_tables.py: what tables and plots say of files made here."""

import importlib
import json
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from result_files import result

from bm_envs.results.robustness import half_of
from bm_envs.statistics import wilson

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "docs"))
tables = importlib.import_module("robustness_tables")


def row(axis, harder, values, successes, **changes):
    half, ends = half_of(values, successes, 100, harder)
    return {
        "policy": "walk", "world": "robust", "motion": "walk", "backend": "mujoco", "axis": axis,
        "unit": "", "harder": harder, "standard": None, "episodes": 100, "episode_s": 10.0,
        "values": values, "successes": successes, "success": [n / 100 for n in successes],
        "success_ci95": [list(wilson(n, 100)) for n in successes],
        "survival_s": [10.0 if n == 100 else n / 10 for n in successes], "half": half,
        "half_ci95": ends, **changes,
    }  # fmt: skip


def folder_with(tmp_path, *rows, name="walk"):
    path = tmp_path / f"robustness_{name}.json"
    path.write_text(json.dumps(result("robustness", list(rows))))
    return tmp_path


def cells(table):
    return [[c.strip() for c in line.strip("|").split("|")] for line in table.splitlines()]


def test_without_files_the_page_says_that_nothing_is_measured(tmp_path):
    assert tables.halves(tmp_path) == tables.curves(tmp_path) == "Nothing is measured yet."
    assert all(tables.picture(axis, tmp_path) is None for axis in tables.TITLES)


def test_where_half_survive_by_direction(tmp_path):
    folder = folder_with(
        tmp_path,
        row("push", "up", [0.0, 1.0, 2.0], [100, 75, 25], unit="m/s", standard=0.5),
        row("friction", "down", [0.2, 0.6, 1.0], [0, 50, 100]),
        row("payload", "up", [0.0, 5.0], [100, 99], unit="kg", standard=0.0),
        row("latency", "up", [0.0, 40.0], [10, 0], unit="ms", standard=0.0),
        row("iterations", "down", [1, 20], [100, 100], standard=10),
        row("noise", "up", [0.0, 3.0], [100, 52], standard=1.0),
        row("sole", None, ["spheres", "capsules"], [100, 90], standard="spheres"),
    )
    found = {line[0]: line for line in cells(tables.halves(folder))[2:]}
    assert "sole" not in found
    assert found["push"][1:5] == ["walk", "0 to 2 m/s", "0.5", "1.5"]
    assert found["friction"][3:5] == ["drawn", "0.6"]
    low, high = (float(end) for end in found["friction"][5].split(" to "))
    assert low < 0.6 < high
    assert found["payload"][4] == "beyond the grid: more than half survive 5"
    assert found["payload"][5] == "above 5"
    assert found["latency"][4] == "beyond the grid: fewer than half survive 0"
    assert found["latency"][5] == "below 0"
    assert found["iterations"][4] == "beyond the grid: more than half survive 1"
    assert found["iterations"][5] == "below 1"
    assert found["noise"][5].endswith(" to above 3")
    assert [line[0] for line in cells(tables.halves(folder))[2:]] == [
        "push", "friction", "payload", "latency", "noise", "iterations",
    ]  # fmt: skip


def test_policies_with_other_values_share_a_table_and_a_plot(tmp_path):
    folder_with(tmp_path, row("push", "up", [0.0, 1.0], [100, 75]))
    other = row("push", "up", [0.0, 2.0], [90, 25], policy="guided", motion=None, world="w")
    folder = folder_with(tmp_path, other, name="guided")
    head, _, guided, walk = cells(tables.points("push", folder))
    assert head == ["policy", "0", "1", "2", "file"]
    assert guided[0] == "guided, w" and guided[2] == "-"
    low, high = wilson(25, 100)
    assert guided[3] == f"25 ({100 * low:.0f} to {100 * high:.0f})"
    assert walk == ["walk", "100 (96 to 100)", "75 (66 to 82)", "-", "`robustness_walk`"]
    drawn = ElementTree.fromstring(tables.picture("push", folder))
    lines = [
        path.get("d") for path in drawn.iter("{http://www.w3.org/2000/svg}path")
        if path.get("fill") == "none"
    ]  # fmt: skip
    assert len(lines) == 2
    (x0, y0), (x1, y1) = re.findall(r"([\d.]+) ([\d.]+)", lines[0])  # guided: 0 and 2, 90 and 25 %
    assert float(x1) - float(x0) == pytest.approx(tables.WIDTH, abs=0.1)
    assert float(y1) - float(y0) == pytest.approx(0.65 * tables.HEIGHT, abs=0.1)


def test_soles_have_a_table_and_no_plot(tmp_path):
    folder = folder_with(tmp_path, row("sole", None, ["spheres", "capsules"], [100, 90]))
    assert tables.picture("sole", folder) is None
    text = tables.curves(folder)
    assert "### Shape of the soles" in text and "![" not in text
    assert cells(tables.points("sole", folder))[0][1:3] == ["spheres", "capsules"]


@pytest.mark.clone
def test_plots_are_those_of_the_files(capsys):
    assert tables.main(["--check"]) == 0, capsys.readouterr().out
