"""Imports point one way, declared packages are the ones used, and `import bm_envs` stays light."""

import ast
import functools
import importlib.metadata
import importlib.util
import re
import subprocess
import sys
import tomllib

import pytest
from source_trees import (
    ROOT,
    SCRIPT_FOLDERS,
    imports,
    is_inside,
    module_of,
    parsed,
    scripts,
    sources,
)

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
    "diffusion.network": "train",
    "tasks.track.device": "warp",
    "learning.collecting": "train",
    "learning.compiled": "train",
    "learning.compiled_steps": "train",
    "learning.evaluation": "train",
    "learning.graphs": "train",
    "learning.imagination": "train",
    "learning.kinematics": "train",
    "learning.gaussian": "train",
    "learning.layers": "train",
    "learning.networks": "train",
    "learning.noise": "train",
    "learning.parts": "train",
    "learning.predictions": "train",
    "learning.processes": "train",
    "learning.replay_buffer": "train",
    "learning.returns": "train",
    "learning.robots": "train",
    "learning.rollouts": "train",
    "learning.run": "train",
    "learning.states": "train",
    "learning.tracker": "train",
    "learning.windows": "train",
    "learning.world_model": "train",
    "learning.video": "train",
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
# `diffusion` reads its model's file as `policy` reads a tracker's.
MAY_IMPORT = {
    "arrays": set(),
    "errors": set(),
    "rotations": set(),
    "statistics": {"errors"},
    "cli": {"errors"},
    "robots": {"cli", "errors", "rotations"},
    "motion": {"arrays", "cli", "errors", "robots", "rotations"},
    "policy": {"cli", "errors", "motion", "robots", "rotations"},
    # A second implementation of the control loop: nothing of `tasks` and `backends`.
    "deploy": {"cli", "errors", "motion", "policy", "robots", "rotations"},
    "backends": {
        "backends.base",
        "backends.host",
        "backends.native",
        "errors",
        "robots",
        "rotations",
    },
    "tasks": {
        "arrays",
        "backends.base",
        "backends.host",
        "backends.native",
        "errors",
        "motion",
        "robots",
        "rotations",
    },
    # What acts in the guided worlds, which know nothing of it.
    "diffusion": {"cli", "errors", "policy", "robots", "rotations", "statistics", "tasks"},
    "viewers": {"errors", "robots", "rotations"},
    "envs": {
        "backends",
        "errors",
        "motion",
        "robots",
        "rotations",
        "tasks",
        "viewers",
    },
    "adapters": {"envs", "errors", "tasks"},
    # Arrays in, figures out: nothing of what acts, nor of the task.
    "quality": {"motion", "robots"},
    "evaluation": {"envs", "errors", "motion", "policy", "quality", "robots", "tasks"},
    "results": {
        "cli",
        "errors",
        "motion",
        "policy",
        "quality",
        "statistics",
        "tasks",
    },
    # `windows` cuts what `diffusion.rollouts` reads; nothing of diffusion imports learning.
    "learning": {
        "arrays",
        "motion",
        "backends.base",
        "backends.native",
        "cli",
        "diffusion.rollouts",
        "diffusion.sampler",
        "envs",
        "errors",
        "evaluation",
        "policy",
        "robots",
        "rotations",
        "tasks",
        "viewers",
    },
    "__init__": {"envs", "errors", "motion", "tasks"},
    # The console command. What it starts is no import: see `STARTER` in `test_structure.py`.
    "__main__": {"cli", "errors", "policy", "viewers"},
}


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
    engine = module.partition(".")[2].partition("_")[0]
    return module == "backends.base" or not imported.startswith(f"backends.{engine}_")


def test_the_package_imports_one_way():
    files = sources("bm_envs")
    assert len(files) > 10
    wrong = []
    for path in files:
        module = module_of(path)
        assert module.partition(".")[0] in MAY_IMPORT, f"{module} has no row in the table"
        for name in imports(parsed(path)):
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
        ("envs", "diffusion.controller"),
        ("tasks.guided.observations", "diffusion.sampler"),
        ("diffusion.steering", "envs"),
        ("envs", "adapters.sb3"),
        ("adapters.sb3", "learning.run"),
        ("viewers.video", "backends.mujoco_cpu"),
        ("viewers.page", "envs"),
    ],
)
def test_the_table_forbids(module, imported):
    assert forbidden(module, imported)


def test_scripts_import_the_package_and_not_each_other():
    stems = {path.stem for path in scripts()}
    wrong = []
    for path in scripts():
        for name in imports(parsed(path)):
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
        names = imports(parsed(path))
        assert not [name for name in names if is_inside(name, "bm_envs")], path


class WithoutTypes(ast.NodeTransformer):
    """Leaves out what only type checkers import."""

    def visit_If(self, node):
        return None if "TYPE_CHECKING" in ast.dump(node.test) else self.generic_visit(node)


def circle(graph):
    """Names along one circle of a graph `{name: names}`, or an empty list."""
    done, path = set(), []

    def visit(name):
        if name in path:
            return path[path.index(name) :]
        if name in done:
            return []
        path.append(name)
        for other in sorted(graph.get(name, ())):
            if found := visit(other):
                return found
        done.add(path.pop())
        return []

    return next((found for name in sorted(graph) if (found := visit(name))), [])


def test_no_modules_import_each_other_in_a_circle():
    modules = {module_of(path): path for path in sources("bm_envs")}

    def module(name):
        parts = name.split(".")[1:]
        while parts and ".".join(parts) not in modules:
            parts.pop()
        return ".".join(parts)

    graph = {
        name: {
            module(imported)
            for imported in imports(WithoutTypes().visit(ast.parse(path.read_text())))
            if is_inside(imported, "bm_envs")
        }
        - {name, ""}
        for name, path in modules.items()
    }
    assert sum(map(len, graph.values())) > 100
    assert circle(graph) == []
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]


# Private names of other modules that a module uses: as it is, and to become empty. Nothing may be
# added here; an entry that is no longer needed must be taken out.
REACHES: dict[str, set[str]] = {
}  # fmt: skip
# Not ours: members of named tuples, and tqdm's clock.
OF_OTHERS = {"_asdict", "_fields", "_make", "_replace"}
OF_OTHERS_IN = {"bm_envs/cli/terminal": {"_time"}}


def is_private(name):
    return name.startswith("_") and not name.startswith("__") and name != "_"


def private_definitions(tree):
    """Private names that a module defines: of functions, classes, variables and attributes."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"):
                found.add(node.attr)
    return {name for name in found if is_private(name)}


def private_uses(tree):
    """Private names that a module takes from something other than itself and `self`."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Attribute):
            if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")):
                found.add(node.attr)
    return {name for name in found if is_private(name)}


def private_reaches(trees):
    """By module, the private names it uses that other modules define and it does not."""
    defined = {name: private_definitions(tree) for name, tree in trees.items()}
    found = {}
    for name, tree in trees.items():
        others = set().union(*(d for other, d in defined.items() if other != name))
        used = private_uses(tree) - OF_OTHERS - OF_OTHERS_IN.get(name, set())
        if reached := (used & others) - defined[name]:
            found[name] = reached
    return found


def test_private_names_stay_in_their_module():
    files = [*sources("bm_envs"), *scripts()]
    trees = {path.relative_to(ROOT).with_suffix("").as_posix(): parsed(path) for path in files}
    found = private_reaches(trees)
    assert len(trees) > 50
    new = {name: reached - REACHES.get(name, set()) for name, reached in found.items()}
    assert not {name: reached for name, reached in new.items() if reached}
    gone = {name: known - found.get(name, set()) for name, known in REACHES.items()}
    assert not {name: known for name, known in gone.items() if known}, "take them out of the list"


def test_a_private_reach_is_seen():
    trees = {
        "a": ast.parse("class A:\n    def __init__(self):\n        self._x = self._y = 1\n"),
        "b": ast.parse("from a import _z, A\nprint(A()._x)\n_z()\n"),
        "c": ast.parse("class C:\n    def f(self, o):\n        self._x = o._x\n"),
    }
    assert private_reaches(trees) == {"b": {"_x"}}  # `_z` is defined nowhere here
    trees["a"].body += ast.parse("def _z(): ...").body
    assert private_reaches(trees) == {"b": {"_x", "_z"}}


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
    for name in imports(parsed(path), eager=eager):
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
    assert not not_core, (
        "importable only with an extra installed: import it where it is used, or enter the module "
        "and the extra in ENGINES of this file"
    )


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


@pytest.mark.parametrize(
    ("env_id", "keywords", "absent"),
    [
        (
            "BMTrack-G1-v0",
            {"motion": "walk"},
            ("bm_envs.tasks.guided", "bm_envs.diffusion", "bm_envs.learning", "torch"),
        ),
        ("BMGuided-G1-Obstacle-v0", {}, ("bm_envs.diffusion", "bm_envs.learning", "torch")),
    ],
)
def test_an_environment_loads_its_own_world_alone(env_id, keywords, absent):
    premise = ("torch", "bm_envs.tasks.guided", "bm_envs.diffusion")
    assert all(map(importlib.util.find_spec, premise)), "what must stay out could come in"
    code = f"""
import sys, gymnasium, bm_envs
for make in (gymnasium.make, gymnasium.make_vec):
    env = make({env_id!r}, **{keywords})
    env.reset(seed=0)
    env.step(env.action_space.sample())
    env.close()
print([name for name in sys.modules
       if any(name == one or name.startswith(one + ".") for one in {absent})])
"""
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
