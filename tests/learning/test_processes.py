"""The learner's thread beside physics; several processes are tried in `tests/algos`."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from bm_envs.learning.processes import LEARNER_NICE, learner_thread


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads share one priority")
def test_the_learners_thread_stands_back_from_wherever_the_process_is():
    """A lower priority than its own is refused to users, so it is relative: sweeps run at 15."""

    def priority():
        return os.getpriority(os.PRIO_PROCESS, 0)  # the calling thread's

    def in_a_niced_process():
        os.nice(15)
        with learner_thread(1) as learner:
            return priority(), learner.submit(priority).result()

    before = priority()
    with ThreadPoolExecutor(1) as process:
        own, learners = process.submit(in_a_niced_process).result()
    assert own == min(19, before + 15) and learners == min(19, own + LEARNER_NICE)
    assert priority() == before
