"""Motions of the G1 in files of any known format; `files.py` says which."""

from bm_envs.motion.formats.csv_rows import CSV_FPS
from bm_envs.motion.formats.files import (
    FPS,
    READERS,
    SUFFIXES,
    Reader,
    convert,
    is_in_pickle,
    read_file,
    read_pickled_clips,
)
from bm_envs.motion.formats.layout import JOINT_SETS, UNITREE_23, WITHOUT_WRISTS, Layout

__all__ = [
    "CSV_FPS", "FPS", "JOINT_SETS", "READERS", "SUFFIXES", "UNITREE_23", "WITHOUT_WRISTS", "Layout",
    "Reader", "convert", "is_in_pickle", "read_file", "read_pickled_clips",
]  # fmt: skip
