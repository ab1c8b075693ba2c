"""`motion/memory.py`: files one after another in one piece of memory."""

import mmap
import os
import sys

import numpy as np
import pytest

from bm_envs.motion.memory import MemoryUnavailable, Region, rows_in_pages

PAGE = mmap.PAGESIZE
pytestmark = pytest.mark.skipif(os.name != "posix", reason="files are read there, not shown")


def file_of(path, content):
    path.write_bytes(content)
    return os.open(path, os.O_RDONLY)


@pytest.mark.parametrize("row_bytes", [1, 2, 4, 12, 280, 996, 1004, 4096, 5000])
def test_rows_that_fill_pages(row_bytes):
    least = next(n for n in range(1, PAGE + 1) if n * row_bytes % PAGE == 0)
    assert rows_in_pages(row_bytes) == least


def test_files_and_arrays_stand_where_they_were_put(tmp_path):
    rng = np.random.default_rng(0)
    first, second = rng.bytes(PAGE + 100), rng.bytes(3 * PAGE)
    array = rng.normal(size=(7, 3))
    region = Region(8 * PAGE)
    handle = file_of(tmp_path / "first", first)
    region.put_file(PAGE, handle, len(first))
    os.close(handle)
    (tmp_path / "first").unlink()  # what is shown stays
    handle = file_of(tmp_path / "second", second)
    region.put_file(3 * PAGE, handle, 2 * PAGE)
    os.close(handle)
    region.put_array(6 * PAGE, array.T)
    shown = region.bytes
    del region
    assert shown[PAGE : PAGE + len(first)].tobytes() == first
    assert shown[3 * PAGE : 5 * PAGE].tobytes() == second[: 2 * PAGE]
    assert shown[6 * PAGE : 6 * PAGE + array.nbytes].tobytes() == array.T.tobytes()
    assert not shown[:PAGE].any() and not shown[5 * PAGE : 6 * PAGE].any()
    assert len(shown) == 8 * PAGE and not shown.flags.writeable


@pytest.mark.parametrize(
    ("offset", "size"), [(1, 10), (0, 2 * PAGE + 1), (2 * PAGE, 1), (-PAGE, PAGE), (0, 0)]
)
def test_nothing_is_put_beside_the_region(tmp_path, offset, size):
    """There may be other memory."""
    handle = file_of(tmp_path / "file", bytes(4 * PAGE))
    with pytest.raises(ValueError, match="do not fit"):
        Region(2 * PAGE).put_file(offset, handle, size)
    os.close(handle)


def test_what_the_system_refuses_is_said():
    region = Region(PAGE)
    with pytest.raises(MemoryUnavailable):
        region.put_file(0, 10**6, PAGE)  # no such descriptor
    with pytest.raises(MemoryUnavailable):
        Region(1 << 62)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_a_region_takes_no_memory_and_keeps_no_file_open(tmp_path):
    def private():
        with open("/proc/self/status") as stream:
            return next(int(line.split()[1]) for line in stream if line.startswith("RssAnon"))

    size = 64 << 20
    path = tmp_path / "file"
    with path.open("wb") as stream:
        stream.write(np.ones(size, np.uint8).data)
    files, before = len(os.listdir("/proc/self/fd")), private()
    region = Region(1 << 36)
    for i in range(8):
        handle = os.open(path, os.O_RDONLY)
        region.put_file(i << 30, handle, size)
        os.close(handle)
    assert int(region.bytes[7 << 30 :][:size].sum()) == size
    assert private() - before < 8 << 10  # kB
    assert len(os.listdir("/proc/self/fd")) == files
