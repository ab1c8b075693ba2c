"""Files as read-only memory that processes share, one file after another in one piece.

A clip's rows are in a file of their own, so that every set of clips is made of the same files. But
who looks rows up wants one table. So a range of addresses is reserved, and the system is asked to
show the files in it, each from the beginning of a page. Nothing is read before it is looked at, and
what is read is the system's copy, one for all processes.

Python's `mmap` cannot be told an address; the C library can, and keeps no file open for it. Where
there is none (Windows), `MemoryUnavailable` says so, and files are read.
"""

from __future__ import annotations

import ctypes
import functools
import math
import mmap
import os

import numpy as np

_FIXED = 0x10  # MAP_FIXED of Linux and macOS, which the module `mmap` does not list
_FAILED = ctypes.c_void_p(-1).value


class MemoryUnavailable(OSError):
    """The system does not show files as memory, or not so many."""


def rows_in_pages(row_bytes: int) -> int:
    """The least number of rows of that size that fill whole pages."""
    return mmap.PAGESIZE // math.gcd(mmap.PAGESIZE, row_bytes)


class Region:
    """A range of addresses: zeros, until something is put there. It lives as long as its arrays."""

    def __init__(self, size: int) -> None:
        """Reserve `size` bytes, 1 or more, which takes no memory.

        Raises:
            MemoryUnavailable: there is no such range.
        """
        if os.name != "posix":
            raise MemoryUnavailable("this system's files are not shown at chosen addresses")
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)
        try:
            memory = mmap.mmap(-1, size, flags=flags, prot=mmap.PROT_READ)
        except OSError as error:
            raise MemoryUnavailable(*error.args) from error
        self.bytes = np.frombuffer(memory, np.uint8)
        self._start = self.bytes.__array_interface__["data"][0]

    def put_file(self, offset: int, handle: int, size: int) -> None:
        """Show the first `size` bytes of an open file, which may be closed afterwards.

        Args:
            offset: bytes from the region's start, a multiple of a page.
            handle: the file's descriptor; the file has that many bytes.
            size: 1 or more. The rest of the last page shows what follows in the file.

        Raises:
            MemoryUnavailable: the system refuses, as with more pieces than a process may have.
        """
        self._map(offset, size, mmap.PROT_READ, mmap.MAP_SHARED, handle)

    def put_array(self, offset: int, array: np.ndarray) -> None:
        """A copy of an array's bytes at an offset, a multiple of a page; errors as `put_file`."""
        private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        self._map(offset, array.nbytes, mmap.PROT_READ | mmap.PROT_WRITE, private, -1)
        source = np.ascontiguousarray(array)
        address = source.__array_interface__["data"][0]
        ctypes.memmove(self._start + offset, address, array.nbytes)

    def _map(self, offset: int, size: int, prot: int, flags: int, handle: int) -> None:
        # Beyond the range there may be other memory, which this would replace.
        fits = offset >= 0 and 0 < size <= len(self.bytes) - offset
        if offset % mmap.PAGESIZE or not fits:
            raise ValueError(f"{size} bytes at {offset} do not fit {len(self.bytes)} in pages")
        function = _library().mmap
        place = function(self._start + offset, size, prot, flags | _FIXED, handle, 0)
        if place == _FAILED:
            number = ctypes.get_errno()
            raise MemoryUnavailable(number, os.strerror(number))


@functools.cache
def _library() -> ctypes.CDLL:
    """The C library, whose `mmap` is declared."""
    library = ctypes.CDLL(None, use_errno=True)
    pointer, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    # The last one, the offset in the file, is as wide as a pointer on the systems of 64 bits.
    library.mmap.argtypes = [pointer, size, number, number, number, ctypes.c_ssize_t]
    library.mmap.restype = pointer
    return library
