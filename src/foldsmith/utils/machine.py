"""The CPU cores and the memory that this process may use."""

import os
import time
from functools import cache
from pathlib import Path

# Limit of the CPU time of a container, in microseconds: quota and period.
_QUOTA = Path("/sys/fs/cgroup/cpu.max")

# Limit of the memory of a container, in bytes.
_MEMORY = Path("/sys/fs/cgroup/memory.max")

# Time of each core in its states since the machine started (proc(5)): idle is the fourth, waiting
# for a disk the fifth.
_STAT = Path("/proc/stat")

# Cores that this process was given of the machine's; None if it has all of them.
_share: int | None = None


def cores_here() -> int:
    """Return the CPU cores that this process may use, at least 1.

    Cores of its affinity, at most the limit of its container, and at most its share
    (:func:`use_cores`).
    """
    cores = min(_allowed(), _quota() or _allowed())
    return max(1, cores if _share is None else min(cores, _share))


def use_cores(n: int) -> None:
    """Leave the other cores to the steps that run beside this process."""
    global _share
    _share = n


def idle_cores(seconds: float) -> float | None:
    """Return how many of this process's cores were idle while it slept for some seconds.

    Args:
        seconds: A few tenths: the system counts hundredths.

    Returns:
        0.0 if other processes kept all of them busy; None where the system does not tell.
    """
    before = _times_of_cores()
    time.sleep(seconds)
    after = _times_of_cores()
    if not before or before.keys() != after.keys():
        return None
    idle = 0.0
    for core, (then_idle, then) in before.items():
        now_idle, now = after[core]
        idle += (now_idle - then_idle) / max(1, now - then)
    return idle


def _times_of_cores() -> dict[str, tuple[int, int]]:
    """Return the idle time and the whole time of each of this process's cores; {} if unknown."""
    try:
        lines = _STAT.read_text(encoding="utf-8").splitlines()
        rows = [line.split() for line in lines if line.startswith("cpu")]
        times = {row[0]: [int(value) for value in row[1:9]] for row in rows}
        return {
            name: (times[name][3] + times[name][4], sum(times[name]))
            for name in (f"cpu{core}" for core in os.sched_getaffinity(0))
        }
    except (OSError, ValueError, LookupError, AttributeError):  # another system
        return {}


def memory_here() -> int | None:
    """Return the bytes of memory, at most the limit of the container; None if unknown."""
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return min(machine, _memory_limit() or machine)
    return None


def _allowed() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_limit() -> int | None:
    try:
        return int(_MEMORY.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # another system, or "max"
        return None


@cache
def _quota() -> int | None:
    """Return the cores that a container's limit is worth, rounded up; None without a limit."""
    try:
        used, period = _QUOTA.read_text(encoding="utf-8").split()
        return -(-int(used) // int(period))
    except (OSError, ValueError):  # another system, or "max"
        return None
