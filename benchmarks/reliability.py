"""What hostile, damaged and mistaken inputs do: how many were tried, refused, warned of, loaded.

    python benchmarks/reliability.py --json benchmarks/results/reliability.json
    python benchmarks/reliability.py --quick

Every input is made here, from the motions and policies that ship, and from LAFAN1 and G1 Moves
where `BM_DATA_DIR` has them. Each is read in a separate process. What may happen is stated before:

    refuse   an error of one sentence (`BMError`), which a command turns into exit status 2
    doubt    that, or a warning of one line
    load     it loads without a word
    loads    it loads, with or without a warning
    any      a damaged file may still be whole: any of these, but no other error
    damp     the robot's bounds hold, and where its table says so motors are damped in time

An input is `wrong` where anything else happened, where reading took more than 2 s of processor time
or more than 1 GB of memory, or where it made or changed a file. A row counts the inputs of one kind
of fault:

    surface, fault, expected, inputs, refused, warned, loaded, wrong, slowest_s, peak_mb, examples

`examples` has up to three sentences of those that were wrong.

One file because most of it is a table of inputs, and no script may import another; read `attempt`,
`Row` and `main` first.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import resource
import select
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
import xml.etree.ElementTree
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from tyro.conf import FlagCreatePairsOff

from bm_envs import cli
from bm_envs.errors import BMError, BMWarning, ConfigError
from bm_envs.motion import library
from bm_envs.motion.clip import Clip, save_npz
from bm_envs.results import write_result
from bm_envs.robots import g1

Expected = Literal["refuse", "doubt", "load", "loads", "any", "damp"]
ALLOWED: dict[Expected, tuple[str, ...]] = {
    "refuse": ("refused",),
    "doubt": ("refused", "warned"),
    "load": ("loaded",),
    "damp": ("refused",),
    "loads": ("loaded", "warned"),
    "any": ("refused", "warned", "loaded"),
}
CPU_S, MEMORY_MB = 2.0, 1024.0
"""Processor time (s) and memory (MB) that a reader may take for a file of up to 1 MB."""
PATIENCE_S = 30.0
"""Wall-clock time after which a reader is killed, s. It is long because others use the machine."""
Read = Callable[[Path], Any]


@dataclass(frozen=True)
class Config:
    """Try hostile, damaged and mistaken inputs on every reader."""

    surface: tuple[str, ...] = ()
    """First letters of the surfaces to try; by default all are tried."""
    damaged: int = 200
    """Damaged copies of each kind of file."""
    seed: int = 0
    """Seed of the damage."""
    quick: Annotated[bool, FlagCreatePairsOff] = False
    """Ten damaged copies of each, and every tenth of the other inputs, at least one of each."""
    json: Path | None = None
    """Result file to write."""

    def __post_init__(self) -> None:
        if self.damaged < 1:
            raise ConfigError(f"damaged is {self.damaged}, expected 1 or more.")


@dataclass
class Row:
    """One kind of fault and what its inputs did."""

    surface: str
    fault: str
    expected: Expected
    inputs: int = 0
    refused: int = 0
    warned: int = 0
    loaded: int = 0
    wrong: int = 0
    slowest_s: float = 0.0
    peak_mb: float = 0.0
    examples: list[str] = field(default_factory=list)

    def add(self, name: str, outcome: str, sentence: str, cpu_s: float, peak_mb: float) -> None:
        """Count one input."""
        self.inputs += 1
        if outcome in ("refused", "warned", "loaded"):
            setattr(self, outcome, getattr(self, outcome) + 1)
        self.slowest_s = round(max(self.slowest_s, cpu_s), 3)
        self.peak_mb = round(max(self.peak_mb, peak_mb), 1)
        slow, big = cpu_s > CPU_S, peak_mb > MEMORY_MB
        if outcome not in ALLOWED[self.expected] or slow or big:
            self.wrong += 1
            if len(self.examples) < 3:
                cost = f" ({cpu_s:.1f} s, {peak_mb:.0f} MB)" if slow or big else ""
                self.examples.append(f"{name}: {outcome}{cost}: {sentence}"[:300])


@dataclass(frozen=True)
class Inputs:
    """Files of one kind of fault."""

    surface: str
    fault: str
    expected: Expected
    read: Read
    files: list[tuple[str, bytes]]
    """Name and content of each."""


# --- one input in a process of its own ------------------------------------------------------------


def attempt(read: Read, path: Path) -> tuple[str, str, float, float]:
    """Outcome, sentence, processor seconds and megabytes of reading a file in a child process."""
    before = path.read_bytes()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            os.write(writer, json.dumps(_read_here(read, path)).encode())
        finally:
            os._exit(0)  # never on into the parent's code
    os.close(writer)
    ended, content = time.monotonic() + PATIENCE_S, b""
    while select.select([reader], [], [], max(0.0, ended - time.monotonic()))[0]:
        if not (block := os.read(reader, 65536)):
            break
        content += block
    else:
        os.kill(child, signal.SIGKILL)
    os.close(reader)
    status = os.waitpid(child, 0)[1]
    left = sorted(place.name for place in path.parent.iterdir())
    if left != [path.name] or path.read_bytes() != before:
        return "changed files", ", ".join(left), 0.0, 0.0
    if not content:
        ended_by = "was stopped for its time" if os.WIFSIGNALED(status) else "ended without a word"
        return "killed", f"{ended_by} (status {status})", PATIENCE_S if "time" in ended_by else 0, 0
    return tuple(json.loads(content))


def _read_here(read: Read, path: Path) -> tuple[str, str, float, float]:
    def used() -> tuple[float, float]:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024

    # Address space, so that a bomb ends here and not on the machine.
    resource.setrlimit(resource.RLIMIT_AS, (24 << 30, 24 << 30))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # parsers in C write there
    start, low = used()
    outcome, sentence = "loaded", ""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        try:
            read(path)
        except BMError as error:
            outcome, sentence = "refused", str(error)
            if "\n" in sentence or len(sentence) > 900 or not sentence.endswith((".", "?")):
                outcome = "no sentence"
        except BaseException as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            outcome = "error"
            sentence = (
                f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}: {error}"
            )
    if outcome == "loaded":
        said = [
            str(warning.message) for warning in heard if issubclass(warning.category, BMWarning)
        ]
        if said:
            outcome, sentence = "warned", "; ".join(said)
    end, high = used()
    return outcome, sentence.replace(f"{path.parent}/", "")[:1000], end - start, high - low


# --- motions of the robot -------------------------------------------------------------------------

BUILTIN = ("walk", "stand", "walk_back", "turn_left", "turn_right", "side_left", "side_right")


def rows_of(clip: Clip, fps: float | None = None) -> np.ndarray:
    """A clip as rows of a CSV file: root position, root quaternion x y z w, joints.

    With `fps` at that rate, between frames linearly.
    """
    quat = clip.body_quat_w[:, 0, [1, 2, 3, 0]]
    rows = np.concatenate([clip.body_pos_w[:, 0], quat, clip.joint_pos], axis=1).astype(float)
    if fps is None:
        return rows
    where = np.arange(0, len(rows) - 1, clip.fps / fps)
    below, share = where.astype(int), (where % 1)[:, None]
    return (1 - share) * rows[below] + share * rows[below + 1]


def true_rows() -> dict[str, np.ndarray]:
    """Motions to falsify: those that ship, and of LAFAN1 and G1 Moves what is there."""
    # At the rate that a CSV file is taken to have.
    rows = {name: rows_of(library.load_motion(name), library.CSV_FPS) for name in BUILTIN}
    for public in library.PUBLIC_SETS:
        for stem in public.sha256:
            folder = os.environ.get(library.DATA_DIR_VARIABLE)
            path = Path(folder or "-", public.folder, f"{stem}.csv")
            if path.is_file():
                rows[stem] = np.loadtxt(path, delimiter=",")[:1800]
    return rows


def csv_bytes(rows: np.ndarray, separator: str = ",") -> bytes:
    """Rows as text with six decimals, as published files have them."""
    lines = "\n".join(separator.join(f"{value:.6f}" for value in row) for row in rows)
    return f"{lines}\n".encode()


def _columns(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], bytes]:
    return lambda rows: csv_bytes(change(rows.copy()))


def _scaled(columns: slice, factor: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(rows: np.ndarray) -> np.ndarray:
        rows[:, columns] *= factor
        return rows

    return change


def _added(
    column: int, value: float, frames: slice = slice(None)
) -> Callable[[np.ndarray], np.ndarray]:
    def change(rows: np.ndarray) -> np.ndarray:
        rows[frames, column] += value
        return rows

    return change


def _taken(order: list[int]) -> Callable[[np.ndarray], np.ndarray]:
    return lambda rows: rows[:, order]


def _first_row_jumps(rows: np.ndarray) -> np.ndarray:
    rows[0, 0] += 0.6
    rows[0, 7:] += 0.9
    return rows


def _swapped(*parts: str) -> list[int]:
    """Columns with the left and the right joints of these parts in each other's place."""
    order = list(range(36))
    for i, name in enumerate(g1.JOINT_NAMES):
        if any(part in name for part in parts):
            other = name.replace("left", "?").replace("right", "left").replace("?", "right")
            order[7 + i] = 7 + g1.JOINT_NAMES.index(other)
    return order


_ISAAC = [7 + i for i in g1.order_map(g1.JOINT_NAMES, g1.ISAAC_JOINT_NAMES)]
LIES: dict[str, tuple[Expected, Callable[[np.ndarray], bytes]]] = {
    "root quaternion w x y z": ("refuse", _columns(_taken([0, 1, 2, 6, 3, 4, 5, *range(7, 36)]))),
    "joints in degrees": ("refuse", _columns(_scaled(slice(7, 36), 180 / np.pi))),
    "root in millimetres": ("refuse", _columns(_scaled(slice(0, 3), 1000))),
    "root in centimetres": ("refuse", _columns(_scaled(slice(0, 3), 100))),
    "joints breadth first": ("refuse", _columns(_taken([*range(7), *_ISAAC]))),
    "root height 0": ("refuse", _columns(_scaled(slice(2, 3), 0.0))),
    "a frame 900 km away": ("refuse", _columns(_added(0, 9e5, slice(5, 6)))),
    "first row jumps": ("doubt", _columns(_first_row_jumps)),
    "feet 10 cm over the floor": ("doubt", _columns(_added(2, 0.10))),
    "feet 16 cm under the floor": ("doubt", _columns(_added(2, -0.16))),
    # True motions may look like these: what the gate makes of them is counted, not expected.
    "arms' sides swapped": ("any", _columns(_taken(_swapped("shoulder", "elbow", "wrist")))),
    "legs' sides swapped": ("any", _columns(_taken(_swapped("hip", "knee", "ankle")))),
    "root that stays at x = y = 0": ("any", _columns(_scaled(slice(0, 2), 0.0))),
    "every second row, taken at 30 Hz": ("any", _columns(lambda rows: rows[::2])),
    "a column too many": ("refuse", lambda r: csv_bytes(np.insert(r, 0, np.arange(len(r)), 1))),
    "a column too few": ("refuse", lambda r: csv_bytes(r[:, :35])),
    "a header": ("refuse", lambda r: b"x,y,z" + b",a" * 33 + b"\n" + csv_bytes(r)),
    "semicolons": ("refuse", lambda r: csv_bytes(r, ";")),
    "two rows": ("refuse", lambda r: csv_bytes(r[:2])),
    "NaN": ("refuse", _columns(_added(9, np.nan, slice(7, 8)))),
    "infinity": ("refuse", _columns(_added(9, np.inf, slice(7, 8)))),
    "bytes that are no text": (
        "refuse",
        lambda r: csv_bytes(r)[:200] + b"\xff\xfe\x00" + csv_bytes(r),
    ),
}
HARMLESS: dict[str, Callable[[np.ndarray], bytes]] = {
    "as it is": csv_bytes,
    "byte order mark": lambda r: b"\xef\xbb\xbf" + csv_bytes(r),
    "carriage returns": lambda r: csv_bytes(r).replace(b"\n", b"\r\n"),
    "100 m away": _columns(_added(0, 100.0)),
    "other sign of the quaternion": _columns(_scaled(slice(3, 7), -1.0)),
}


def motions() -> Iterator[Inputs]:
    """CSV files that lie, and true ones."""
    rows = true_rows()
    for fault, (expected, make) in LIES.items():
        files = [(f"{name}.csv", make(value)) for name, value in rows.items()]
        yield Inputs("motion .csv", fault, expected, library.load_motion, files)
    for fault, make in HARMLESS.items():
        ours = [(f"{name}.csv", make(rows[name])) for name in BUILTIN]
        yield Inputs("motion .csv", f"true: {fault}", "load", library.load_motion, ours)
        others = [(f"{name}.csv", make(r)) for name, r in rows.items() if name not in BUILTIN]
        if others:
            fault = f"true: {fault}, public sets"
            yield Inputs("motion .csv", fault, "loads", library.load_motion, others)
    named = [(f"walk_{name}.csv", csv_bytes(rows["walk"])) for name in ("60hz", "120fps", "50_fps")]
    yield Inputs(
        "motion .csv", "a name that tells another rate", "refuse", library.load_motion, named
    )  # noqa: E501


def _npz(arrays: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def npz_arrays(clip: Clip, names: bool = False) -> dict[str, np.ndarray]:
    """A clip's arrays under the keys that whole_body_tracking writes."""
    buffer = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "clip.npz")
        save_npz(clip, path)
        buffer.write(path.read_bytes())
    buffer.seek(0)
    with np.load(buffer) as archive:
        keep = (
            list(archive)
            if names
            else [
                "fps",
                "joint_pos",
                "joint_vel",
                "body_pos_w",
                "body_quat_w",
                "body_lin_vel_w",
                "body_ang_vel_w",
            ]
        )
        return {key: archive[key] for key in keep}


def _npz_lies(good: dict[str, np.ndarray]) -> Iterator[tuple[str, Expected, dict[str, Any]]]:
    def changed(**values: Any) -> dict[str, Any]:
        return {**good, **values}

    def without(key: str) -> dict[str, Any]:
        return {name: value for name, value in good.items() if name != key}

    quat, order = good["body_quat_w"], g1.order_map(g1.JOINT_NAMES, g1.ISAAC_JOINT_NAMES)
    yield "true", "load", good
    yield (
        "joint velocities in another order",
        "refuse",
        changed(joint_vel=good["joint_vel"][:, order]),
    )
    yield "joint velocities of zero", "refuse", changed(joint_vel=np.zeros_like(good["joint_vel"]))
    yield "joint velocities in degrees", "refuse", changed(joint_vel=good["joint_vel"] * 57.29578)
    yield "angles in degrees", "refuse", changed(joint_pos=good["joint_pos"] * 57.29578)
    wrong = quat.copy()
    wrong[:, 1:] = wrong[:, :1]
    yield "link rotations against kinematics", "refuse", changed(body_quat_w=wrong)
    yield "link rotations x y z w", "refuse", changed(body_quat_w=quat[..., [1, 2, 3, 0]])
    yield (
        "link velocities of zero",
        "doubt",
        changed(
            body_lin_vel_w=np.zeros_like(good["body_lin_vel_w"]),
            body_ang_vel_w=np.zeros_like(good["body_ang_vel_w"]),
        ),
    )
    yield "no rate", "refuse", without("fps")
    for rate in (0.0, -50.0, np.nan, np.inf):
        yield "a rate that is none", "refuse", changed(fps=np.array([rate]))
    yield "a rate that is text", "refuse", changed(fps=np.array(["50"]))
    yield "pickled objects", "refuse", changed(joint_pos=np.array([{"a": 1}], dtype=object))
    yield "NaN", "refuse", changed(joint_pos=np.full_like(good["joint_pos"], np.nan))
    yield "frames that do not agree", "refuse", changed(joint_vel=good["joint_vel"][:-1])


def _claims(shape: str) -> bytes:
    """An .npy member whose header claims a shape, with nothing behind it."""
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header


def _archive(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def npz_motions() -> Iterator[Inputs]:
    """NPZ files that lie, claim or burst."""
    kinds: dict[tuple[str, Expected], list[tuple[str, bytes]]] = {}
    for name in BUILTIN:
        good = npz_arrays(library.load_motion(name))
        for fault, expected, arrays in _npz_lies(good):
            if name == "stand" and "velocit" in fault:
                continue  # its velocities are next to nothing: no order and no unit is wrong
            files = kinds.setdefault((fault, expected), [])
            files.append((f"{name}_{len(files)}.npz", _npz(arrays)))
    for (fault, expected), files in kinds.items():
        yield Inputs("motion .npz", fault, expected, library.load_motion, files)
    zeros = _claims("(4000000, 29)") + bytes(4_000_000 * 29 * 8 // 8)
    bombs = [
        ("claim.npz", _archive({"joint_pos.npy": _claims("(10**9, 29)")})),
        ("deep.npz", _archive({"joint_pos.npy": _claims("(" * 5000 + ")" * 5000)})),
        ("zeros.npz", _archive({"joint_pos.npy": zeros, "fps.npy": _claims("()") + bytes(8)})),
        ("many.npz", _archive({f"a{i}.npy": b"" for i in range(8000)})),
    ]
    yield Inputs(
        "motion .npz", "archives that claim or burst", "refuse", library.load_motion, bombs
    )


# --- pickles --------------------------------------------------------------------------------------


def _laughs(levels: int, opener: bytes, closer: bytes) -> bytes:
    """A pickle of lists or tuples nested by reference: 2 to the power of `levels` leaves."""
    content = b"\x80\x02" + opener + b"K\x01" + closer + b"q\x00"
    for level in range(levels):
        name = bytes([level])
        content += b"0" + opener + b"h" + name + b"h" + name + closer + b"q" + bytes([level + 1])
    return content


def pickle_motions() -> Iterator[Inputs]:
    """Pickles that lie, burst or carry code."""
    clip = library.load_motion("walk")
    rows = rows_of(clip)
    good = {"root_pos": rows[:, :3], "root_rot": rows[:, 3:7], "dof_pos": rows[:, 7:], "fps": 50.0}

    def dumped(*values: Any) -> list[tuple[str, bytes]]:
        return [(f"{i}.pkl", pickle.dumps(value)) for i, value in enumerate(values)]

    def files(**changes: Any) -> Any:
        return {key: value for key, value in {**good, **changes}.items() if value is not None}

    read = library.load_motion
    yield Inputs(
        "motion .pkl", "true", "load", read, dumped(good, files(fps=50), files(fps=np.float32(50)))
    )
    rates = ("fps", "framerate", "mocap_framerate")
    under_other_keys = [files(**{"fps": None, key: 50.0}) for key in rates] + [
        files(fps=None, dt=0.02)
    ]
    yield Inputs(
        "motion .pkl", "true: the rate under another key", "load", read, dumped(*under_other_keys)
    )
    wrong: tuple[Any, ...] = (None, "fifty", 10**400, -50, 0, np.nan, [50, 60], {}, b"50", 1e-300)
    yield Inputs(
        "motion .pkl",
        "a rate that is none",
        "refuse",
        read,
        dumped(*[files(fps=rate) for rate in wrong]),
    )
    yield Inputs("motion .pkl", "two rates that differ", "refuse", read, dumped(files(dt=0.01)))
    u23 = rows[:, 7:30]
    yield Inputs(
        "motion .pkl", "23 joints without names", "refuse", read, dumped(files(dof_pos=u23))
    )
    yield Inputs(
        "motion .pkl",
        "root quaternion w x y z",
        "refuse",
        read,
        dumped(files(root_rot=rows[:, [6, 3, 4, 5]])),
    )
    yield Inputs(
        "motion .pkl", "degrees", "refuse", read, dumped(files(dof_pos=np.rad2deg(rows[:, 7:])))
    )
    odd = (
        files(root_pos=None),
        files(dof_pos="text"),
        files(root_pos=[[1, 2], [3]]),
        {},
        [],
        7,
        {1: good},
        {"a": 1},
        files(root_pos=rows[:5, :3]),
        files(dof_pos=rows[:, 7:20]),
    )
    yield Inputs("motion .pkl", "odd content", "refuse", read, dumped(*odd))

    class Code:
        def __reduce__(self) -> Any:
            return (open, ("made-by-a-pickle", "w"))

    code = [
        (f"{i}.pkl", pickle.dumps(value, protocol=i % 6))
        for i, value in enumerate(
            [Code(), {"fps": Code()}, [Code()] * 3, files(fps=Code()), Code(), Code()]
        )
    ]
    yield Inputs("motion .pkl", "code", "refuse", read, code)
    bombs = [
        ("lists.pkl", _laughs(30, b"](", b"e") + b"."),
        ("tuples.pkl", _laughs(30, b"(", b"t") + b"."),
        ("key.pkl", b"\x80\x02}(" + _laughs(30, b"(", b"t")[2:] + b"K\x01u."),
        ("deep.pkl", b"\x80\x02" + b"]" * 400_000 + b"a" * 399_999 + b"."),
        ("zlib.pkl", zlib.compress(bytes(900_000_000), 9)),
        (
            "memo.pkl",
            b"\x80\x02"
            + b"N"
            + b"".join(b"r" + struct.pack("<I", i) for i in range(150_000))
            + b".",
        ),
        ("long.pkl", b"\x80\x02\x8b" + struct.pack("<i", 900_000) + b"\x7f" * 900_000 + b"."),
        ("digits.pkl", b"I" + b"9" * 900_000 + b"\n."),
        ("strings.pkl", b"\x80\x02(" + b"X\x00\x00\x00\x00" * 150_000 + b"l."),
    ]
    yield Inputs("motion .pkl", "files that burst", "refuse", read, bombs)


# --- damage ---------------------------------------------------------------------------------------


def damaged(content: bytes, count: int, rng: np.random.Generator) -> list[bytes]:
    """Copies cut short, with bits flipped, bytes replaced, pieces repeated, dropped and swapped."""
    copies = []
    for i in range(count):
        data = bytearray(content)
        first, second = sorted(int(x) for x in rng.integers(0, len(data), 2))
        kind = i % 6
        if kind == 0:
            del data[first:]
        elif kind == 1:
            for place in rng.integers(0, len(data), int(rng.integers(1, 9))):
                data[place] ^= 1 << int(rng.integers(8))
        elif kind == 2:
            data[first : first + 8] = rng.bytes(8)
        elif kind == 3:
            del data[first : first + int(rng.integers(1, 65))]
        elif kind == 4:
            data[second:second] = data[first : first + int(rng.integers(1, 257))]
        else:
            data[first:first] = rng.bytes(int(rng.integers(1, 17)))
        copies.append(bytes(data))
    return copies


# --- files of all kinds, damaged and burst --------------------------------------------------------


def person_bvh(frames: int = 40) -> bytes:
    """A BVH file of a person who stands, in centimetres, y up, with LAFAN1's names."""
    tree = {
        "Hips": (None, 0, 90, 0),
        "Spine": ("Hips", 0, 10, 0),
        "Spine1": ("Spine", 0, 12, 0),
        "Spine2": ("Spine1", 0, 12, 0),
        "Neck": ("Spine2", 0, 18, 0),
        "Head": ("Neck", 0, 12, 0),
    }
    for side, x in (("Left", 1), ("Right", -1)):
        chain = (
            ("UpLeg", "Hips", (9 * x, 0, 0)),
            ("Leg", "UpLeg", (0, -42, 0)),
            ("Foot", "Leg", (0, -41, 0)),
            ("Toe", "Foot", (0, -5, 14)),
            ("Shoulder", "Spine2", (4 * x, 14, 0)),
            ("Arm", "Shoulder", (13 * x, 0, 0)),
            ("ForeArm", "Arm", (28 * x, 0, 0)),
            ("Hand", "ForeArm", (25 * x, 0, 0)),
        )
        for name, parent, offset in chain:
            above = parent if parent in ("Hips", "Spine2") else side + parent
            tree[side + name] = (above, *offset)
    lines = ["HIERARCHY"]

    def joint(name: str, depth: int) -> int:
        parent, *offset = tree[name]
        pad, count = "  " * depth, 1
        channels = "6 Xposition Yposition Zposition" if parent is None else "3"
        lines.extend([f"{pad}{'JOINT' if parent else 'ROOT'} {name}", f"{pad}{{"])
        lines.append(f"{pad}  OFFSET {offset[0]} {offset[1]} {offset[2]}")
        lines.append(f"{pad}  CHANNELS {channels} Zrotation Yrotation Xrotation")
        children = [child for child, (above, *_) in tree.items() if above == name]
        for child in children:
            count += joint(child, depth + 1)
        if not children:
            lines.extend([f"{pad}  End Site", f"{pad}  {{", f"{pad}    OFFSET 0 1 0", f"{pad}  }}"])
        lines.append(f"{pad}}}")
        return count

    joints = joint("Hips", 0)
    lines += ["MOTION", f"Frames: {frames}", "Frame Time: 0.033333"]
    for frame in range(frames):
        turns = 5.0 * np.sin(0.2 * frame + np.arange(3 * joints))
        lines.append(" ".join(f"{value:.4f}" for value in (0, 90, frame, *turns)))
    return "\n".join(lines).encode() + b"\n"


def standing_body() -> list[list[float]]:
    """The 22 joints of an SMPL body at rest, m: y up, arms out."""
    side = {
        "hip": (0.1, -0.08, 0.0), "knee": (0.1, -0.48, 0.0), "ankle": (0.1, -0.88, 0.0),
        "foot": (0.1, -0.94, 0.13), "collar": (0.08, 0.42, 0.0), "shoulder": (0.18, 0.45, 0.0),
        "elbow": (0.45, 0.45, 0.0), "wrist": (0.7, 0.45, 0.0),
    }  # fmt: skip
    middle = {"pelvis": 0, "spine1": 0.1, "spine2": 0.24, "spine3": 0.3, "neck": 0.5, "head": 0.6}
    from bm_envs.motion.amass import JOINTS

    rest = []
    for name, _ in JOINTS:
        which, _, part = name.partition("_")
        x, y, z = (0.0, middle[name], 0.0) if name in middle else side[part]
        rest.append([-x if which == "right" else x, float(y), z])
    return rest


def _person(path: Path) -> Any:
    from bm_envs.motion import bvh, skeletons

    person = bvh.read_bvh(path)
    return skeletons.body_motion(person, skeletons.find_mapping(person))


def people(count: int, rng: np.random.Generator) -> Iterator[Inputs]:
    """A person's motion: BVH and SMPL-family files, skeletons, mappings."""
    from bm_envs.motion import amass, skeletons

    good = person_bvh()
    yield Inputs("person .bvh", "true", "loads", _person, [("person.bvh", good)])
    yield Inputs("person .bvh", "damaged", "any", _person, _copies("person.bvh", good, count, rng))
    head, rows = good.split(b"MOTION")
    deep = b"HIERARCHY\nROOT a\n{\nOFFSET 0 0 0\nCHANNELS 0\n" + b"".join(
        b"JOINT j%d\n{\nOFFSET 0 0 0\nCHANNELS 0\n" % i for i in range(20_000)
    )
    odd = {
        "empty": b"",
        "no_motion": head,
        "many_frames": good.replace(b"Frames: 40", b"Frames: 999999999"),
        "negative": good.replace(b"Frames: 40", b"Frames: -1"),
        "zero_time": good.replace(b"0.033333", b"0"),
        "huge_time": good.replace(b"0.033333", b"1e400"),
        "nan": good.replace(b"90.0000", b"nan", 3),
        "deep": deep,
        "twice": good.replace(b"JOINT Spine1", b"JOINT Spine"),
        "utf16": good.decode().encode("utf-16"),
        "binary": bytes(range(256)) * 400,
        "no_joints": b"HIERARCHY\nMOTION" + rows,
        "channels": good.replace(b"CHANNELS 3", b"CHANNELS 3000000000", 1),
        "no_length": good.replace(b"-42", b"0").replace(b"-41", b"0"),
    }
    yield Inputs(
        "person .bvh", "odd content", "refuse", _person, [(f"{n}.bvh", c) for n, c in odd.items()]
    )
    with tempfile.TemporaryDirectory() as folder:
        rest = Path(folder, "body.json")
        rest.write_text(json.dumps({"joints": standing_body()}))

        def smpl(path: Path) -> Any:
            return amass.read_amass(path, rest)

        frames: dict[str, Any] = {
            "poses": 0.1 * rng.normal(size=(30, 66)),
            "trans": np.zeros((30, 3)),
            "mocap_framerate": 60.0,
        }
        wrong = {
            "rate_text": {**frames, "mocap_framerate": "sixty"},
            "rate_zero": {**frames, "mocap_framerate": 0.0},
            "rate_nan": {**frames, "mocap_framerate": np.nan},
            "rate_list": {**frames, "mocap_framerate": [1.0, 2.0]},
            "short": {**frames, "trans": np.zeros((5, 3))},
            "joints": {**frames, "poses": np.zeros((30, 20))},
            "nan": {**frames, "poses": np.full((30, 66), np.nan)},
            "flat": {**frames, "poses": np.zeros(66)},
            "no_trans": {"poses": frames["poses"], "mocap_framerate": 60.0},
            "no_rate": {"poses": frames["poses"], "trans": frames["trans"]},
            "objects": {**frames, "poses": np.array([{}] * 30, dtype=object)},
            "text": {**frames, "trans": np.full((30, 3), "a")},
            "degrees": {**frames, "poses": 57.3 * np.ones((30, 66))},
        }
        packed = _npz(frames)
        yield Inputs("person .npz", "true", "loads", smpl, [("amass.npz", packed)])
        yield Inputs(
            "person .npz", "damaged", "any", smpl, _copies("amass.npz", packed, count, rng)
        )
        yield Inputs(
            "person .npz",
            "odd content",
            "refuse",
            smpl,
            [(f"{n}.npz", _npz(a)) for n, a in wrong.items()],
        )
    joints = {"joints": {"pelvis": "Hips", "chest": "Spine2", "neck": "Neck"}}
    mapping = skeletons.read_mapping
    yield Inputs("mapping .json", "odd content", "refuse", mapping, odd_json(joints))
    yield Inputs(
        "mapping .json",
        "damaged",
        "any",
        mapping,
        _copies("map.json", json.dumps(joints).encode(), count, rng),
    )


def _copies(
    name: str, content: bytes, count: int, rng: np.random.Generator
) -> list[tuple[str, bytes]]:
    return [(name, copy) for copy in damaged(content, count, rng)]


def odd_json(good: Any = None) -> list[tuple[str, bytes]]:
    """JSON that no reader of objects should take, and bytes that are none."""
    texts = [
        "",
        "{",
        "[]",
        "7",
        "null",
        '"text"',
        "{}",
        "nan",
        "[" * 100_000 + "]" * 100_000,
        '{"a":' * 50_000 + "1" + "}" * 50_000,
        "9" * 900_000,
        '{"a": 1e400}',
        "{'a': 1}",
        "\ufeff{}",
        "{}{}",
    ]
    contents = [text.encode() for text in texts]
    contents += [b"\xff\xfe\x00", b"\x00" * 5000, b"PK\x03\x04", b"\x80\x05K\x01."]
    for value in (None, 7, [], {}, "", True, [[]], -1, "a\x00b") if good else ():
        contents += [json.dumps({key: value for key in good}).encode()]
    return [("odd.json", content) for content in contents]


def policies(count: int, rng: np.random.Generator) -> Iterator[Inputs]:
    """ONNX files, and JSON beside them."""
    import onnx
    import onnxruntime  # noqa: F401  (loaded before the readers' time is taken)
    from onnx import TensorProto, helper, numpy_helper

    from bm_envs import policy

    good = (policy.SHIPPED / "walks.onnx").read_bytes()
    small = onnx.load_from_string(good)

    def run(path: Path) -> Any:
        loaded = policy.load_policy(path)
        return loaded(np.zeros((1, loaded.spec.observation_size), np.float32))

    def graph(nodes: list[Any], *weights: Any) -> bytes:
        model = onnx.ModelProto()
        model.CopyFrom(small)
        made = helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("obs", TensorProto.FLOAT, [1, 160])],
            [helper.make_tensor_value_info("actions", TensorProto.FLOAT, [1, 29])],
            list(weights),
        )
        model.graph.CopyFrom(made)
        return model.SerializeToString()

    def constant(name: str, value: np.ndarray) -> Any:
        return numpy_helper.from_array(value, name)

    wide = constant("wide", np.array([20_000, 20_000], np.int64))
    narrow, zero = (
        constant("out", np.zeros((160, 29), np.float32)),
        constant("zero", np.zeros(1, np.float32)),
    )
    make = helper.make_node
    products = [make("ConstantOfShape", ["wide"], ["m0"])]
    products += [make("MatMul", [f"m{i}", f"m{i}"], [f"m{i + 1}"]) for i in range(20)]
    products += [
        make("ReduceSum", ["m20"], ["s"], keepdims=0),
        make("Add", ["obs", "s"], ["o"]),
        make("MatMul", ["o", "out"], ["actions"]),
    ]
    tiles = [
        make("Tile", ["obs", "times"], ["t"]),
        make("ReduceSum", ["t"], ["s"], keepdims=0),
        make("Add", ["obs", "s"], ["o"]),
        make("MatMul", ["o", "out"], ["actions"]),
    ]
    chain = [make("Tanh", ["obs" if i == 0 else f"c{i}"], [f"c{i + 1}"]) for i in range(8000)]
    chain += [make("MatMul", ["c8000", "out"], ["actions"])]
    body = helper.make_graph(
        [make("Identity", ["cond"], ["go"]), make("Tanh", ["v"], ["w"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("cond", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, [1, 160]),
        ],
        [
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("w", TensorProto.FLOAT, [1, 160]),
        ],
    )
    loop = [
        make("Loop", ["n", "yes", "obs"], ["o"], body=body),
        make("MatMul", ["o", "out"], ["actions"]),
    ]
    outside = numpy_helper.from_array(np.zeros((160, 29), np.float32), "out")
    outside.ClearField("raw_data")
    outside.data_location = TensorProto.EXTERNAL
    outside.external_data.add(key="location", value="../../../../etc/passwd")
    bombs = [
        ("products.onnx", graph(products, wide, narrow)),
        ("tiles.onnx", graph(tiles, narrow, constant("times", np.array([30_000, 3000], np.int64)))),
        ("chain.onnx", graph(chain, narrow)),
        (
            "loop.onnx",
            graph(loop, narrow, constant("n", np.array(10**9)), constant("yes", np.array(True))),
        ),
        ("outside.onnx", graph([make("MatMul", ["obs", "out"], ["actions"])], outside)),
        (
            "nan.onnx",
            graph(
                [
                    make("MatMul", ["obs", "out"], ["a"]),
                    make("Log", ["zero"], ["l"]),
                    make("Mul", ["a", "l"], ["actions"]),
                ],
                narrow,
                zero,
            ),
        ),
        ("random.onnx", graph([make("RandomNormal", [], ["actions"], shape=[1, 29])])),
    ]
    yield Inputs("policy .onnx", "true", "loads", run, [("walks.onnx", good)])
    yield Inputs("policy .onnx", "damaged", "any", run, _copies("walks.onnx", good, count, rng))
    yield Inputs("policy .onnx", "graphs that burst or escape", "any", run, bombs)

    def with_metadata(**changes: str) -> bytes:
        model = onnx.ModelProto()
        model.CopyFrom(small)
        for entry in model.metadata_props:
            entry.value = changes.get(entry.key, entry.value)
        return model.SerializeToString()

    values = (
        "",
        "nan",
        "1e999",
        ",".join(["x"] * 29),
        "1,2",
        "[1, 2",
        "\x00",
        "9" * 5000,
        ",".join(["inf"] * 29),
    )
    keys = (
        "joint_names",
        "joint_stiffness",
        "joint_damping",
        "default_joint_pos",
        "action_scale",
        "observation_names",
    )
    odd = [("odd.onnx", with_metadata(**{key: value})) for key in keys for value in values]
    yield Inputs("policy .onnx", "odd metadata", "refuse", run, odd)

    def configured(path: Path) -> Any:
        return policy.load_policy(policy.SHIPPED / "walks.onnx", config=path)

    yield Inputs("policy config .json", "odd content", "any", configured, odd_json(keys))


def results(count: int, rng: np.random.Generator) -> Iterator[Inputs]:
    """Result files."""
    from bm_envs.results import read_result

    good = Path(__file__).resolve().parent.joinpath("results", "walk.json").read_bytes()
    yield Inputs("result .json", "true", "load", read_result, [("walk.json", good)])
    yield Inputs(
        "result .json", "damaged", "any", read_result, _copies("walk.json", good, count, rng)
    )
    yield Inputs("result .json", "odd content", "refuse", read_result, odd_json(json.loads(good)))


def rollouts(count: int, rng: np.random.Generator) -> Iterator[Inputs]:
    """Shards of roll-outs and their manifests."""
    from bm_envs.diffusion import rollouts as stored

    episodes, steps, joints = 2, 5, g1.NUM_JOINTS

    def zeros(*shape: int, kind: type = np.float32) -> np.ndarray:
        return np.zeros((episodes, *shape), kind)

    written = stored.Rollouts(
        qpos=zeros(steps, 7 + joints), qvel=zeros(steps, 6 + joints),
        action=zeros(steps, joints), executed=zeros(steps, joints), pushed=zeros(steps, kind=bool),
        clip=zeros(kind=np.int64), frame=zeros(kind=np.int64), noise=zeros(),
        delay=zeros(kind=np.int64), joint_offset=zeros(joints), length=zeros(kind=np.int64),
    )  # fmt: skip
    arrays = vars(written)
    good = _npz(arrays)
    first = next(iter(arrays))
    wrong = [
        ("no_key.npz", _npz({k: v for k, v in arrays.items() if k != first})),
        ("objects.npz", _npz({**arrays, first: np.array([{}], dtype=object)})),
        ("claims.npz", _archive({f"{first}.npy": _claims("(10**9, 10**9)")})),
        (
            "zeros.npz",
            _archive(
                {
                    f"{name}.npy": _claims("(30000, 4000)") + bytes(120_000_000 * 8)
                    for name in (first,)
                }
            ),
        ),
    ]
    yield Inputs("shard .npz", "true", "load", stored.load_shard, [("shard.npz", good)])
    yield Inputs(
        "shard .npz", "damaged", "any", stored.load_shard, _copies("shard.npz", good, count, rng)
    )
    yield Inputs("shard .npz", "odd content", "refuse", stored.load_shard, wrong)


def checkpoints(count: int, rng: np.random.Generator) -> Iterator[Inputs]:
    """A trainer's checkpoint."""
    import torch

    from bm_envs.learning import folder as run_folder

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "checkpoint.pt")
        state = {"actor": {"w": torch.arange(4000.0)}, "iteration": 3, "name": "walk"}
        run_folder.save_checkpoint(path, state)
        good = path.read_bytes()

    def read(path: Path) -> None:
        loaded = run_folder.load_checkpoint(path, list(state))
        if not torch.equal(loaded["actor"]["w"], state["actor"]["w"]) or loaded["iteration"] != 3:
            raise ArithmeticError("other numbers than were saved")

    yield Inputs("checkpoint .pt", "true", "load", read, [("checkpoint.pt", good)])
    yield Inputs(
        "checkpoint .pt", "damaged", "any", read, _copies("checkpoint.pt", good, 5 * count, rng)
    )


def damaged_motions(count: int, rng: np.random.Generator) -> Iterator[Inputs]:
    """Motion files with damage anywhere."""
    clip = library.load_motion("walk").cut(4.0, 5.0)
    rows = rows_of(clip)
    kept = {"root_pos": rows[:, :3], "root_rot": rows[:, 3:7], "dof_pos": rows[:, 7:], "fps": 50.0}
    for suffix, content in (
        ("csv", csv_bytes(rows)), ("npz", _npz(npz_arrays(clip))), ("pkl", pickle.dumps(kept)),
    ):  # fmt: skip
        copies = _copies(f"walk.{suffix}", content, count, rng)
        yield Inputs(f"motion .{suffix}", "damaged", "any", library.load_motion, copies)


def sources(config: Config, rng: np.random.Generator) -> Iterator[Inputs]:
    """All inputs, made when they come to be tried."""
    count = 10 if config.quick else config.damaged
    yield from motions()
    yield from npz_motions()
    yield from pickle_motions()
    yield from damaged_motions(count, rng)
    yield from people(count, rng)
    yield from policies(count, rng)
    yield from results(count, rng)
    yield from rollouts(count, rng)
    yield from checkpoints(count, rng)


# --- commands and processes -----------------------------------------------------------------------

ROOT = Path(__file__).resolve().parent.parent
# `X` stands for what cannot be taken: a file that is missing, holds nonsense or is a folder. A flag
# that may do without the file (a result to write, a folder to make) gets a folder or a file there.
COMMANDS = {
    "algos/ppo_track.py --motion X.csv": "read",
    "algos/ppo_track.py --motion walk --run-dir X": "file",
    "algos/wm_track.py --motion X.npz": "read",
    "algos/wm_track.py --motion walk --run-dir X": "file",
    "algos/ppo_guided.py --task joystick --run-dir X": "file",
    "algos/ddpm_guided.py --data X": "read",
    "algos/collect_rollouts.py --policy X.onnx --out OUT": "read",
    "algos/collect_rollouts.py --policy walk --out X": "file",
    "benchmarks/track.py --policy X.onnx": "read",
    "benchmarks/track.py --policy walk --motion X.pkl": "read",
    "benchmarks/track.py --policy walk --policy-config X.json": "read",
    "benchmarks/track.py --policy walk --json X": "folder",
    "benchmarks/guided.py --policy X --task joystick": "read",
    "benchmarks/gates.py --policy X": "read",
    "benchmarks/leaderboard.py --results X --out OUT": "read",
    "benchmarks/sim2sim.py X.onnx --quick": "read",
    "benchmarks/learning.py --json OUT.json --motion X.csv": "read",
    "benchmarks/world_model.py --json X": "folder",
    "benchmarks/throughput.py --json X": "folder",
    "tools/csv_to_npz.py X.csv OUT.npz": "read",
    "tools/retarget.py X.bvh OUT.npz": "read",
    "tools/retarget.py X.npz OUT.npz": "read",
    "tools/replay.py --motion X.npz": "read",
    "tools/replay.py --motion walk --policy X.onnx": "read",
    "tools/export_onnx.py X OUT.onnx": "read",
    "tools/sim2sim.py X.onnx": "read",
    "tools/play.py --policy X": "read",
    "tools/play.py --script X": "read",
    "tools/check_reference.py --motion X.csv": "read",
    "tools/deploy.py X.onnx --domain 97": "read",
    "tools/ros_bridge.py X.onnx": "read",
    "tools/rollouts_to_minari.py X a/b-v0": "read",
}


def run_command(
    arguments: Sequence[str], folder: Path, limit: int | None = None
) -> tuple[int, str, float]:
    """Exit status, what it wrote to stderr, and seconds; `limit` is the largest file in bytes."""

    def bounded() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, str(ROOT / arguments[0]), *arguments[1:]], cwd=folder, text=True,
        capture_output=True, timeout=600, env={**os.environ, "PYTHONPATH": str(ROOT)},
        preexec_fn=bounded,
    )  # fmt: skip
    return done.returncode, done.stderr, time.monotonic() - start


def outcome_of(status: int, stderr: str) -> tuple[str, str]:
    """Outcome of a command as of a reader: exit status 2 and up to three lines are a refusal."""
    lines = [line for line in stderr.splitlines() if line.strip()]
    last = lines[-1] if lines else ""
    if status == 2 and 1 <= len(lines) <= 3:
        return "refused", last
    if status == 0:
        return "warned" if any(line.startswith("warning:") for line in lines) else "loaded", last
    return f"status {status}, {len(lines)} lines", last


def bad_paths(quick: bool) -> Iterator[Row]:
    """Every command with a path that it cannot take."""
    row = Row("command", "a path it cannot take", "refuse")
    for number, (command, kind) in enumerate(COMMANDS.items()):
        if quick and number % 10:
            continue
        for what in ("missing", "nonsense", "folder", "long") if kind == "read" else (kind,):
            with tempfile.TemporaryDirectory() as folder:
                name = "n" * 300 if what == "long" else "given"
                words = [
                    word.replace("X", name) if "X" in word else word for word in command.split()
                ]
                (path,) = (Path(folder, word) for word in words if name in word)
                if what in ("nonsense", "file"):
                    path.write_bytes(bytes(range(256)) * 40)
                elif what == "folder":
                    path.mkdir()
                status, stderr, _ = run_command(words, Path(folder))
                outcome, sentence = outcome_of(status, stderr)
                left = {place.name for place in Path(folder).rglob("*")} - {path.name}
                if outcome == "refused" and left:
                    outcome, sentence = "left files", ", ".join(sorted(left))
                row.add(f"{command} ({what})", outcome, sentence, 0.0, 0.0)
    yield row


TRAIN = (
    "algos/ppo_track.py --motion stand --num-envs 8 --num-steps 8 --total-timesteps 1920 "
    "--threads 1 --eval-every 640 --hidden 32 --curriculum-s 0.1 --checkpoint-s 0 --run-dir run"
).split()


def _metrics(folder: Path) -> list[dict[str, Any]]:
    """Rows of the run's metrics but for its times."""
    lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    times = ("perf/", "train_s", "charts/SPS")
    return [
        {key: value for key, value in json.loads(line).items() if not key.startswith(times)}
        for line in lines
    ]


def _begun(folder: str, *further: str) -> subprocess.Popen[bytes]:
    """The training in a process of its own, when its folder is there."""
    process = subprocess.Popen(
        [sys.executable, str(ROOT / TRAIN[0]), *TRAIN[1:], *further],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    while not Path(folder, "run", "config.json").exists() and process.poll() is None:
        time.sleep(0.05)
    return process


def trainings(rng: np.random.Generator, quick: bool) -> Iterator[Row]:
    """A training that is killed, doubled, torn and short of room."""
    killed = Row("training", "killed by SIGKILL and resumed: the same metrics", "load")
    doubled = Row("training", "a second one in the same folder", "refuse")
    with tempfile.TemporaryDirectory() as folder:
        process = _begun(folder, "--total-timesteps", "100000000")
        for further in ([], ["--resume"]):
            second = run_command([*TRAIN, *further], Path(folder))
            doubled.add(" ".join(further) or "plain", *outcome_of(*second[:2]), 0.0, 0.0)
        process.kill()
        process.wait()
    with tempfile.TemporaryDirectory() as whole, tempfile.TemporaryDirectory() as parts:
        status, stderr, seconds = run_command(TRAIN, Path(whole))
        if status:
            raise ConfigError(f"The training to compare with failed: {stderr.splitlines()[-1]}")
        for _ in range(2 if quick else 8):
            process = _begun(parts, "--resume")
            time.sleep(float(rng.uniform(0.1, 0.6)) * seconds)
            process.kill()
            process.wait()
        status, stderr, _ = run_command([*TRAIN, "--resume"], Path(parts))
        same = status == 0 and _metrics(Path(parts)) == _metrics(Path(whole))
        leftovers = [place.name for place in Path(parts, "run").glob(".checkpoint.*")]
        outcome = (
            "loaded" if same and not leftovers else f"status {status}, same {same}, {leftovers}"
        )
        killed.add("ppo_track.py", outcome, stderr[-200:], 0.0, 0.0)
        yield killed
        yield doubled
        torn = Row("training", "metrics.jsonl cut within a line, or with a block of zeros", "loads")
        for tail in (b'{"step": 99', b"\x00" * 4096, b"\xff\xfe"):
            with Path(whole, "run", "metrics.jsonl").open("ab") as stream:
                stream.write(tail)
            torn.add(
                repr(tail[:8]),
                *outcome_of(*run_command([*TRAIN, "--resume"], Path(whole))[:2]),
                0.0,
                0.0,
            )
        yield torn
    full = Row("training", "no room for a checkpoint", "refuse")
    for room in (1000, 20_000):
        with tempfile.TemporaryDirectory() as folder:
            full.add(
                f"{room} bytes", *outcome_of(*run_command(TRAIN, Path(folder), room)[:2]), 0.0, 0.0
            )
    yield full


# Files of the tests that put faults on the simulated robot's bus and into its control loop. They
# assert the bounds of every command and the time to the reaction; a row counts a test's cases.
ROBOT_TESTS = ("tests/deploy/test_envelope.py", "tests/deploy/test_dds.py")


def robot(quick: bool) -> Iterator[Row]:
    """Faults of the robot's readings, bus, clock and process, by the tests that inject them."""
    with tempfile.TemporaryDirectory() as folder:
        report_file = Path(folder, "report.xml")
        subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
                *(f"--junitxml={report_file}", *ROBOT_TESTS[: 1 if quick else 2]),
            ],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        cases = list(xml.etree.ElementTree.parse(report_file).getroot().iter("testcase"))
    rows: dict[str, Row] = {}
    for case in cases:
        name, _, which = case.get("name", "").partition("[")
        words = name.removeprefix("test_").replace("_", " ")
        row = rows.setdefault(words, Row("robot", words, "damp"))
        outcome = "failed" if {"failure", "error"} & {part.tag for part in case} else "refused"
        if case.find("skipped") is None:
            row.add(which.rstrip("]"), outcome, "", 0.0, 0.0)
    yield from (row for row in rows.values() if row.inputs)


def report(row: Row) -> None:
    """One line, and the sentences of what went wrong."""
    print(
        f"{row.surface:16s} {row.fault:48s} {row.expected:7s} {row.inputs:5d} tried "
        f"{row.refused:5d} refused {row.warned:4d} warned {row.loaded:4d} loaded "
        f"{row.wrong:4d} wrong {row.slowest_s:5.2f} s {row.peak_mb:6.0f} MB",
        *row.examples,
        sep="\n    ",
        flush=True,
    )


def reading(config: Config, rng: np.random.Generator) -> Iterator[Row]:
    """Rows of the inputs that are files."""
    for inputs in sources(config, rng):
        if config.surface and not inputs.surface.startswith(config.surface):
            continue
        row = Row(inputs.surface, inputs.fault, inputs.expected)
        for name, content in inputs.files[
            :: 10 if config.quick and inputs.expected != "any" else 1
        ]:
            with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
                path = Path(folder, name)
                path.write_bytes(content)
                row.add(name, *attempt(inputs.read, path))
        yield row


def main(config: Config) -> None:
    """Try everything; a line a row as it comes."""
    os.environ["BM_CACHE_DIR"] = "0"  # readers are tried, and nothing is to be kept
    rng = np.random.default_rng(config.seed)
    rows: list[Row] = []
    parts: dict[str, Callable[[], Iterator[Row]]] = {
        "": lambda: reading(config, rng),
        "command": lambda: bad_paths(config.quick),
        "training": lambda: trainings(rng, config.quick),
        "robot": lambda: robot(config.quick),
    }
    for surface, make in parts.items():
        if surface and config.surface and not surface.startswith(config.surface):
            continue
        for row in make():
            rows.append(row)
            report(row)
    print(f"{sum(row.inputs for row in rows)} inputs, {sum(row.wrong for row in rows)} wrong")
    if config.json is not None:
        write_result(
            config.json,
            cli.json_result("reliability", seed=config.seed, rows=[asdict(row) for row in rows]),
        )
        print(f"rows in {config.json}")


if __name__ == "__main__":
    cli.run(main, Config)
