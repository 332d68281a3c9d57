import os
import signal

import pytest
import torch

from foldsmith.utils.atomic import replacing, replacing_folder
from foldsmith.utils.interrupts import uninterrupted


class Stop(BaseException):
    pass


@pytest.fixture(params=[signal.SIGINT, signal.SIGTERM])
def number(request):
    def stop(*_):
        raise Stop

    before = signal.signal(request.param, stop)
    yield request.param
    signal.signal(request.param, before)


class Interrupting:
    """A file that gets a signal at its first write, in the middle of torch's C++."""

    def __init__(self, file, number):
        self.file, self.number = file, number

    def write(self, data):
        if self.number:
            os.kill(os.getpid(), self.number)
            self.number = None
        return self.file.write(data)

    def flush(self):
        self.file.flush()


def test_a_signal_waits_until_the_file_is_written(tmp_path, number):
    path = tmp_path / "weights.pth"
    with pytest.raises(Stop), replacing(path) as temporary, temporary.open("wb") as file:
        torch.save({"a": torch.ones(3)}, Interrupting(file, number))
    assert torch.equal(torch.load(path, weights_only=True)["a"], torch.ones(3))
    assert list(tmp_path.iterdir()) == [path]


def test_a_second_signal_does_not_wait(number):
    passed = []
    with pytest.raises(Stop), uninterrupted():
        with uninterrupted():
            os.kill(os.getpid(), number)
            passed.append("first")
        os.kill(os.getpid(), number)
        passed.append("second")
    assert passed == ["first"]


def test_a_folder_is_replaced_in_one_step(tmp_path, monkeypatch):
    folder = tmp_path / "export"
    for text, exchange in (("one", True), ("two", True), ("three", False)):
        if not exchange:
            monkeypatch.setattr("foldsmith.utils.atomic._exchange", lambda *_: False)
        with replacing_folder(folder) as begun:
            (begun / text).write_text(text)
        assert [path.name for path in folder.iterdir()] == [text]
        assert [path.name for path in tmp_path.iterdir()] == ["export"]
