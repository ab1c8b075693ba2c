"""Imports point one way, declared packages are the ones used, and `import bm_envs` stays light."""

import ast
import functools
import importlib.metadata
import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPT_FOLDERS = ("algos", "benchmarks", "tools")
# Imported when asked for, and the extras that bring their packages.
ENGINES = {
    "adapters.rsl_rl": "clients",
    "adapters.sb3": "clients",
    "backends.mujoco_warp": "warp",
    "backends.mujoco_warp_kernels": "warp",
    "backends.isaaclab": "isaaclab",
    "backends.isaaclab_physx": "isaaclab",
    "backends.isaaclab_scene": "isaaclab",
    "deploy.unitree": "dds",
    "tasks.track.device": "warp",
    "learning.evaluation": "train",
    "learning.networks": "train",
    "learning.processes": "train",
    "learning.returns": "train",
    "learning.robots": "train",
    "learning.run": "train",
    "learning.tracker": "train",
}
# What a distribution brings beside its own name: packages of its wheel, and those that it pins.
BRINGS = {
    "isaaclab": {"isaaclab_newton", "isaaclab_ov", "mujoco_warp", "newton", "torch", "warp"},
    "rsl-rl-lib": {"rsl_rl", "torch"},  # which it requires
    "viser": {"msgspec", "websockets", "zstandard"},  # which it requires; pinned with it
}

# Module of bm_envs (with all that is inside it) -> modules of bm_envs it may import. A module may
# import others of its own package, but for `backends`, where each engine stands alone. `cli` is
# below `robots`, `motion` and `policy` because all three write files, and `cli` has the one way to
# write them whole or not at all (`atomic_path`, `write_json`); `policy` reads and embeds a motion;
# `tasks` read a diffusion model's file as `policy` reads a tracker's.
MAY_IMPORT = {
    "errors": set(),
    "rotations": set(),
    "native": set(),
    "cli": {"errors"},
    "hub": {"cli", "errors"},
    "robots": {"cli", "errors", "rotations"},
    "observation_terms": {"robots"},
    "motion": {"cli", "errors", "hub", "robots", "rotations"},
    "policy": {"cli", "errors", "hub", "motion", "observation_terms", "robots", "rotations"},
    # A second implementation of the control loop: nothing of `tasks` and `backends`.
    "deploy": {"cli", "errors", "motion", "policy", "robots", "rotations"},
    "backends": {"backends.base", "backends.host", "errors", "native", "robots", "rotations"},
    "tasks": {
        "backends.base",
        "backends.host",
        "cli",
        "errors",
        "motion",
        "native",
        "observation_terms",
        "policy",
        "robots",
        "rotations",
    },
    "envs": {"backends", "errors", "motion", "observation_terms", "robots", "rotations", "tasks"},
    "adapters": {"envs", "errors", "tasks"},
    "evaluation": {"envs", "errors", "motion", "policy", "robots", "tasks"},
    "results": {"cli", "errors", "evaluation", "motion", "tasks"},
    "web": {"backends.mujoco_render", "errors", "robots", "rotations"},
    "learning": {
        "motion",
        "backends.base",
        "cli",
        "envs",
        "errors",
        "evaluation",
        "observation_terms",
        "policy",
        "robots",
        "tasks",
    },
    "__init__": {"envs", "errors", "motion", "tasks"},
}


def sources(*folders):
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def scripts():
    """All but those of `benchmarks/peers`, which run among other projects' packages."""
    return [path for path in sources(*SCRIPT_FOLDERS) if path.parent.name != "peers"]


def module_of(path):
    """Dotted name inside bm_envs: `robots/g1.py` is `robots.g1`, `robots/__init__.py` `robots`."""
    parts = list(path.relative_to(ROOT / "bm_envs").with_suffix("").parts)
    if parts[-1] == "__init__" and len(parts) > 1:
        parts.pop()
    return ".".join(parts)


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


def forbidden(module, imported):
    """Whether `module` of bm_envs must not import `imported` (both without the leading bm_envs)."""
    package = module.partition(".")[0]
    allowed = MAY_IMPORT[package]
    if any(is_inside(imported, name) for name in allowed):
        return False
    if not is_inside(imported, package):
        return True
    if package != "backends":
        return False
    engine = module.partition(".")[2].partition("_")[0]  # mujoco_cpu, mujoco_render: one engine
    return module == "backends.base" or not imported.startswith(f"backends.{engine}_")


def test_the_package_imports_one_way():
    files = sources("bm_envs")
    assert len(files) > 10
    wrong = []
    for path in files:
        module = module_of(path)
        assert module.partition(".")[0] in MAY_IMPORT, f"{module} has no row in the table"
        for name in imports(ast.parse(path.read_text())):
            first, _, rest = name.partition(".")
            if first == "bm_envs" and rest and forbidden(module, rest):
                wrong.append(f"{module} imports {name}")
    assert not wrong


@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("robots.g1", "motion.clip"),
        ("motion.clip", "tasks.track.config"),
        ("backends.mujoco_cpu", "tasks.track.config"),
        ("backends.mujoco_cpu", "backends.isaaclab"),
        ("backends.base", "backends.mujoco_cpu"),
        ("tasks.track.task", "backends.mujoco_cpu"),
        ("policy", "tasks.track.config"),
        ("deploy.controller", "tasks.track.config"),
        ("deploy.robot", "backends.mujoco_cpu"),
        ("errors", "robots"),
        ("envs", "evaluation"),
        ("envs", "adapters.sb3"),
        ("adapters.sb3", "learning.run"),
        ("web", "backends.mujoco_cpu"),
        ("web", "envs"),
    ],
)
def test_the_table_forbids(module, imported):
    assert forbidden(module, imported)


def test_scripts_import_the_package_and_not_each_other():
    stems = {path.stem for path in scripts()}
    wrong = []
    for path in scripts():
        for name in imports(ast.parse(path.read_text())):
            first = name.partition(".")[0]
            if first in (*SCRIPT_FOLDERS, "tests") or (
                first in stems and importlib.util.find_spec(first) is None
            ):
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong


def test_scripts_of_peers_do_without_the_package():
    files = sources("benchmarks/peers")
    assert files
    for path in files:
        names = imports(ast.parse(path.read_text()))
        assert not [name for name in names if is_inside(name, "bm_envs")], path


def distributions(requirements):
    return {re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", line)[0]).lower() for line in requirements}


provided_by = functools.cache(importlib.metadata.packages_distributions)  # reads every package


def third_party(path, *, eager):
    """`(import name, distributions that provide it)` of what a file imports from outside."""
    provided = provided_by()
    local = {
        "bm_envs",
        "tests",
        "golden",
        "conftest",
        *(p.stem for p in sources("tests", *SCRIPT_FOLDERS)),
    }
    found = []
    for name in imports(ast.parse(path.read_text()), eager=eager):
        first = name.partition(".")[0]
        if first not in sys.stdlib_module_names and first not in local:
            bringers = {name for name, packages in BRINGS.items() if first in packages}
            found.append((first, distributions(provided.get(first, [first])) | bringers))
    return found


def test_declared_packages_are_the_ones_imported():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    core = distributions(project["dependencies"]) | {"glfw"}  # which mujoco itself requires
    extras = project["optional-dependencies"]
    declared = core.union(*map(distributions, extras.values()))
    undeclared = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in (*sources("bm_envs", "tests"), *scripts())
        for name, providers in third_party(path, eager=False)
        if not providers & declared
    ]
    assert not undeclared
    not_core = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in sources("bm_envs")
        for name, providers in third_party(path, eager=True)
        if not providers & (core | distributions(extras.get(ENGINES.get(module_of(path)), ())))
    ]
    assert not not_core, "importable only with an extra installed"


def test_importing_the_package_is_light():
    heavy = (
        "torch", "huggingface_hub", "onnx", "onnxruntime", "tensorboard", "scipy", "av", "imageio",
        "moviepy", "tyro", "mujoco_warp", "isaaclab", "wandb", "viser", "cyclonedds", "roslibpy",
        "stable_baselines3", "rsl_rl",
    )  # fmt: skip
    assert importlib.util.find_spec("torch"), "premise: what must stay out could come in"
    code = f"import bm_envs, sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=300
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_constraints_pin_every_requirement_exactly():
    lines = [
        line for line in (ROOT / "constraints.txt").read_text().splitlines() if line[:1] != "#"
    ]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    pinned = distributions(lines)
    assert len(pinned) == len(lines)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    needed = distributions(project["dependencies"]).union(
        *(distributions(extras[name]) for name in ("deploy", "train", "hub", "viz", "dev"))
    )
    assert needed - {"bm-envs"} <= pinned
