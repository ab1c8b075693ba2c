"""Tables of the page on motions, kept in the page: who reads it in the repository needs them.

    python docs/motions_tables.py [--check]

They are made of the code that reads, checks and repairs motions (`site_tables.py`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import site_tables
from guided_tables import write

PAGES: dict[str, dict[str, Callable[[], str]]] = {
    "docs/motions.md": {
        "readers": site_tables.motion_readers,
        "flags": site_tables.converter_flags,
        "joint_sets": site_tables.joint_sets,
        "npz": site_tables.motion_file,
        "checks": site_tables.motion_checks,
        "repair": site_tables.repair_rules,
        "repaired": lambda: site_tables.repaired("lafan1_reference"),
    },
}


if __name__ == "__main__":
    sys.exit(write(sys.argv[1:], PAGES, "docs/motions_tables.py"))
