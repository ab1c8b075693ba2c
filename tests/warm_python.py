"""Commands in processes that begin at once: forks of one that has the large packages imported.

`run` is `subprocess.run` of `[sys.executable, script or "-c", ...]`, its output captured as text.
The process has its own environment, folder, output and end, and imports the project anew. Most of
the time that a command takes to begin is torch's, MuJoCo's and ONNX's, whose import they share.
What a test says about the start itself (signals, what is imported) wants a true process.
"""

import atexit
import gc
import importlib
import json
import os
import select
import subprocess
import sys
import tempfile
import threading
import traceback
import types
from pathlib import Path

PACKAGES = (
    "gymnasium", "httpx2", "mujoco", "numpy", "onnx", "scipy.spatial.transform", "torch",
    "torch.utils.tensorboard", "tqdm", "tyro",
)  # fmt: skip
# Read by those packages when they are imported.
READ_AT_IMPORT = (
    "MUJOCO_GL",
    "OMP_NUM_THREADS",
    "PYOPENGL_PLATFORM",
    "LD_LIBRARY_PATH",
    "PYTHONHOME",
)

_server: subprocess.Popen | None = None


def run(command, *, env=None, cwd=None, timeout=600, check=False, **options):
    """The command's end, as `subprocess.run` gives it; a true process where a fork cannot serve."""
    command = list(map(str, command))
    env = dict(os.environ if env is None else env)
    assert options.keys() <= {"capture_output", "text"}, options
    if sys.platform != "linux" or any(env.get(n) != os.environ.get(n) for n in READ_AT_IMPORT):
        return subprocess.run(
            command, env=env, cwd=cwd, timeout=timeout, check=check, capture_output=True, text=True
        )
    (done,) = run_together([(command, env)], cwd=cwd, timeout=timeout)
    if check:
        done.check_returncode()
    return done


def run_together(commands, *, cwd=None, timeout=600):
    """The ends of `(command, environment)` that begin at the same time."""
    orders = []
    with tempfile.TemporaryDirectory() as folder:
        for i, (command, env) in enumerate(commands):
            assert command[0] == sys.executable
            orders.append({
                "arguments": command[1:], "env": env, "cwd": str(cwd or os.getcwd()),
                "output": [f"{folder}/out{i}", f"{folder}/errors{i}"],
            })  # fmt: skip
        statuses = _ask(orders, timeout)
        return [
            subprocess.CompletedProcess(
                command, status, *(Path(path).read_text() for path in order["output"])
            )
            for (command, _), order, status in zip(commands, orders, statuses, strict=True)
        ]


def _ask(orders, timeout):
    global _server
    if _server is None:
        _server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip
        atexit.register(_stop)
    _server.stdin.write(json.dumps(orders) + "\n")
    _server.stdin.flush()
    if not select.select([_server.stdout], [], [], timeout)[0]:
        os.killpg(_server.pid, 9)
        _server.wait()
        _server = None
        raise subprocess.TimeoutExpired([order["arguments"] for order in orders], timeout)
    return json.loads(_server.stdout.readline())


def _stop():
    if _server is not None:
        _server.stdin.close()
        _server.wait()


def _serve():
    """Answer orders with the status that their processes end with; in those, return the order."""
    for name in PACKAGES:
        try:
            importlib.import_module(name)
        except ImportError:
            pass  # an extra that is not installed: the command says so itself
    assert len(os.listdir("/proc/self/task")) == 1, "a process with threads must not be forked"
    gc.collect()
    gc.freeze()
    while line := sys.stdin.readline():
        children = []
        for order in json.loads(line):
            children.append(os.fork())
            if children[-1] == 0:
                return order
        ends = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        print(json.dumps(ends), flush=True)
    sys.exit()


def _become(order):
    """Make this process what the order asks for; returns the code to run, and its namespace."""
    inherited = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    os.environ.clear()
    os.environ.update(order["env"])
    os.chdir(order["cwd"])
    for number, path in enumerate(["/dev/null", *order["output"]]):
        opened = os.open(path, os.O_RDWR | os.O_CREAT)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = open(0, closefd=False)
    script, *sys.argv = order["arguments"]
    if script == "-c":
        text, folder = sys.argv.pop(0), ""
        sys.argv.insert(0, "-c")
    else:
        text, folder = Path(script).read_text(), str(Path(script).resolve().parent)
        sys.argv.insert(0, script)
    asked = [path for path in order["env"].get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:] = [folder, *asked, *(path for path in sys.path[1:] if path not in inherited)]
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    if script != "-c":
        main.__file__ = script
    return compile(text, script if script != "-c" else "<string>", "exec"), vars(main)


def _end(code, namespace):
    """Run the code and leave as Python does, but without taking its large packages apart."""
    status = 0
    try:
        exec(code, namespace)
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        status = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status & 0xFF)


if __name__ == "__main__":
    _end(*_become(_serve()))
