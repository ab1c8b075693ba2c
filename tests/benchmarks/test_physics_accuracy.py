"""`benchmarks/physics_accuracy.py`: that its two errors behave as such errors must."""

import json
import sys
from pathlib import Path

import warm_python

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "physics_accuracy.py"


def test_errors_of_solver_and_time_step(tmp_path):
    out = tmp_path / "out.json"
    done = warm_python.run(
        [sys.executable, str(SCRIPT), "--quick", "--json", str(out)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert result["kind"] == "physics_accuracy"

    def error(dt, setting, which):
        found = [r for r in result["rows"] if (r["physics_dt"], r["setting"]) == (dt, setting)]
        return found[0][which]["joint_vel_rad_s"]

    for dt in (0.005, 0.01):
        assert error(dt, "converged", "solver_error") == 0
        # Newton's method: what one iteration leaves is large, what ten leave is rounding.
        assert error(dt, "1 iteration", "solver_error") > 10 * error(
            dt, "5 iterations", "solver_error"
        )
        assert error(dt, "standard", "solver_error") < 1e-4
    # A method of first order: half the step, about half the error; contacts come and go between.
    ratio = error(0.01, "converged", "total_error") / error(0.005, "converged", "total_error")
    assert 1.2 < ratio < 4


def test_time_step_must_divide_the_control_step():
    done = warm_python.run(
        [sys.executable, str(SCRIPT), "--physics-dt", "0.003"], capture_output=True, text=True
    )
    assert (
        done.returncode == 2 and "physics_dt is 0.003 s, expected a part of 0.02 s" in done.stderr
    )
