"""Motion files that would take the machine: small ones that unpack, copy, hash or nest for ever.

Each is read in a process of its own, so that its time and memory can be measured: at most 2 s of
processor time and 1 GB, whatever a file of a megabyte says.
"""

import bz2
import functools
import gzip
import io
import json
import lzma
import os
import pickle
import resource
import struct
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hostile_limits import SECONDS
from hypothesis import given, settings
from hypothesis import strategies as st
from process_memory import memory

from bm_envs.errors import BMError, BMWarning, MotionError
from bm_envs.motion import pickles
from bm_envs.motion.clip import ARRAY_SHAPES, save_npz
from bm_envs.motion.library import load_motion, load_motions

BYTES = 10**9
FRAMES = 50
MOTION = {
    "root_pos": np.tile([0.0, 0.0, 0.79], (FRAMES, 1)), "fps": 30,
    "root_rot": np.tile([0.0, 0.0, 0.0, 1.0], (FRAMES, 1)), "dof_pos": np.zeros((FRAMES, 29)),
}  # fmt: skip


def measured(load, path):
    """What loading said ("" where it succeeded), its seconds of processor time, its memory.

    The memory is the peak above what the process held before, in bytes.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover
        os.close(reader)
        resource.setrlimit(resource.RLIMIT_CPU, (30, 30))
        before, standing = resource.getrusage(resource.RUSAGE_SELF), memory("VmRSS")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", BMWarning)
                load(str(path))
            said = ""
        except BMError as error:
            said = str(error)
        except BaseException as error:  # a traceback to the user
            said = f"DEFECT {type(error).__name__}: {error}"
        after = resource.getrusage(resource.RUSAGE_SELF)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        os.write(writer, json.dumps([said[:2000], used, memory("VmHWM") - standing]).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        answer = stream.read()
    os.waitpid(child, 0)
    assert answer, f"{path.name}: the process was ended"
    return json.loads(answer)


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value


def nested(depth, width, kind=b"]"):
    """Steps that put a list on the stack whose ends are width ** depth, each list made once."""
    parts = [b"]q\x00K\x00a"]
    for level in range(depth):
        again = b"h" + bytes([level])
        parts.append(b"]q" + bytes([level + 1]) + b"(" + again * width + b"e")
    return b"".join(parts)


def with_entry(key, steps):
    """A motion whose entry `key` is what the steps make."""
    parts = [b"\x80\x02}("]
    for name in (*MOTION, *([] if key in MOTION else [key])):
        value = steps if name == key else pickle.dumps(MOTION[name], 2)[2:-1]
        # entries are unpickled alone, so the memo's numbers must not meet
        parts.append(text(name.encode()) + value)
    return b"".join(parts) + b"u."


def squared_tuples(count):
    parts = [b"K\x01\x85q\x00"]
    for level in range(count):
        again = b"h" + bytes([level])
        parts.append(again * 2 + b"\x86q" + bytes([level + 1]))
    return b"".join(parts)


ORDERED = b"ccollections\nOrderedDict\n"
PAIRS = b"(" + b"".join(b"(K" + bytes([i % 256]) + b"Nt" for i in range(50_000)) + b"l"
MILLION = 990_000


def frames(dtype, count):
    return {
        "root_pos": np.ones((count, 3), dtype), "dof_pos": np.zeros((count, 29), dtype), "fps": 50,
        "root_rot": np.tile(np.array([0, 0, 0, 1], dtype), (count, 1)),
    }  # fmt: skip


LARGE = {
    "zeros": lambda: pickle.dumps(bytes(100_000_000)),
    "lists": lambda: b"\x80\x02(" + b"]" * 10_000_000 + b"l.",
    "frames": lambda: pickle.dumps(frames(np.int8, 450_000)),
}


def packed(pack, what):
    """Made where it is tried: packing all of them takes seconds."""
    return pack(LARGE[what]())


HOSTILE = {
    **{f"nested {key}": with_entry(key, nested(60, 2)) for key in
       ("root_pos", "root_rot", "dof_pos", "fps", "dt", "pose_aa", "dof_names", "root_trans")},
    **{f"wide {key}": with_entry(key, nested(4, 200)) for key in ("root_pos", "dof_pos", "fps")},
    "empty lists": b"\x80\x02(" + b"]" * MILLION + b"l.",
    "empty dicts": b"\x80\x02(" + b"}" * MILLION + b"l.",
    "marks": b"\x80\x02" + b"(" * MILLION + b".",
    "tuples in tuples": b"\x80\x02)" + b"\x85" * MILLION + b".",
    "lists in lists": b"\x80\x02" + b"]" * 300_000 + b"a" * 299_999 + b".",
    "memo": b"\x80\x04]" + b"\x94" * MILLION + b".",
    "sets": b"\x80\x04(" + b"\x8f" * MILLION + b"l.",
    "tuple as key": b"\x80\x02}" + squared_tuples(40) + b"Ns.",
    "tuple as key of a call": b"\x80\x02" + ORDERED + b"((" + squared_tuples(40) + b"NtltR.",
    "long integers as keys": b"\x80\x02}(" + b"".join(
        b"\x8a\xff" + (i * (2**61 - 1)).to_bytes(255, "little") + b"N" for i in range(1, 3500)
    ) + b"u.",
    "a long integer": b"\x80\x02\x8b" + struct.pack("<i", MILLION) + b"\x01" * MILLION + b".",
    "a long text of digits": b"I" + b"9" * MILLION + b"\n.",
    "bytes that are not there": b"\x80\x05\x96" + struct.pack("<Q", 2**36) + b".",
    "many dicts": b"\x80\x02" + PAIRS + b"q\x000" + ORDERED + b"q\x010"
    + b"h\x01h\x00\x85R0" * 100_000 + b"N.",
    "many copies": b"\x80\x02" + text(b"a" * 500_000) + b"q\x000" + text(b"latin1") + b"q\x010"
    + b"c_codecs\nencode\nq\x020" + b"h\x02h\x00h\x01\x86R" * 40_000 + b".",
    "a shape of many lengths": b"\x80\x02cnumpy.core.numeric\n_frombuffer\n(" + b"C\x04aaaa"
    b"cnumpy\ndtype\n" + text(b"f4") + b"\x85R(" + (b"\x8a\x08" + b"\xff" * 7 + b"\x7f") * 90_000
    + b"t" + text(b"C") + b"tR.",
    "many frames": pickle.dumps(frames(np.int8, 27_000)),
    "clips of one name each": pickle.dumps({f"c{i}": MOTION for i in range(60_000)}),
    "a list that holds itself": b"\x80\x02" + b"}q\x01" + text(b"root_pos") + b"]q\x00h\x00as.",
    **{f"{name} of {what}": functools.partial(packed, pack, what) for name, pack in (
        ("zlib", zlib.compress), ("gzip", gzip.compress), ("bz2", bz2.compress),
        ("xz", lzma.compress), ("lzma", lambda b: lzma.compress(b, lzma.FORMAT_ALONE)),
    ) for what in LARGE},
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_no_small_pickle_takes_the_machine(tmp_path, name):
    content = HOSTILE[name]() if callable(HOSTILE[name]) else HOSTILE[name]
    assert len(content) < 1_100_000, "premise: a file of a megabyte"
    path = tmp_path / "a.pkl"
    path.write_bytes(content)
    for load in (load_motion, load_motions):
        said, seconds, memory = measured(load, path)
        assert seconds < SECONDS and memory < BYTES, (seconds, memory, said[:200])
        assert not said.startswith("DEFECT") and "\n" not in said and len(said) < 600, said
        assert name == "many frames" or said.startswith(f"{path}"), said


@pytest.fixture(scope="module")
def arrays(tmp_path_factory):
    path = tmp_path_factory.mktemp("npz") / "w.npz"
    save_npz(load_motion("walk[4:8]"), path)
    with np.load(path) as file:
        return {"fps": np.array([50]), **{key: file[key] for key in ARRAY_SHAPES}}


def header(literal):
    encoded = literal.encode() + b" " * (64 - (len(literal) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(encoded)) + encoded


@pytest.mark.parametrize("literal", [
    "(" * 9000, "{'descr':'<f4','fortran_order':False,'shape':%s}" % ("(" * 3000 + ")" * 3000),
    "-" * 9000 + "1", "[]", "{1: 2}", "__import__('os').system('touch marker')",
    "{'descr':'<f4','fortran_order':False,'shape':(-1,30,3)}",
    "{'descr':'<f4','fortran_order':False,'shape':(10**99,30,3)}",
    "{'descr':'<zz','fortran_order':False,'shape':(5,30,3)}",
    "{'descr':'<U999999999','fortran_order':False,'shape':()}",
    "{'descr':[('a','<f4')],'fortran_order':False,'shape':(5,30,3)}",
])  # fmt: skip
@pytest.mark.parametrize("key", ["fps", "body_pos_w"])
def test_headers_that_no_numpy_writes(tmp_path, arrays, literal, key):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name, value in arrays.items():
            stream = io.BytesIO()
            np.save(stream, value)
            content = header(literal) + bytes(100) if name == key else stream.getvalue()
            archive.writestr(f"{name}.npy", content)
    with pytest.raises(MotionError) as caught:
        load_motion(str(path))
    said = str(caught.value)
    assert said.startswith(f"{path}: ") and "\n" not in said and len(said) < 600


def test_no_small_npz_takes_the_machine(tmp_path, arrays):
    path = tmp_path / "a.npz"
    shapes = {key: value.shape[1:] for key, value in arrays.items() if key != "fps"}
    for change in (
        {key: np.zeros((499_000, *shape), np.int8) for key, shape in shapes.items()},
        {"body_pos_w": np.zeros((400_000, 30, 3), np.float32)},
        {key: np.repeat(v[:1], 36_000, axis=0) for key, v in arrays.items() if key != "fps"},
    ):  # fmt: skip
        np.savez_compressed(path, **arrays | change)
        said, seconds, memory = measured(load_motion, path)
        assert path.stat().st_size < 1_500_000 and said.startswith(f"{path}: ")
        assert seconds < SECONDS and memory < BYTES, (seconds, memory, said[:200])


@pytest.mark.parametrize("content", [
    b"0\n" * 500_000, b"," * 1_000_000, b"\n" * 1_000_000, bytes(1_000_000), b"9" * 1_000_000,
    (b"0,0,.79,0,0,0,1" + b",0" * 29 + b"\n") * 12_500,
])  # fmt: skip
def test_no_small_csv_takes_the_machine(tmp_path, content):
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    said, seconds, memory = measured(load_motion, path)
    assert seconds < SECONDS and memory < BYTES, (seconds, memory, said[:200])
    assert said == "" if b".79" in content else said.startswith(f"{path}: "), said


# --- properties -----------------------------------------------------------------------------------


def refused_in_a_sentence_or_loaded(path):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", BMWarning)
            load_motion(str(path))
    except MotionError as error:
        said = str(error)
        assert said.startswith(str(path)) and "\n" not in said and len(said) < 600


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@settings(max_examples=150, deadline=None)
@given(content=st.binary(max_size=400), protocol=st.sampled_from([b"", b"\x80\x02", b"\x80\x04"]))
def test_any_bytes_as_a_pickle(place, content, protocol):
    (place / "a.pkl").write_bytes(protocol + content)
    refused_in_a_sentence_or_loaded(place / "a.pkl")


@settings(max_examples=150, deadline=None)
@given(
    changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=8),
    cut=st.integers(0, 10**6), protocol=st.integers(0, 5),
)  # fmt: skip
def test_damage_to_a_pickle(place, changes, cut, protocol):
    content = bytearray(pickle.dumps({"clip": MOTION}, protocol))
    for at, value in changes:
        content[at % len(content)] = value
    path = place / "a.pkl"
    path.write_bytes(content[: len(content) - cut % 200 if cut % 3 == 0 else None])
    refused_in_a_sentence_or_loaded(path)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.binary(max_size=8) | st.just(np.zeros((9, 29))) | st.just(np.ones((9, 3))),
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner)
    | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(key=st.sampled_from([*MOTION, "dt", "pose_aa", "dof_names", "framerate"]), value=values)
def test_any_value_in_the_place_of_an_entry(place, key, value):
    (place / "a.pkl").write_bytes(pickle.dumps(MOTION | {key: value}))
    refused_in_a_sentence_or_loaded(place / "a.pkl")


@settings(max_examples=200, deadline=None)
@given(value=values)
def test_what_pickle_writes_is_read_as_it_was(place, value):
    """Against the standard library, arrays apart."""
    path = place / "v.pkl"
    path.write_bytes(pickle.dumps(value))

    def same(found, truth):
        if isinstance(truth, np.ndarray):
            np.testing.assert_array_equal(pickles.as_array(found), truth)
        elif isinstance(truth, dict):
            assert list(found) == list(truth)
            for key in truth:
                same(found[key], truth[key])
        elif isinstance(truth, list | tuple):
            assert type(found) is type(truth) and len(found) == len(truth)
            for a, b in zip(found, truth, strict=True):
                same(a, b)
        else:
            assert type(found) is type(truth) and (found == truth or found != found)

    try:
        found = pickles.read_pickle(path)
    except MotionError as error:
        assert "a key of type int" in str(error)  # of more than 64 bits
        return
    same(found, value)


@settings(max_examples=150, deadline=None)
@given(content=st.text('0123456789.,-+eE \t;\n\r"#_naifINF\ufeff\u0661', max_size=300))
def test_any_text_as_a_csv(place, content):
    path = Path(place / "a.csv")
    path.write_text(content, encoding="utf-8", newline="")
    refused_in_a_sentence_or_loaded(path)
