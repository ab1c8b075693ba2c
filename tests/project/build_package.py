"""Wheels and source distributions of a copy of the repository, for the tests of both."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NOT_COPIED = (
    ".git", ".ci-cache", ".venv", ".hypothesis", ".*_cache", "__pycache__", "*.so", "*.pyd",
    "*.egg-info", "build", "dist", "node_modules", "runs", "site",
)  # fmt: skip


def copy_of_the_tree(tmp_path_factory):
    """A copy of the repository, in which nothing has been built."""
    folder = tmp_path_factory.mktemp("source") / "bm-envs"
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*NOT_COPIED))
    return folder


def built(source, folder, *, what="wheel", **environment):
    """The wheel, or the sdist, that is built of a tree."""
    # Without isolation nothing is downloaded: the environment's own setuptools builds.
    code = f"import setuptools.build_meta as b; b.build_{what}({str(folder)!r})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=600, cwd=source,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl" if what == "wheel" else "*.tar.gz")
    return path
