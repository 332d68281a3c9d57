import os

import pytest

from foldsmith.utils import machine


@pytest.fixture
def cores(monkeypatch, tmp_path):
    """Return how many cores there are for a process of a machine with four."""

    def there(quota=None, share=None):
        monkeypatch.setattr(machine, "_allowed", lambda: 4)
        monkeypatch.setattr(machine, "_QUOTA", tmp_path / "cpu.max")
        monkeypatch.setattr(machine, "_share", None)
        machine._quota.cache_clear()
        if quota is not None:
            (tmp_path / "cpu.max").write_text(quota)
        if share is not None:
            machine.use_cores(share)
        return machine.cores_here()

    yield there
    machine._quota.cache_clear()


@pytest.mark.parametrize(
    ("quota", "share", "expected"),
    [
        (None, None, 4),
        ("max 100000\n", None, 4),
        ("200000 100000\n", None, 2),
        ("150000 100000\n", None, 2),  # half a core is worth a process
        ("50000 100000\n", None, 1),
        ("800000 100000\n", None, 4),
        ("nonsense", None, 4),
        (None, 2, 2),
        ("200000 100000\n", 3, 2),
        (None, 9, 4),
        (None, 0, 1),
    ],
)
def test_cores_are_those_that_this_process_may_use(cores, quota, share, expected):
    assert cores(quota, share) == expected


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="not on this system")
def test_cores_that_the_system_keeps_from_this_process_do_not_count():
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert machine.cores_here() == 1
    finally:
        os.sched_setaffinity(0, before)
