"""A pytest plugin that writes the start and the outcome of each test as lines of JSON."""

import json
import os
import time
from typing import Any


def _write(**row: Any) -> None:
    with open(os.environ["FOLDSMITH_CHECK_RESULTS"], "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def pytest_runtest_logstart(nodeid: str) -> None:
    """Write that a test begins."""
    _write(test=nodeid, state="started", at=time.time())


def pytest_runtest_logreport(report: Any) -> None:
    """Write how a test has ended; of its set-up and its end only what has failed."""
    if report.when != "call" and report.passed:
        return
    message = ""
    if report.failed:
        crash = getattr(report.longrepr, "reprcrash", None)
        message = str(crash.message if crash else report.longrepr)[:600]
    elif report.skipped:
        message = str(report.longrepr[-1] if isinstance(report.longrepr, tuple) else "")
    _write(
        test=report.nodeid,
        state="ended",
        outcome=report.outcome,
        seconds=round(report.duration, 2),
        message=message,
        figures=dict(report.user_properties),
    )
