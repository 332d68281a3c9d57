import threading

import pytest

from foldsmith.data.parallel import on_all_cores


@pytest.mark.parametrize("n", [0, 1, 16, 17, 1000])
def test_results_come_in_the_order_of_the_items(n):
    assert list(on_all_cores(lambda k: k * k, range(n), "")) == [k * k for k in range(n)]


def test_work_does_not_run_far_ahead_of_who_takes_the_results():
    done = []
    results = on_all_cores(lambda k: done.append(k) or k, range(100_000), "")
    assert next(results) == 0
    results.close()
    assert len(done) < 5_000


def test_an_error_ends_the_work():
    begun, lock = [], threading.Lock()

    def fail(k):
        with lock:
            begun.append(k)
        if k == 20:
            raise ValueError("image 20")
        return k

    with pytest.raises(ValueError, match="image 20"):
        list(on_all_cores(fail, range(100_000), ""))
    assert len(begun) < 5_000
