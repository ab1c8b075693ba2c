"""The house's rules that are not about the direction of imports: who may do what, and where it is.

`test_imports.py` has the directions. Each rule here is a function of source text, tried on a text
that breaks it, and then held to the files of the project.
"""

import ast
import functools
import re

import pytest
from source_trees import ROOT, SCRIPT_FOLDERS, name_of, scripts, sources

PACKAGE = sources("bm_envs")
SCRIPTS = scripts()
# The algorithms, which are to be read in one sitting: lines at most.
LIMITS = {
    "algos/ppo_track": 500,
    "algos/ppo_guided": 550,
    "algos/ddpm_guided": 600,
    "algos/wm_track": 700,
}
LIBRARY_LINES, SCRIPT_LINES = 400, 700
FILES_AT_THE_ROOT = 8


parse = functools.cache(ast.parse)


def texts(paths):
    return {name_of(path): path.read_text() for path in paths}


def breaking(rule, paths):
    """What breaks a rule, by file; files that keep to it are left out."""
    return {name: found for name, text in texts(paths).items() if (found := rule(text))}


def called(node):
    """Dotted name that a call calls, as far as it is one: `importlib.import_module`."""
    return ast.unparse(node.func) if isinstance(node.func, (ast.Attribute, ast.Name)) else ""


def calls(text):
    return [node for node in ast.walk(parse(text)) if isinstance(node, ast.Call)]


def is_text(node):
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


# --- scripts do not load each other ---------------------------------------------------------------

BY_NAME = {
    "import_module", "spec_from_file_location", "module_from_spec", "SourceFileLoader",
    "__import__", "run_path", "run_module", "exec",
}  # fmt: skip


def loads_by_name(text):
    """Ways to import that `import` statements do not show: as text, as calls, and by the path."""
    found = re.findall(r"import_module\(|spec_from_file_location", text)
    found += [name for node in calls(text) if (name := called(node)).split(".")[-1] in BY_NAME]
    return found + re.findall(r"sys\.path\b", text)


def test_scripts_load_nothing_by_name():
    """Ray in `sweep.py` is a package that an extra brings, and the only one."""
    broken = breaking(loads_by_name, SCRIPTS)
    sweep = (ROOT / "benchmarks/sweep.py").read_text()
    assert 'importlib.import_module("ray")' in sweep
    others = sweep.replace('importlib.import_module("ray")', "ray")
    broken["benchmarks/sweep"] = loads_by_name(others)
    assert {name: found for name, found in broken.items() if found} == {}


@pytest.mark.parametrize(
    "text",
    [
        "from importlib import import_module\nimport_module('ppo_track')",
        "load = importlib.import_module",
        "spec = util.spec_from_file_location('a', path)",
        "runpy.run_path('algos/ppo_track.py')",
        "exec(open('algos/ppo_track.py').read())",
        "sys.path.insert(0, 'algos')",
    ],
)
def test_loading_by_name_is_seen(text):
    text = text.replace("load = importlib.import_module", "load = importlib.import_module(name)")
    assert loads_by_name(text)
    assert not loads_by_name("import os.path\nfrom bm_envs import cli\ncli.run(main)")


# --- the library starts no script -----------------------------------------------------------------

# Modules and folders of the package that start processes, and what.
STARTS = {
    "bm_envs/cli/record": "git, which knows the commit",
    "bm_envs/deploy/guard": "the process that damps the robot's motors when the controller ends",
}
# Modules that import by name what may not be installed, or is chosen at run time.
CHOOSES = {
    "bm_envs/backends/base": "the engine",
    "bm_envs/diffusion/user_costs/load": "a cost that the command line names",
    "bm_envs/learning/log": "wandb",
    "bm_envs/motion/hub": "huggingface_hub",
    "bm_envs/policy/session": "onnx and onnxruntime",
    "bm_envs/viewers/video": "the kind of OpenGL",
}
# The console command `bm-envs`, whose purpose is to start the scripts.
STARTER = "bm_envs/__main__"


def starts_processes(text):
    tree = parse(text)
    modules = {"subprocess", "multiprocessing", "runpy"}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in modules]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in modules:
            found.append(node.module)
    starter = r"os\.(system|popen|fork|posix_spawn|exec|spawn)"
    return found + [name for node in calls(text) if re.match(starter, name := called(node))]


def names_a_script(text):
    """Paths to scripts that a module puts together; what it tells a person to run is none."""
    found = []
    for node in ast.walk(parse(text)):
        parts = ()
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            parts = (node.left, node.right)
        elif isinstance(node, ast.Call) and called(node).endswith(("Path", "joinpath", "join")):
            parts = node.args
        for part in filter(is_text, parts):
            if set(part.value.split("/")) & set(SCRIPT_FOLDERS):
                found.append(ast.unparse(node))
    return found


def test_the_library_starts_no_script():
    library = [path for path in PACKAGE if name_of(path) != STARTER]
    assert breaking(names_a_script, library) == {}
    starts = breaking(starts_processes, library)
    assert starts, "premise: those that start something are seen to"
    inside = tuple(f"{name}/" for name in STARTS)
    assert not [name for name in starts if name not in STARTS and not name.startswith(inside)]


def test_the_library_imports_by_name_only_what_may_be_missing():
    library = [path for path in PACKAGE if name_of(path) != STARTER]
    assert breaking(loads_by_name, library).keys() <= CHOOSES.keys()


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (starts_processes, "import subprocess"),
        (starts_processes, "from multiprocessing import Process"),
        (starts_processes, "import os\nos.execv('a', [])"),
        (names_a_script, "Path(__file__).parents[2] / 'tools' / 'replay.py'"),
        (names_a_script, "ROOT.joinpath('algos/ppo_track.py')"),
    ],
)
def test_a_start_is_seen(rule, text):
    assert rule(text)
    assert not rule("raise ConfigError('Run tools/retarget.py first.')\nos.path.exists('a')")


# --- only an algorithm learns ---------------------------------------------------------------------

# It tries out other projects' trainers and is none of ours.
TRIES_TRAINERS = "benchmarks/clients/client"


def descends(text):
    """Calls of `backward` and of an optimizer's `step`."""
    return [
        ast.unparse(node)
        for node in calls(text)
        if re.search(r"\.backward$|(?i:optim\w*)\.step$", called(node))
        or re.search(r"\.backward\($|(?i:optim\w*)\.step\($", f"{ast.unparse(node.func)}(")
    ]


def test_only_algorithms_descend():
    others = [p for p in (*PACKAGE, *SCRIPTS) if p.parent.name != "algos"]
    broken = breaking(descends, others)
    assert broken.keys() == {TRIES_TRAINERS}
    learns = breaking(descends, sources("algos"))
    assert {"algos/ppo_track", "algos/wm_track"} <= learns.keys(), "premise: descents are seen"


def test_a_descent_is_seen():
    text = "a.backward()\nself.optimizer.step()\nloss().backward(inputs=x)\nopts[0].step()"
    assert len(descends(text)) == 3
    assert descends("for optimizer in all_of_them:\n    optimizer.step()")
    assert not descends("env.step(action)\nforward(x)")


# --- a world knows nothing of what acts in it -----------------------------------------------------


def test_a_world_does_not_name_its_controllers():
    """Not even as text, by which it could import them."""
    worlds = texts(sources("bm_envs/tasks"))
    assert len(worlds) > 10
    named = {
        name: found
        for name, text in worlds.items()
        if (found := re.findall(r"bm_envs[./](?:diffusion|learning|evaluation)", text))
    }
    assert named == {}


# --- no hands in other people's pockets -----------------------------------------------------------

# Objects that a module gets from another, by the names that they usually have. `test_imports.py`
# looks for the names of what is private; this looks for whose it is.
OF_OTHERS = {"task", "env", "sampler", "host", "_host", "policy", "robots", "simulator"}


def reaches(text, name):
    found = []
    for node in ast.walk(parse(text)):
        if not isinstance(node, ast.Attribute) or not re.match(r"_[^_]", node.attr):
            continue
        owner = getattr(node.value, "attr", getattr(node.value, "id", ""))
        if owner in OF_OTHERS and owner not in name.split("/"):
            found.append(ast.unparse(node))
    return found


def test_nothing_private_is_taken_of_others():
    found = {name: reaches(text, name) for name, text in texts((*PACKAGE, *SCRIPTS)).items()}
    assert {name: taken for name, taken in found.items() if taken} == {}


def test_a_reach_is_seen():
    assert reaches("self.task._rows\nenv._x\nother._y\nenv.__class__", "bm_envs/a") == [
        "self.task._rows", "env._x",
    ]  # fmt: skip
    assert not reaches("task._rows", "bm_envs/tasks/track/task")


# --- sizes ----------------------------------------------------------------------------------------


def reason(text):
    """The sentence "One file because ..." (or "in one file because") of a module's docstring."""
    told = " ".join((ast.get_docstring(parse(text)) or "").split())
    return re.search(r"[^.]*\bone file\b[^.]*\b(because|since|as|for)\b[^.]*\.", told, re.I)


def test_the_root_of_the_package_is_small():
    assert len(list((ROOT / "bm_envs").glob("*.py"))) <= FILES_AT_THE_ROOT


@pytest.mark.parametrize("name", LIMITS)
def test_algorithms_are_read_in_one_sitting(name):
    assert len((ROOT / f"{name}.py").read_text().splitlines()) <= LIMITS[name]


def test_long_files_tell_why_they_are_one():
    wanted = 'a sentence "One file because ..." in its docstring, or two files'
    long = {}
    for paths, most in ((PACKAGE, LIBRARY_LINES), (SCRIPTS, SCRIPT_LINES)):
        for name, text in texts(paths).items():
            lines = len(text.splitlines())
            if name not in LIMITS and lines > most and not reason(text):
                long[name] = lines
    assert long == {}, wanted


def test_a_reason_is_seen():
    assert reason('"""Reads.\n\nOne file because each\nquestion needs the other.\n"""')
    assert reason('"""They are in one file because all come to the same."""')
    assert not reason('"""Reads one file. Because it can."""')
    assert not reason("# One file because it is.")


# --- algorithms -----------------------------------------------------------------------------------

# A page has what a trainer does; what collects for a trainer stands on that trainer's.
ON_ANOTHER_PAGE = {"collect_rollouts": "ddpm_guided"}


@pytest.mark.parametrize("path", sources("algos"), ids=lambda path: path.stem)
def test_an_algorithm_has_a_test_and_a_page(path):
    name = path.stem
    assert (ROOT / "tests/algos" / f"test_{name}.py").is_file()
    page = f"algorithms/{ON_ANOTHER_PAGE.get(name, name)}.md"
    assert f"algos/{name}.py" in (ROOT / "docs" / page).read_text()
    assert re.search(rf"^ +- {re.escape(page)}$", (ROOT / "mkdocs.yml").read_text(), re.M)


def test_a_trainer_s_log_is_compared_with_its_page():
    """By its own tests, which train; a trainer is what keeps a run."""
    trainers = [path for path in sources("algos") if "RunConfig" in path.read_text()]
    assert len(trainers) >= 4, "premise: they are seen"
    for path in trainers:
        text = (ROOT / "tests/algos" / f"test_{path.stem}.py").read_text()
        assert f'check_metrics("{path.stem}", ' in text, path.stem


# --- the tests ------------------------------------------------------------------------------------


def test_tests_mirror_the_tree():
    """A test stands in the folder of what it tests; at the root, of the package's root or all."""
    of_themselves = {*SCRIPT_FOLDERS, "conformance", "project"}
    files = [path.relative_to(ROOT / "tests") for path in sources("tests")]
    folders = {path.parent.as_posix() for path in files if path.name.startswith("test_")} - {"."}
    assert len(folders) > 10
    strange = {
        folder for folder in folders - of_themselves if not (ROOT / "bm_envs" / folder).is_dir()
    }
    assert strange == set()


def test_files_that_are_not_quick_exist():
    """`NOT_QUICK` of `tests/conftest.py`; a name that is none would make a file quick unseen."""
    (table,) = re.findall(r"NOT_QUICK = \{(.*?)\}", (ROOT / "tests/conftest.py").read_text(), re.S)
    names = re.findall(r'"(.+?)"', table)
    assert len(names) > 10 and names == sorted(names)
    assert not [name for name in names if not (ROOT / "tests" / name).is_file()]
