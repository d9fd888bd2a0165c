"""The machine: how its threads wait for each other, and how much of it a run uses."""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

LOAD = Path("/proc/loadavg")  # of Linux, whose fourth field begins with the number of threads that run now
OWN = Path("/proc/self/task")  # a folder for each thread of this process
LONG, BRIEF = 1_000_000, 1000  # turns of a loop


def choose_waiting() -> None:
    """Let a thread that has nothing to do spin while the machine is idle, or sleep soon where others compute.

    Takes effect before torch is imported, on GNU OpenMP. Threads of a small model wait for each other after each
    product. On two idle cores one trained at 30,600 tokens/s with long spins and 21,500 with brief ones; where another
    program kept a core busy, spins of some milliseconds took the core from the very thread that was waited for: 1,800
    against 10,800. An own GOMP_SPINCOUNT is respected.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", str(BRIEF if _others_compute() else LONG))


def _others_compute() -> bool:
    """Whether threads of other programs run, not only for a moment."""
    try:
        for _ in range(5):
            if int(LOAD.read_text(encoding="ascii").split()[3].partition("/")[0]) <= _own_running():
                return False
            time.sleep(0.002)
    except (OSError, ValueError, IndexError):
        return False
    return True


def _own_running() -> int:
    """Threads of this process that run: besides this one, those that NumPy has begun, which spin for some time."""
    about = (thread.joinpath("stat").read_text(encoding="utf-8", errors="replace") for thread in OWN.iterdir())
    return sum(line.rpartition(")")[2].split()[0] == "R" for line in about)


_started = perf_counter(), process_time()


def measure_from_here() -> None:
    """Let the mean use of the CPU begin now: in a process that has done something else before."""
    global _started
    _started = perf_counter(), process_time()


def monitor_resources() -> dict[str, Any]:
    """The machine's and this process's use of CPU, memory (in bytes) and GPUs (a dict for each; see `gpus`).

    cpu_percent: of all cores, since the previous call or the import of psutil; over a tenth of a second if that is 0.
    process_cpu_percent: mean since `measure_from_here`, or the import of this module; 100 is one core.
    """
    import psutil

    memory = psutil.virtual_memory()
    elapsed, computed = perf_counter() - _started[0], process_time() - _started[1]
    return {
        "cpu_percent": psutil.cpu_percent() or psutil.cpu_percent(interval=0.1),
        "process_cpu_percent": 100 * computed / elapsed,
        "memory_process": psutil.Process().memory_info().rss,
        "memory_peak": peak_memory(),
        "memory_used": memory.used,
        "memory_total": memory.total,
        "gpus": gpus(),
    }


def peak_memory() -> int:
    """The most memory this process has held, in bytes."""
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        memory = psutil.Process().memory_info()
        return getattr(memory, "peak_wset", memory.rss)
    try:  # what getrusage counts began in the program that started this one, which may have held more
        status = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        status = ""
    if found := re.search(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE):
        return int(found[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB


def gpus() -> list[dict[str, Any]]:
    """Name, load (percent) and memory (bytes) of each NVIDIA GPU; none without a working GPUtil."""
    try:
        import GPUtil  # imports distutils, which Python 3.12 no longer has

        found = GPUtil.getGPUs()
    except Exception:  # it parses nvidia-smi's text and trips over a broken driver in many ways
        return []
    return [
        dict(
            name=gpu.name, load_percent=100 * gpu.load, memory_used=int(gpu.memoryUsed * 2**20),
            memory_total=int(gpu.memoryTotal * 2**20),
        )
        for gpu in found
    ]  # fmt: skip
