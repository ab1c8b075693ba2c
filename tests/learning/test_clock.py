"""learning/run.py: the clock of a run."""

from bm_envs.learning.run import Clock


def test_a_clock_that_is_stopped_does_not_count(monkeypatch):
    now = 10.0
    monkeypatch.setattr("time.perf_counter", lambda: now)
    monkeypatch.setattr("time.process_time", lambda: 2 * now)
    clock = Clock(5.0)
    now = 12.0
    assert (clock.wall_s, clock.cpu_s) == (7.0, 24.0)
    with clock.stopped():
        now = 15.0
    now = 16.0
    assert (clock.wall_s, clock.cpu_s) == (8.0, 26.0)
