"""The check on a GPU, rehearsed on the CPU; and what it does when something goes wrong."""

import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from bundled import REPOSITORY, load_script

CHECK = REPOSITORY / "benchmarks" / "gpu_check"


@pytest.fixture(scope="module", autouse=True)
def _importable():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(REPOSITORY / "benchmarks"))
        patch.syspath_prepend(str(CHECK))
        yield


def run(*arguments, timeout=300):
    return subprocess.run(
        [sys.executable, str(CHECK), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=REPOSITORY,
    )


def test_the_whole_check_is_rehearsed(tmp_path):
    result = run("--rehearse", "--out", tmp_path)
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr
    found = {name: json.loads((tmp_path / f"{name}.json").read_text()) for name in PARTS}
    assert [each["outcome"] for each in found.values()] == ["passed"] * 3
    assert json.loads((tmp_path / "summary.json").read_text()) == dict.fromkeys(PARTS, "passed")
    # Every test ran, and none was left out for another reason than the want of a card.
    tests = found["right"]["measured"]
    assert {row["outcome"] for row in tests} == {"passed", "skipped"}
    assert sum(row["outcome"] == "passed" for row in tests) > 45
    reasons = {row["message"].removeprefix("Skipped: ") for row in tests if row["message"]}
    assert reasons <= {
        "for a card: a rehearsal runs its sister",
        "fp16 needs a card",
        "one is enough for a rehearsal",
    }
    measured = found["fast"]["measured"]
    assert not [row for row in measured if "error" in row or "skipped" in row]
    kinds = [row["what"] for row in measured]
    assert kinds.count("training") == kinds.count("batch") == 2
    for what in ("augmentation", "prediction", "shares", "profile"):
        assert what in kinds
    training = next(row for row in measured if row["what"] == "training")
    assert set(training["images_per_s"]) == {"floor", "foldsmith", "plain"}
    assert min(training["images_per_s"].values()) > 0
    rows = [row for row in found["good"]["measured"] if row["what"] == "recipe"]
    assert [row["recipe"] for row in rows] == ["recommended", "published"]
    assert all(0 < row["rmse"] < 3 for row in rows)
    # The table in the end has a line of each part.
    end = result.stdout[result.stdout.index("====") :]
    assert all(f"{name:<6} passed" in end for name in PARTS)


PARTS = ("right", "fast", "good")

TOY = """
import subprocess, sys, time
sys.path.insert(0, {check!r})
from pathlib import Path
from figures import Figures
figures = Figures(Path(sys.argv[sys.argv.index("--out") + 1]))
figures.add(what="first", value=1)
figures.line("one line")
{then}
"""
HANGS = """
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
figures.add(what="child", pid=child.pid)
time.sleep(600)
"""


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A zombie that nobody waits for is not alive.
    state = Path(f"/proc/{pid}/stat")
    return not state.is_file() or state.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_part_that_fails_or_hangs_stops_no_other(tmp_path, capsys):
    main = load_script(CHECK / "runner.py")
    parts = []
    for name, then, limit in (
        ("fails", "raise SystemExit(3)", 60),
        ("hangs", HANGS, 2.5),
        ("dies", "import os; os.kill(os.getpid(), 9)", 60),
        ("works", "", 60),
    ):
        file = tmp_path / f"{name}.py"
        file.write_text(TOY.format(check=str(CHECK), then=then))
        parts.append(main.Part(name, [sys.executable, str(file)], limit))
    started = time.monotonic()
    assert main.check(parts, tmp_path / "out", dict(os.environ)) is True
    assert time.monotonic() - started < 40
    found = {
        part.name: json.loads((tmp_path / "out" / f"{part.name}.json").read_text())
        for part in parts
    }
    assert found["fails"]["outcome"].startswith("failed (exit code 3")
    assert found["hangs"]["outcome"] == "ended at its limit of 2.5 s"
    assert found["dies"]["outcome"].startswith("failed (exit code -9")
    assert found["works"]["outcome"] == "passed"
    # What they had measured until then is kept.
    for each in found.values():
        assert each["measured"][0] == {"what": "first", "value": 1}
        assert each["table"] == ["one line"]
    assert not alive(found["hangs"]["measured"][1]["pid"])
    text = capsys.readouterr().out
    assert "hangs  ended at its limit of 2.5 s" in text and "works  passed" in text


TESTS = """
import time
import pytest
pytestmark = pytest.mark.cuda

def test_before():
    pass

def test_hangs():
    time.sleep(600)

def test_wrong():
    assert 1 == 2, "not equal"

def test_after(record_property):
    record_property("answer", 42)
"""


def test_a_test_that_hangs_is_ended_and_the_others_run(tmp_path):
    from environment import python_path

    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_toy.py").write_text(TESTS)
    (tmp_path / "tests" / "pytest.ini").write_text("[pytest]\nmarkers = cuda\n")
    out = tmp_path / "right.json"
    command = [sys.executable, str(CHECK / "right.py"), "--out", str(out), "--limit", "60"]
    result = subprocess.run(
        [*command, "--tests", str(tmp_path / "tests"), "--test-limit", "3"],
        env=os.environ | {"PYTHONPATH": python_path(None)},
        capture_output=True,
        text=True,
        timeout=120,
        cwd=REPOSITORY,
    )
    assert result.returncode == 1, result.stdout + result.stderr
    rows = {row["test"].rpartition("::")[2]: row for row in json.loads(out.read_text())["measured"]}
    assert {name: row["outcome"] for name, row in rows.items()} == {
        "test_before": "passed",
        "test_hangs": "ended",
        "test_wrong": "failed",
        "test_after": "passed",
    }
    assert "not equal" in rows["test_wrong"]["message"]
    assert rows["test_after"]["figures"] == {"answer": 42}


def write_wheel(folder, name, version="1.0", tag="py3-none-any"):
    folder.mkdir(exist_ok=True)
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-{tag}.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", f"VERSION = {version!r}\n")
        wheel.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        wheel.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nTag: {tag}\nRoot-Is-Purelib: true\n")
        wheel.writestr(f"{info}/RECORD", "")


def test_wheels_fill_what_is_missing_and_replace_nothing(tmp_path):
    from environment import unpack

    wheels = tmp_path / "wheels"
    write_wheel(wheels, "not_there_yet")
    # For another Python: pip leaves it.
    write_wheel(wheels, "not_there_yet", "2.0", "cp27-cp27m-win32")
    write_wheel(wheels, "numpy", "0.1")
    target = unpack(wheels, tmp_path / "packages")
    code = "import not_there_yet, numpy; print(not_there_yet.VERSION, numpy.__version__)"
    said = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(target)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert said[0] == "1.0" and said[1] != "0.1"


def test_wheels_for_another_python_are_asked_for():
    from environment import NEEDED, WANTED
    from wheels import commands

    both, alone = commands(Path("wheels"), "3.12", ("manylinux_2_28_x86_64",))
    for command in (both, alone):
        assert command[1:4] == ["-m", "pip", "download"] and "--only-binary=:all:" in command
        assert command[command.index("--python-version") + 1] == "3.12"
        assert command[command.index("--dest") + 1] == "wheels"
    assert "--no-deps" in alone and "--no-deps" not in both
    # Whatever brings what a machine with torch, timm, pandas and pytest may lack.
    brought = {name.partition("==")[0] for name in (*both, *alone)}
    brought |= {"pydantic-core", "annotated-types", "typing-inspection"}
    there = {"torch", "torchvision", "timm", "opencv-python-headless", "numpy", "pandas"}
    there |= {"scikit-learn", "scipy", "filelock", "matplotlib", "PyYAML", "typer", "jinja2"}
    there |= {"tqdm", "rich", "pillow", "pytest", "hypothesis", "onnx", "onnxruntime"}
    assert {*NEEDED.values(), *WANTED.values()} <= brought | there


def test_what_is_missing_is_said_in_one_line(tmp_path):
    from environment import missing_line

    absent = {"lightly": "ModuleNotFoundError: No module named 'lightly'"}
    line = missing_line({"absent": absent, "card": {}}, rehearse=True)
    assert line.startswith("packages are missing: lightly; put their wheels into a folder")
    assert "--wheels DIR" in line and "\n" not in line
    broken = absent | {"cv2": "ImportError: libGL.so.1"}
    line = missing_line({"absent": broken, "card": {}}, rehearse=True)
    assert "cannot be imported: opencv-python-headless (ImportError: libGL.so.1)" in line
    assert missing_line({"absent": {}, "card": {}}, rehearse=True) is None
    # What only one test needs keeps nothing from running.
    optional = {"onnxscript": "ModuleNotFoundError"}
    assert missing_line({"absent": optional, "card": {}}, rehearse=True) is None
    assert "no CUDA device" in missing_line({"absent": {}, "card": {}}, rehearse=False)
    result = run("--images", tmp_path / "none", "--rehearse", "--out", tmp_path / "out")
    assert result.returncode == 2
    assert "--images" in result.stderr and "no such folder" in result.stderr


def test_the_smallest_batch_that_is_about_as_fast_is_taken():
    from batches import enough

    speeds = {64: 500.0, 128: 900.0, 256: 980.0, 512: 1000.0, 1024: 990.0}
    found = [{"batch": batch, "images_per_s": speed} for batch, speed in speeds.items()]
    assert enough(found) == 256
    assert enough(found[:1]) == 64


CONTENDER = """
class Toy:
    def __init__(self, folder, kind, size, batch, workers, backbone="none"):
        self.arguments = [str(folder), kind, size, batch, workers, backbone]
    def epoch(self):
        return 2.5
    def asked(self, what):
        if what == "fail":
            raise ValueError("cannot")
        if what == "die":
            import os
            os._exit(1)
        return self.arguments

def create(name):
    return Toy
"""


def test_a_contender_in_its_own_process_answers_fails_and_dies(tmp_path, monkeypatch):
    from contender_process import Process

    (tmp_path / "toy_contender.py").write_text(CONTENDER)
    monkeypatch.syspath_prepend(str(tmp_path))
    process = Process("toy", tmp_path, "toy_contender")
    try:
        process.begin(("SimSiam", 32, 4, "test_resnet"), 2)
        assert process.measure() == 2.5
        assert process.ask("asked", "what") == [
            *(str(tmp_path), "SimSiam", 32, 4, 2, "test_resnet")
        ]
        with pytest.raises(RuntimeError, match="ValueError: cannot"):
            process.ask("asked", "fail")
        assert process.measure() == 2.5
        with pytest.raises(RuntimeError, match="has died"):
            process.ask("asked", "die")
    finally:
        process.end()
