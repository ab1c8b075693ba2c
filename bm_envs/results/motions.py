"""Result files about motions: the kinds `reference`, `retarget` and `retarget_solvers`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from bm_envs.motion import repair, suites
from bm_envs.motion.feasibility import FLAGS
from bm_envs.results.rules import (
    ROUNDING,
    SHA256_RULE,
    Kind,
    Rules,
    listing,
    number,
    numbers,
    text,
    whole,
)  # fmt: skip

REPAIR_ROWS: Rules = {
    "repaired_from_sha256": replace(SHA256_RULE, required=False),
    "repaired_stretches": whole(1, required=False),
    "repaired_s": number(0, required=False),
    "repaired_shift_m": number(0, required=False),
    "repaired_shift_link": text(required=False),
    "repaired_turn_rad": number(0, required=False),
    "repaired_turn_joint": text(required=False),
}
"""What a row tells of a repaired motion, beside the row of the one that it was made of."""
REFERENCE_ROWS: Rules = {
    "motion": text(),
    "suite": text(*suites.NAMES, *suites.OTHERS),
    "clip_s": number(0, above=True),
    "frames": whole(2),
    "joint_excess_rad": number(0),
    "joint_excess_share": number(0, 1),
    "joint_speed_ratio": number(0),
    "joint_speed_share": number(0, 1),
    "foot_depth_m": number(),
    "foot_depth_share": number(0, 1),
    "link_depth_m": number(),
    "shape_depth_m": number(required=False),  # which older files lack
    "root_speed_m_s": number(0),
    "root_turn_rad_s": number(0),
    "floating_s": number(0),
    "flags": listing(of=text(*FLAGS), words=f"a list of some of: {', '.join(FLAGS)}"),
    "worst_s": numbers(),
    **REPAIR_ROWS,
}


def _reference(row: dict[str, Any], settings: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if sorted(row["worst_s"]) != sorted(row["flags"]):
        yield "worst_s", "a time for each of the flags"
    told = [name for name in REPAIR_ROWS if name in row]
    if told and not repair.is_repaired(row["motion"]):
        yield told[0], "a repaired motion's name beside it"
    if told and len(told) < len(REPAIR_ROWS):
        yield next(name for name in REPAIR_ROWS if name not in row), "it beside the others"
    if row.get("repaired_s", 0) > row["clip_s"] + ROUNDING:
        yield "repaired_s", f"at most clip_s, {row['clip_s']:g}"


RETARGET_ROWS: Rules = {
    "motion": text(),
    "skeleton": text(),
    "frames": whole(3),
    "clip_s": number(0, above=True),
    "cpu_s": number(0),
    "frames_per_s": number(0, above=True),
    "limit_excess_rad": number(0),
    "foot_contact_share": number(0, 1),
    "foot_slide_m_s": number(0),
    "foot_slide_worst_m_s": number(0),
    "penetration_m": number(0),
    **{
        f"{limb}_direction{which}_deg": number(0, 180)
        for limb in ("arm", "leg") for which in ("", "_worst")
    },
    "warnings": listing(),
    "joint_difference_rad": numbers(required=False),
}  # fmt: skip
RETARGET_SOLVERS_ROWS: Rules = {
    "solver": text("mink", "newton"),
    "motion": text(),
    "frames": whole(3),
    "cpu_s": number(0),
    "frames_per_s": number(0, above=True),
    "cost": number(0),
    "arm_direction_deg": number(0, 180),
    "foot_error_m": number(0),
    "joint_speed_ratio": number(0),
    "limit_excess_rad": number(0),
}


REFERENCE = Kind(REFERENCE_ROWS, _reference)
RETARGET = Kind(RETARGET_ROWS)
RETARGET_SOLVERS = Kind(RETARGET_SOLVERS_ROWS)
