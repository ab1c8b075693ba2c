"""The kinds of result files, by the name that a file's field `kind` holds."""

from __future__ import annotations

from bm_envs.results import diffusion, motions, robustness, software, tour, tracking, training
from bm_envs.results.rules import Kind

KINDS: dict[str, Kind] = {
    "track": tracking.TRACK,
    "guided": diffusion.GUIDED,
    "tour": tour.TOUR,
    "gates": diffusion.GATES,
    "throughput": software.THROUGHPUT,
    "speed": software.SPEED,
    "learning": training.LEARNING,
    "sweep": training.SWEEP,
    "physics_accuracy": software.PHYSICS_ACCURACY,
    "reference": motions.REFERENCE,
    "conformance": software.CONFORMANCE,
    "sim2sim": tracking.SIM2SIM,
    "sim2sim_guided": tracking.SIM2SIM_GUIDED,
    "world_model": training.WORLD_MODEL,
    "clients": training.CLIENTS,
    "retarget": motions.RETARGET,
    "retarget_solvers": motions.RETARGET_SOLVERS,
    "reliability": software.RELIABILITY,
    "demo_page": software.DEMO_PAGE,
    "robustness": robustness.ROBUSTNESS,
}
