"""Is it right: the tests in `tests/cuda`, each file in a process of its own.

As many at a time as there are cores for. A test that takes too long is ended and noted, and the
tests of its file that had not begun are run by another process.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from environment import REPOSITORY
from figures import Figures
from time_limits import end_group

TESTS = REPOSITORY / "tests" / "cuda"

# Seconds after which a process is ended that has not begun a test.
START_S = 60.0

# Files at a time, on a machine that has two cores for each.
AT_MOST = 6


@dataclass
class Worker:
    """The process of one file of tests.

    Attributes:
        file: The file.
        results: Lines of JSON that the tests write.
        limit_s: Seconds after which a test is ended.
        done: Tests that have ended, or that were ended.
        n_read: How many lines of the results were read.
        running: The test that has begun, and when.
    """

    file: Path
    results: Path
    limit_s: float
    done: list[str] = field(default_factory=list)
    n_read: int = 0
    running: str | None = None
    since: float = 0.0
    process: subprocess.Popen | None = None

    def start(self) -> None:
        """Run the tests that were not run yet."""
        without = [f"--deselect={test}" for test in self.done]
        command = [sys.executable, "-m", "pytest", os.path.relpath(self.file, REPOSITORY), "-q"]
        command += [
            "-m",
            "cuda",
            "-p",
            "results_plugin",
            "-p",
            "no:cacheprovider",
            "--no-header",
            *without,
        ]
        variables = os.environ | {
            "FOLDSMITH_CHECK_RESULTS": str(self.results),
            # Whatever the machine has installed: the tests need none of it.
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        }
        with self.results.with_suffix(".log").open("a", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                command,
                cwd=REPOSITORY,
                env=variables,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.running, self.since = None, time.monotonic()

    def news(self) -> list[dict[str, Any]]:
        """Return the tests that have ended since the last call."""
        if not self.results.is_file():
            return []
        lines = self.results.read_text(encoding="utf-8").splitlines(keepends=True)
        lines = lines[: len(lines) - (not lines[-1].endswith("\n"))] if lines else []
        ended = []
        for line in lines[self.n_read :]:
            row = json.loads(line)
            self.since = time.monotonic()
            if row["state"] == "started":
                self.running = row["test"]
            else:
                self.running = None
                self.done.append(row["test"])
                ended.append(row)
        self.n_read = len(lines)
        return ended

    @property
    def late(self) -> bool:
        """Whether its test takes too long, or it does not begin with one."""
        limit = START_S if self.running is None else self.limit_s
        return time.monotonic() - self.since > limit


def main() -> None:
    """Run the files of tests side by side; exit code 1 if a test has failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--limit", type=float, required=True)
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--tests", type=Path, default=TESTS, help="folder of the tests")
    parser.add_argument("--test-limit", type=float, default=75.0, help="seconds of a test")
    arguments = parser.parse_args()
    figures = Figures(arguments.out)
    scratch = arguments.out.with_suffix(".tests")
    scratch.mkdir(exist_ok=True)
    for old in scratch.iterdir():
        old.unlink()
    # A process holds the imports for all files where they would take the longest.
    files = [arguments.tests] if arguments.rehearse else sorted(arguments.tests.glob("test_*.py"))
    waiting = [Worker(file, scratch / f"{file.stem}.jsonl", arguments.test_limit) for file in files]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    at_once = max(1, min(AT_MOST, (cores or 1) // 2))
    running: list[Worker] = []
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        outcomes = run(waiting, running, at_once, figures)
    finally:
        for worker in running:
            assert worker.process is not None
            end_group(worker.process)
    figures.line(", ".join(f"{n} {outcome}" for outcome, n in sorted(outcomes.items())))
    sys.exit(1 if set(outcomes) - {"passed", "skipped"} or not outcomes["passed"] else 0)


def run(
    waiting: list[Worker], running: list[Worker], at_once: int, figures: Figures
) -> Counter[str]:
    """Run all files, and keep each test's result as soon as it has ended."""
    outcomes: Counter[str] = Counter()

    def keep(row: dict[str, Any]) -> None:
        outcomes[row["outcome"]] += 1
        name = row["test"].removeprefix("tests/cuda/")
        figures.add(**{key: value for key, value in row.items() if key != "state"})
        if row["outcome"] not in ("passed", "skipped"):
            figures.line(f"{row['outcome']}: {name}: {row['message'].splitlines()[:1]}"[:300])

    while waiting or running:
        while waiting and len(running) < at_once:
            running.append(waiting.pop(0))
            running[-1].start()
        time.sleep(0.2)
        for worker in list(running):
            process = worker.process
            assert process is not None
            code = process.poll()
            for row in worker.news():
                keep(row)
            if code is None and not worker.late:
                continue
            end_group(process)
            for row in worker.news():
                keep(row)
            running.remove(worker)
            # 0: all have passed, 1: some have failed, 5: none was left.
            if code in (0, 1, 5):
                continue
            test = worker.running or f"{worker.file.name} (start)"
            message = f"the process has ended with code {code}, see {worker.results.stem}.log"
            if code is None:
                message = f"ended after {time.monotonic() - worker.since:.0f} s"
            keep({"test": test, "outcome": "ended", "message": message, "seconds": None})
            if worker.running is not None:
                worker.done.append(worker.running)
                # At once: its other tests are as late as this one was long.
                waiting.insert(0, worker)
    return outcomes


if __name__ == "__main__":
    main()
