"""How much memory a training takes."""

import multiprocessing
import sys
from contextlib import suppress
from pathlib import Path

import pytorch_pfn_extras as ppe
import torch
from pytorch_pfn_extras.training import extension

if sys.platform != "win32":
    import resource

_MIB = 2**20


class MemoryPeak(extension.Extension):
    """Reports ``host_mib``, and on a GPU ``cuda_mib``, after each epoch: peaks so far, in MiB.

    ``host_mib`` is the largest resident memory of this process (``ru_maxrss`` of getrusage, which
    counts KiB on Linux and bytes on macOS). Resident are also the pages of memory-mapped files
    that were read, as of the store of decoded images: the system takes these back when it needs
    them. With ``/proc`` (Linux) the peaks of the running loader processes are added; memory that
    they share with this process is counted once for each. On other systems they are not included.
    Linux can also reset the peak before the training; on other systems the value includes earlier
    work of the process. Windows has no such number.

    ``cuda_mib`` is the peak memory allocated by torch on the device
    (``torch.cuda.max_memory_allocated``), without the driver and torch's cache.

    Args:
        device: Where the training runs.
    """

    trigger = (1, "epoch")
    # After the validation, and before the log.
    priority = extension.PRIORITY_EDITOR
    default_name = "memory"

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def initialize(self, manager: object) -> None:
        """Reset the peaks of earlier work; called by the manager."""
        # 5 is the peak of the resident memory; a system may not let a process do so.
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def __call__(self, manager: object) -> None:
        """Report; called by the manager at the end of an epoch."""
        found = {}
        if sys.platform != "win32":
            unit = 1 if sys.platform == "darwin" else 2**10
            own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
            children = [child.pid for child in multiprocessing.active_children()]
            found["host_mib"] = (own + sum(map(_peak_of, children))) / _MIB
        if self.device.type == "cuda":
            found["cuda_mib"] = torch.cuda.max_memory_allocated(self.device) / _MIB
        ppe.reporting.report(found)


def _peak_of(pid: int | None) -> int:
    """Return the peak of the resident memory of another process, in bytes; 0 if unknown."""
    with suppress(OSError, ValueError, IndexError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 2**10
    return 0
