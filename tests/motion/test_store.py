"""`motion/store.py`: what is loaded is what was saved, or nothing, whatever happens to files."""

import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import hypothesis
import hypothesis.extra.numpy as arrays_of
import hypothesis.strategies as st
import numpy as np
import pytest

from bm_envs.errors import BMWarning
from bm_envs.motion import store as module
from bm_envs.motion.memory import Region
from bm_envs.motion.store import Store, code_sha256, store_in_use

ARRAYS = {
    "values": np.arange(35, dtype=np.float32).reshape(5, 7),
    "flags": np.array([[True, False], [False, True], [True, True]]),
    "wide": np.arange(12, dtype=np.float64)[::2],
}


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_refused", set())
    monkeypatch.setattr(module, "_tidied", set())
    return Store(tmp_path / "cache")


def only_file(store):
    (path,) = (path for path in store.folder.rglob("*") if path.is_file())
    return path


def same(found, expected):
    return found is not None and found.keys() == expected.keys() and all(
        found[name].dtype == array.dtype and np.array_equal(found[name], array)
        for name, array in expected.items()
    )  # fmt: skip


@hypothesis.given(st.dictionaries(
    st.text("abc_", min_size=1, max_size=5),
    arrays_of.arrays(
        st.sampled_from(["<f4", "<f8", "?", "<i8"]),
        arrays_of.array_shapes(max_dims=3, max_side=9), elements={"allow_nan": False},
    ) | arrays_of.arrays("<i2", st.just((3,))),
    min_size=1, max_size=4,
))  # fmt: skip
@hypothesis.settings(
    max_examples=50, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
def test_arrays_come_back(store, arrays):
    store.save("kind", "key", "maker", arrays)
    found = store.load("kind", "key", "maker")
    assert same(found, arrays)
    assert not any(array.flags.writeable for array in found.values())
    assert store.load("kind", "key", "another maker") is None
    assert store.load("kind", "another", "maker") is None


def test_without_shared_memory_files_are_read(store, monkeypatch):
    store.save("kind", "key", "", ARRAYS)
    monkeypatch.setattr(module.Region, "put_file", _unavailable)
    found = store.load("kind", "key", "")
    assert same(found, ARRAYS) and not any(array.flags.writeable for array in found.values())


def _unavailable(*_):
    raise module.MemoryUnavailable("none")


def test_an_array_is_shown_in_a_region(store):
    rows = np.arange(20, dtype=np.float32).reshape(4, 5)
    store.save("kind", "key", "", {"rows": rows})
    region = Region(3 * 4096)
    assert store.place("kind", "key", "", (4, 5), region, 4096)
    assert np.array_equal(region.bytes[4096 : 4096 + 80].view(np.float32).reshape(4, 5), rows)
    assert not store.place("kind", "key", "", (5, 4), region, 4096)
    assert not store.place("kind", "none", "", (4, 5), region, 4096)


@hypothesis.given(st.data())
@hypothesis.settings(
    max_examples=60, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
def test_a_damaged_file_is_as_good_as_none(store, data):
    store.save("kind", "key", "", ARRAYS)
    path = only_file(store)
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    damage = data.draw(st.sampled_from(["flip", "cut", "more"]))
    if damage == "flip":
        content[place] ^= 1 << data.draw(st.integers(0, 7))
    elif damage == "cut":
        del content[place:]
    else:
        content += bytes(place + 1)
    path.write_bytes(content)
    assert store.load("kind", "key", "") is None
    store.save("kind", "key", "", ARRAYS)
    assert same(store.load("kind", "key", ""), ARRAYS)


def test_a_file_is_compared_with_its_digest_when_it_does_not_have_its_time(store, monkeypatch):
    store.save("kind", "key", "", ARRAYS)
    compared = []
    content_sha256 = module._content_sha256
    monkeypatch.setattr(
        module, "_content_sha256", lambda *a: compared.append(a) or content_sha256(*a)
    )
    assert same(store.load("kind", "key", ""), ARRAYS) and not compared
    time_ns = only_file(store).stat().st_mtime_ns
    os.utime(only_file(store))
    assert same(store.load("kind", "key", ""), ARRAYS) and len(compared) == 1
    assert only_file(store).stat().st_mtime_ns == time_ns  # it has it again
    assert same(store.load("kind", "key", ""), ARRAYS) and len(compared) == 1


@pytest.mark.parametrize("value", [{"a": [1, 0.1, None, "text \u00e9"]}, [], 3])
def test_entries(store, value):
    assert store.load_entry("kind", "key") is None
    store.save_entry("kind", "key", value)
    assert store.load_entry("kind", "key") == value
    content = only_file(store).read_bytes()
    for place in range(len(content)):
        only_file(store).write_bytes(content[:place])
        assert store.load_entry("kind", "key") is None
        flipped = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
        only_file(store).write_bytes(flipped)
        assert store.load_entry("kind", "key") is None


WRITER = """
import sys
from pathlib import Path
import numpy as np
from bm_envs.motion.store import Store
store, rows = Store(Path(sys.argv[1])), np.ones((4_000_000, 2), np.float32)
print("ready", flush=True)
while True:
    store.save("kind", "key", "", {"rows": rows})
"""


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_killed_while_writing(store, monkeypatch):
    """Whenever that is: at first there is no file, later a whole one, and it can be used on."""
    rows = np.ones((4_000_000, 2), np.float32)
    killed = 0
    for delay_s in (0.0, 0.01, 0.03, 0.1, 0.4):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, store.folder], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        deadline = time.monotonic() + 60
        while not list(store.folder.rglob(".*.arrays")) and time.monotonic() < deadline:
            pass  # until it is writing
        time.sleep(delay_s)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        leftovers = list(store.folder.rglob(".*.arrays"))
        killed += bool(leftovers)
        found = store.load("kind", "key", "")
        whole = store.folder / "kind" / "key.arrays"
        assert same(found, {"rows": rows}) if whole.exists() else found is None
        store.save("kind", "other", "", ARRAYS)
        assert same(store.load("kind", "other", ""), ARRAYS)
    assert killed, "premise: it was killed within a write"
    # What they left is removed by a later process that writes, when it is old.
    monkeypatch.setattr(module, "_tidied", set())
    store.save("kind", "other", "", ARRAYS)
    assert list(store.folder.rglob(".*.arrays"))
    monkeypatch.setattr(module, "_LEFTOVER_S", -60.0)
    monkeypatch.setattr(module, "_tidied", set())
    store.save("kind", "another", "", ARRAYS)
    assert not list(store.folder.rglob(".*"))
    assert same(store.load("kind", "another", ""), ARRAYS)


def test_where_nothing_can_be_written_is_said_once(tmp_path, store):
    """A folder cannot be made where a file is; a superuser may write into any other."""
    (tmp_path / "file").write_text("")
    store = Store(tmp_path / "file" / "motion")
    with pytest.warns(BMWarning, match=r"file.*cannot be written.*BM_CACHE_DIR") as caught:
        store.save("kind", "key", "", ARRAYS)
    assert len(caught) == 1 and "\n" not in str(caught[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store.save("kind", "key", "", ARRAYS)
        store.save_entry("kind", "key", 1)
        assert store.load("kind", "key", "") is None and store.load_entry("kind", "key") is None


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_leaves_nothing(store, monkeypatch):
    monkeypatch.setattr(module, "_foot_bytes", _full)
    with pytest.warns(BMWarning, match="cannot be written .No space left on device."):
        store.save("kind", "key", "", ARRAYS)
    assert not [path for path in store.folder.rglob("*") if path.is_file()]


def _full(_):
    with open("/dev/full", "wb", buffering=0) as stream:
        try:
            stream.write(b"1")
        except OSError as error:
            raise OSError(error.errno, error.strerror) from None
    raise AssertionError


def test_the_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("BM_CACHE_DIR", f"{tmp_path}")
    assert store_in_use() == Store(tmp_path / "motion")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BM_CACHE_DIR", "here")
    assert store_in_use() == Store(tmp_path / "here" / "motion")
    monkeypatch.setenv("BM_CACHE_DIR", "0")
    assert store_in_use() is None
    monkeypatch.delenv("BM_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", f"{tmp_path / 'xdg'}")
    assert store_in_use() == Store(tmp_path / "xdg" / "bm-envs" / "motion")
    monkeypatch.setenv("HOME", f"{tmp_path}")
    for ignored in ("not/absolute", ""):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert store_in_use() == Store(tmp_path / ".cache" / "bm-envs" / "motion")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert store_in_use() == Store(tmp_path / ".cache" / "bm-envs" / "motion")
    monkeypatch.setenv("HOME", "nowhere")
    assert store_in_use() is None


def test_the_code_that_makes_something_is_part_of_its_key(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PACKAGE", tmp_path)
    (tmp_path / "room").mkdir()
    digests = set()
    for content in ("a = 1", "a = 2"):
        (tmp_path / "room" / "a.py").write_text(content)
        (tmp_path / "b.py").write_text("")
        code_sha256.cache_clear()
        digests |= {code_sha256("room"), code_sha256("room", "b.py"), code_sha256("b.py")}
    code_sha256.cache_clear()
    assert len(digests) == 5  # of b.py one
