"""How much memory the running process holds, as Linux tells it."""

from pathlib import Path
from typing import Literal


def memory(field: Literal["VmRSS", "VmHWM"]) -> int:
    """Bytes held now (VmRSS) or at most so far (VmHWM), of this program alone.

    `getrusage` is no use here: a program inherits the peak of the one that starts it.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise LookupError(f"/proc/self/status has no {field}")
