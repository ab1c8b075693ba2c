"""Result files: what each kind holds, and whether a file keeps to it.

`file.py` reads and checks files, `kinds.py` lists the kinds, and `tracking.py`, `robustness.py`,
`diffusion.py`, `tour.py`, `training.py`, `motions.py` and `software.py` hold their fields, made of
the rules in `rules.py`.
`verification.py` compares a row with a second run.
`schemas.py` writes the rules as JSON Schemas. `bm_envs.cli.json_result` makes the object that a
benchmark writes, `write_result` writes it.

A file is refused at the first value that its kind does not allow, with one sentence that names the
file, the row and the field. Types and ranges are checked, and so is what follows from other values
of the row: an interval is Wilson's for its counts, a run that succeeded lasted as long as its clip,
and a gate that passed has a value on the right side of its threshold. A benchmark may report more
fields than its kind has rules for. But no number may be infinite or NaN, and no text may hold a
path of a machine.
"""

from bm_envs.results.diffusion import steered_as_before, successes_by_rule
from bm_envs.results.file import (
    ResultFile,
    check_result,
    machine_path,
    machine_text,
    read_result,
    read_results,
    write_result,
)
from bm_envs.results.kinds import KINDS
from bm_envs.results.tracking import EPISODES, ERROR_HEADS, ERRORS, MAIN_HEADS

__all__ = [
    "EPISODES", "ERRORS", "ERROR_HEADS", "KINDS", "MAIN_HEADS", "ResultFile", "check_result",
    "machine_path", "machine_text", "read_result", "read_results", "steered_as_before",
    "successes_by_rule", "write_result",
]  # fmt: skip
