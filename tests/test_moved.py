"""An import of a module that moved says where it is now."""

import importlib
import importlib.util
import re
import subprocess
import sys

import pytest

import bm_envs


def test_every_old_name_is_gone_and_every_new_one_is_there():
    for old, new in bm_envs.MOVED.items():
        with pytest.raises(ModuleNotFoundError, match=f"^{re.escape(f'{old} is now {new}.')}$"):
            importlib.import_module(old)
        assert importlib.util.find_spec(new), new


@pytest.mark.parametrize(
    "line",
    ["import bm_envs.old", "from bm_envs import old", "from bm_envs.old import name"],
)
def test_each_form_of_import_says_the_new_name(monkeypatch, line):
    monkeypatch.setitem(bm_envs.MOVED, "bm_envs.old", "bm_envs.robots.g1")
    with pytest.raises(ModuleNotFoundError, match=r"^bm_envs\.old is now bm_envs\.robots\.g1\.$"):
        exec(line, {})


def test_a_module_that_never_was_is_refused_as_ever():
    with pytest.raises(ModuleNotFoundError, match="No module named 'bm_envs.never'"):
        importlib.import_module("bm_envs.never")


def test_a_second_import_of_the_package_leaves_one_finder():
    code = (
        "import sys, importlib, bm_envs; importlib.reload(bm_envs); "
        "print(sum('Moved' in type(f).__name__ for f in sys.meta_path))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "1", done.stderr
