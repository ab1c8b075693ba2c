"""The conformance suite's record: what each test came to, in a result file."""

import pytest

from bm_envs.errors import ConfigError
from bm_envs.results import read_result
from tests.conformance import record

SUITE = """
import pytest

@pytest.fixture(params=["mujoco", "isaaclab", "engine_2"])
def backend(request):
    if request.param == "isaaclab":
        pytest.skip("no such engine here")
    return request.param

def test_falls(backend):
    pass

def test_stands(backend):
    assert backend == "upright"

def test_of_none():
    pass
"""


def test_each_outcome_is_a_row_with_its_reason(tmp_path, monkeypatch, pytester_folder):
    monkeypatch.setattr(record, "FOLDER", pytester_folder)
    out = tmp_path / "out.json"
    monkeypatch.setattr("sys.argv", ["tests/conformance/record.py", "--json", "out.json"])
    names = ("mujoco", "isaaclab", "engine_2")
    monkeypatch.setattr(record, "backend_names", lambda: names)
    with pytest.raises(SystemExit) as end:
        record.main(record.Config(json=out, backend=names))
    assert end.value.code == 1  # one failed
    rows = {(row["test"], row["backend"]): row for row in read_result(out).rows}
    told = {key: (row["outcome"], row["reason"]) for key, row in rows.items()}
    name = "test_suite.py test_"
    assert told[f"{name}falls[mujoco]", "mujoco"] == ("passed", "")
    assert told[f"{name}falls[isaaclab]", "isaaclab"] == ("skipped", "no such engine here")
    assert told[f"{name}falls[engine_2]", "engine_2"] == ("passed", "")
    assert told[f"{name}of_none", None] == ("passed", "")
    outcome, reason = told[f"{name}stands[mujoco]", "mujoco"]
    assert outcome == "failed" and "AssertionError" in reason
    assert len(rows) == 7


@pytest.fixture
def pytester_folder(tmp_path):
    """A suite of its own, with the option that the real one has in the root's conftest."""
    folder = tmp_path / "suite"
    folder.mkdir()
    (folder / "test_suite.py").write_text(SUITE)
    (folder / "conftest.py").write_text(
        "def pytest_addoption(parser):\n    parser.addoption('--backend', nargs='+')\n"
    )
    return folder


def test_nothing_run_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "FOLDER", tmp_path)
    (tmp_path / "conftest.py").write_text(
        "def pytest_addoption(parser):\n    parser.addoption('--backend', nargs='+')\n"
    )
    out = tmp_path / "out.json"
    with pytest.raises(record.BMError, match="no test"):
        record.main(record.Config(json=out, backend=("mujoco",)))
    assert not out.exists()


def test_an_unknown_backend_is_named(tmp_path):
    with pytest.raises(ConfigError, match="Unknown backend 'bullet'"):
        record.Config(json=tmp_path / "out.json", backend=("bullet",))
