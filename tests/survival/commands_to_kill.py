"""Every command that writes, in an order in which each has what it needs; and how to go on."""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from die_at_operation import die_at_operation  # noqa: E402
from given_speeds import MEASURE  # noqa: E402
from kill_and_resume import compare  # noqa: E402
from small_project import BACKBONE, EXPERIMENTS, make_project, write_experiment  # noqa: E402
from warm import Command  # noqa: E402

import foldsmith  # noqa: E402
from foldsmith.steps.output_folder import TO_REPLACE  # noqa: E402

_EXPERIMENTS = {
    "000": EXPERIMENTS["000"] | {"globals/max_epoch": 2, "globals/snapshot_interval": 1},
    "200": EXPERIMENTS["200"]
    | {"model/pretrained": None, "loader/train/num_workers": 0, "loader/train/batch_size": 8},
    "300": {
        "import": "foldsmith:frozen_features.yml",
        "globals/output_root": "output/300",
        "model/base_name": "test_resnet",
        "model/pretrained": BACKBONE.replace("epoch_3", "epoch_2"),
        "dataset/img_size": 32,
    },
    "900": EXPERIMENTS["900"]
    | {"ensemble/experiments": ["output/200", "output/300"], "ensemble/n_trials": 2},
}

# Files of the user's beside those of foldsmith, one of them with a name that nearly is.
_OF_THE_USER = ("mine.txt", ".mine.part-1", "output/mine.txt", "reports/mine.html", "input/mine.md")


@dataclass(frozen=True)
class Killed:
    """A command to kill.

    Attributes:
        arguments: Of the command line.
        check: Called after each kill with the project's folder: what must be there at every
            moment.
        again: Arguments of the command that goes on; the same ones if None. What it advises
            (``--resume``, ``-f``) is added.
        is_done: Whether the command has nothing left to do, and refuses to do it again.
    """

    arguments: tuple[str, ...]
    check: Callable[[Path], None] = lambda folder: None
    again: tuple[str, ...] | None = None
    is_done: Callable[[Path], bool] = lambda folder: False


def _loads(folder: Path) -> None:
    foldsmith.load(folder / "exported")


def _is_whole_backbone(folder: Path) -> None:
    json.loads((folder / "backbone/config.json").read_text())
    assert (folder / "backbone/model.safetensors").stat().st_size > 1000


_ANEW = ("train", "-cfg", "exp_config/200.yml", "optimizer/lr=0.002")

COMMANDS = {
    "new": Killed(
        ("new", "made", "--images", "input/photos", "--train", "input/labelled.csv", "--yes"),
        is_done=lambda folder: (folder / "made/project.yml").exists(),
    ),
    "preprocess": Killed(("preprocess",)),
    "pretrain": Killed(("pretrain", "-cfg", "exp_config/000.yml")),
    "train": Killed(("train", "-cfg", "exp_config/200.yml")),
    "train -f": Killed((*_ANEW, "-f"), again=(*_ANEW, "--resume")),
    "fit": Killed(("train", "-cfg", "exp_config/300.yml")),
    "infer": Killed(("infer", "-e", "output/200")),
    "ensemble": Killed(("ensemble", "-cfg", "exp_config/900.yml")),
    "report": Killed(("report", "-cfg", "exp_config/900.yml")),
    "predict": Killed(("predict", "--run", "output/300", "input/photos", "-o", "found/new.csv")),
    "export": Killed(("export", "--run", "output/300", "exported")),
    "export -f": Killed(("export", "--run", "output/900", "exported", "-f"), _loads),
    "backbone": Killed(("export", "--run", "output/000", "backbone")),
    "backbone -f": Killed(
        ("export", "--run", "output/000", "backbone", "--pick", "1", "-f"), _is_whole_backbone
    ),
}


class Chain:
    """The commands, each run once undisturbed, with the project before and after each.

    Args:
        folder: Where to work.
        images: Generated tables and images.
        left_out: Commands whose results no other one needs, and that will not be killed.
    """

    def __init__(self, folder: Path, images: Path, left_out: Collection[str] = ()) -> None:
        self.folder = folder
        self.names = [name for name in COMMANDS if name not in left_out]
        self._begin(images)
        self.operations: dict[str, list[str]] = {}
        before = folder / "0"
        for number, name in enumerate(self.names, 1):
            after = folder / str(number)
            shutil.copytree(before, after, symlinks=True)
            result, self.operations[name] = run(after, COMMANDS[name].arguments)
            assert result.returncode == 0, (name, result.stdout, result.stderr)
            before = after

    def _begin(self, images: Path) -> None:
        project = make_project(self.folder / "0", images)
        for name in EXPERIMENTS:
            (project / f"exp_config/{name}.yml").unlink()
        for name, content in _EXPERIMENTS.items():
            write_experiment(project, name, content)
        # For `new`, which takes no folder of the images' as its project.
        shutil.copy(project / "input/train.csv", project / "input/labelled.csv")
        for name in _OF_THE_USER:
            (project / name).parent.mkdir(exist_ok=True)
            (project / name).write_text(f"mine: {name}")

    def kill(self, name: str, at: list[int]) -> int:
        """Kill a command at some operations, one after the other, and go on after the last.

        Args:
            name: Name of the command.
            at: Numbers of operations, from 1; each of the command that goes on after the kill
                before.

        Returns:
            The number of kills.

        Raises:
            AssertionError: It cannot go on, or the result is not the undisturbed one.
        """
        killed, number = COMMANDS[name], self.names.index(name)
        project = self.folder / f"killed {name}"
        shutil.rmtree(project, ignore_errors=True)
        shutil.copytree(self.folder / str(number), project, symlinks=True)
        result, seen = run(project, killed.arguments, at[0])
        kills, where = 0, f"{name}, killed before {at}"
        for position in (*at[1:], 0):
            if result.returncode != -signal.SIGKILL:
                break
            kills += 1
            where += f"; {seen[-1]}"
            killed.check(project)
            if killed.is_done(project):
                result.returncode = 0
                break
            result, seen = go_on(project, killed.again or killed.arguments, position)
        assert result.returncode == 0, (where, result.stdout, result.stderr)
        problems = compare(self.folder / str(number + 1), project)
        problems += [f"{path}: left over" for path in leftovers(project)]
        assert not problems, (where, problems)
        return kills


def go_on(
    project: Path, arguments: tuple[str, ...], at: int
) -> tuple[subprocess.CompletedProcess, list[str]]:
    """Run a command that was killed, with what it advises if it refuses; as :func:`run`."""
    result, seen = run(project, arguments, at)
    advised = [flag for flag in ("--resume", "-f") if f"{flag} to" in result.stderr]
    if result.returncode != 2:
        return result, seen
    if "start anew with -f" in result.stderr and not [*project.rglob(TO_REPLACE)]:
        # Killed before it was noted what -f was given for: the command itself, again.
        return run(project, (*(a for a in arguments if a != "--resume"), "-f"), at)
    if "leave out --resume" in result.stderr:
        return run(project, tuple(a for a in arguments if a != "--resume"), at)
    if advised and advised[0] not in arguments:
        return run(project, (*arguments, advised[0]), at)
    return result, seen


def run(
    folder: Path, arguments: tuple[str, ...], at: int = 0
) -> tuple[subprocess.CompletedProcess, list[str]]:
    """Run a command; let it die at an operation. Return how it ended, and its operations."""
    with tempfile.TemporaryDirectory() as name:
        log = os.path.join(name, "operations")
        result = Command(folder, *arguments, before=(die_at_operation, at, log)).finish()
        return result, Path(log).read_text().splitlines()


def leftovers(folder: Path) -> list[Path]:
    """Return what is there for the time of a write only; caches clean up after themselves."""
    return [
        path
        for path in folder.rglob("*")
        if (".part-" in path.name or path.name.endswith((".tmp", ".replaced")))
        and ".foldsmith" not in path.relative_to(folder).parts
        and path.name != ".mine.part-1"
    ]


def main() -> None:
    """Kill every command at every operation, or at some of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=int, default=1, help="every so many operations")
    parser.add_argument("names", nargs="*", default=list(COMMANDS))
    arguments = parser.parse_args()
    sys.path.insert(0, str(HERE.parents[1] / "competitions" / "atmacup11"))
    from make_demo_data import make_demo_data

    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"FOLDSMITH_TRUST_PYTHON": "1", "FOLDSMITH_STATE_DIR": f"{folder}/state"}
        os.environ[MEASURE] = "1"
        make_demo_data(Path(folder) / "photos", n_train=24, n_test=8, seed=3, long_side=48)
        chain = Chain(Path(folder) / "chain", Path(folder) / "photos")
        for name in arguments.names:
            last = len(chain.operations[name])
            kills = sum(chain.kill(name, [at]) for at in range(1, last + 1, arguments.every))
            print(f"{name}: killed {kills} times, always the same result", flush=True)


if __name__ == "__main__":
    main()
