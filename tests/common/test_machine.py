"""How torch's threads wait: spinning where nothing else computes."""

from __future__ import annotations

import os
import sys
import threading
import time

import numpy as np
import pytest

from custom_llm.common import machine as omp


@pytest.mark.skipif(sys.platform != "linux", reason="what runs is read from Linux's /proc")
def test_threads_of_this_process_are_not_another_program():
    """NumPy's own still spin when a training starts."""
    over = threading.Event()
    matrix = np.ones((300, 300), np.float32)

    def multiply() -> None:
        while not over.is_set():
            matrix @ matrix

    thread = threading.Thread(target=multiply)
    thread.start()
    try:
        deadline = time.monotonic() + 20
        while omp._own_running() < 2:  # this one and the other
            assert time.monotonic() < deadline
            time.sleep(0.001)
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize(("others", "turns"), [(False, omp.LONG), (True, omp.BRIEF)])
def test_threads_spin_long_where_nothing_else_computes(others, turns, monkeypatch):
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.setattr(omp, "_others_compute", lambda: others)
    omp.choose_waiting()
    assert os.environ["GOMP_SPINCOUNT"] == str(turns)
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    omp.choose_waiting()
    assert os.environ["GOMP_SPINCOUNT"] == "7"


def test_a_system_without_proc_is_taken_for_idle(monkeypatch, tmp_path):
    monkeypatch.setattr(omp, "LOAD", tmp_path / "missing")
    assert not omp._others_compute()
