"""Small result files for tests, one of each kind that tables are made of."""

WALK_SHA256 = "13fbbdd7fa42748e0194f23d1cd8051940bbe3ca7de4055b758327ac280db877"
MACHINE = {"processor": "AMD EPYC", "cores": 2, "gpu": None}


def result(kind, rows, **more):
    return {
        "kind": kind,
        "created": "2026-11-21T17:23:22+00:00",
        "command": f"python benchmarks/{kind}.py --json benchmarks/results/out.json",
        "commit": "1123a0c30bf8100d80f46467af5a3c376c843a8f+",
        "seed": 0,
        "versions": {"python": "3.12.1", "mujoco": "4.0.0"},
        "machine": dict(MACHINE),
        "rows": rows,
        **more,
    }


def track_row(**changes):
    return {
        "policy": "walk", "motion": "walk", "suite": "builtin", "backend": "mujoco",
        "protocol": "clip", "episodes": 1, "success": 1.0,
        "success_ci95": [0.20654931437723745, 1.0], "survival_s": 24.5, "clip_s": 24.5,
        "mpkpe_mm": 96.03, "r_mpkpe_mm": 33.92, "joint_pos_rad": 0.0874, "joint_vel_rad_s": 0.669,
        "ee_pos_mm": 43.5, "ee_ori_rad": 0.1, "normalized_return": 0.925,
        "train_env_steps": 25999360, "train_wall_s": 3169.4, "note": 0, **changes,
    }  # fmt: skip


def track(*rows, **settings):
    robust = {"protocol": "robust", "episodes": 100, "success": 0.98, "survival_s": 24.3,
              "success_ci95": [0.9299882098, 0.9944965]}  # fmt: skip
    rows = list(rows) or [track_row(), track_row(**robust)]
    motions = {row["motion"]: "2953a948324d4bb3722c5c8d6f00b93e69740cc7f3b29b6e52aadd71ead38e79"
               for row in rows}  # fmt: skip
    return result(
        "track", rows,
        settings={
            "policy_sha256": WALK_SHA256, "feet": "spheres", "lead": 1, "failure_rules": "on",
            "quick": False, "motion_sha256": motions, **settings,
        },
        traces=[{"policy": "walk", "motion": "walk", "every_s": 0.14, "failed_s": None,
                 "mpkpe_mm": [10.0, 20.5, 15.0]}],
    )  # fmt: skip


def tour():
    each = [{"run": i, "survival_s": 9.0 if i else 90.0, "completed": not i} for i in range(3)]
    row = {
        "policy": "holosoma", "representation": "velocity, holosoma", "arms": "moved",
        "punches": "published", "backend": "mujoco", "runs": 3, "first_run": 0, "episode_s": 90.0,
        "survival_s": 36.0, "survival_ci95": [9.0, 90.0], "completed": 1,
        "completed_rate": 1 / 3, "ci95": [0.061492, 0.792340], "position_error_m": 0.7,
        "heading_error_rad": 0.5, "energy_j": 9000.0, "vibration_rad_s2": 1e7, "limits": {},
        "sampler": None, "each": each,
    }  # fmt: skip
    return result("tour", [row], settings={"policy_sha256": "0" * 64, "quick": False})


def guided():
    each = [{"trial": i, "success": i < 40, "success_head": i < 45} for i in range(50)]
    row = {
        "policy": "guided_body_pos", "task": "joystick", "representation": "body_pos",
        "backend": "mujoco", "trials": 50, "successes": 40, "success_rate": 0.8,
        "ci95": [0.669629, 0.887562], "successes_head": 45, "success_rate_head": 0.9,
        "ci95_head": [0.786398, 0.956524], "mean_speed": 0.31, "sampler": "full", "delay": 0,
        "each": each,
    }  # fmt: skip
    return result("guided", [row], settings={"policy_sha256": "0" * 64, "quick": False})


def guided_before_0_2():
    """`successes` by the head, and those by the strict rule under another name."""
    value = guided()
    (row,) = value["rows"]
    for name in ("successes", "success_rate", "ci95"):
        row[f"{name}_strict"], row[name] = row[name], row.pop(f"{name}_head")
    row["each"] = [{"trial": i, "success": i < 45, "success_strict": i < 40} for i in range(50)]
    return value


def gates():
    rows = [
        {"gate": "2", "title": "one-step action", "value": 0.984, "unit": "R2", "threshold": 0.9,
         "passed": True, "details": {}},
        {"gate": "latency", "title": "one tick", "value": 31.0, "unit": "ms", "threshold": 20.0,
         "passed": False, "details": {}},
    ]  # fmt: skip
    return result("gates", rows, settings={"policy": "guided_body_pos", "quick": False})


def throughput():
    rows = [
        {"what": "env", "variant": "", "num_envs": 512, "threads": 2, "lowest": 9000.0,
         "control_steps_per_s": 10000.5, "highest": 11000.0, "ratio_to_raw": 0.92},
        {"what": "peer", "variant": "other", "num_envs": 1, "threads": 2, "ratio_to_raw": None,
         "control_steps_per_s": None, "error": "it is not installed"},
    ]  # fmt: skip
    return result("throughput", rows)


def learning():
    row = {
        "motion": "walk", "variant": "default", "flags": [], "seed": 1, "jobs": 1,
        "env_steps": 1200128, "wall_s": 104.6, "commit": "fb7327dd128d",
        "first_pass": {"env_steps": 1200128, "wall_s": 104.63}, "machine": dict(MACHINE),
        "clip": {"success": 1.0, "survival": 1.0, "r_mpkpe_mm": 32.0},
    }  # fmt: skip
    return result("learning", [row, row | {"seed": 2, "first_pass": None}])
