"""The project's own source files, and what a parsed one imports."""

import ast
import functools
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SCRIPT_FOLDERS = ("algos", "benchmarks", "tools")


def sources(*folders):
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def scripts():
    """All but those of `benchmarks/peers`, which run among other projects' packages."""
    return [path for path in sources(*SCRIPT_FOLDERS) if path.parent.name != "peers"]


def name_of(path):
    """Path from the project's root without the suffix: `bm_envs/robots/g1`."""
    return path.relative_to(ROOT).with_suffix("").as_posix()


def module_of(path):
    """Dotted name inside bm_envs: `robots/g1.py` is `robots.g1`, `robots/__init__.py` `robots`."""
    parts = list(path.relative_to(ROOT / "bm_envs").with_suffix("").parts)
    if parts[-1] == "__init__" and len(parts) > 1:
        parts.pop()
    return ".".join(parts)


@functools.cache
def parsed(path):
    """The file's syntax tree, the same for all who ask: nobody may change it."""
    return ast.parse(path.read_text())


def imports(tree, *, eager=False):
    """Dotted names a module imports; with `eager` only those that importing it executes."""
    names = []

    def visit(node):
        if isinstance(node, ast.Import):
            names.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            # `from a import b` may name a module b or a member of a: the longer name serves both.
            names.extend(f"{node.module}.{alias.name}" for alias in node.names)
        if eager:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
                return
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
                return
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(tree)
    return names


def is_inside(name, module):
    return name == module or name.startswith(module + ".")
