"""A contender in a process of its own."""

import contextlib
import gc
import importlib
import io
import logging
import multiprocessing
import warnings
from pathlib import Path
from typing import Any

# Kind of training, side of the images in px, batch size; and the backbone, if it is another one.
Case = tuple[str, int, int] | tuple[str, int, int, str]


class Process:
    """A contender in a process of its own, so that its settings of torch reach nobody else.

    Args:
        name: Of the contender.
        project: Folder of the project.
        module: Module with ``create``, which returns the contender's class by its name.
    """

    def __init__(self, name: str, project: Path, module: str = "contenders") -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, module, name, project))
        self._process.start()
        theirs.close()
        self.workers: int | None = None

    def begin(self, case: Case, workers: int) -> None:
        """Get ready for a case, with some loader processes; runs an epoch to warm up."""
        self.workers = workers
        kind, size, batch, *backbone = case
        self.ask("begin", kind, size, batch, workers, *backbone)
        self.measure()

    def measure(self, what: str = "epoch") -> float:
        """Return images/s: of an ``epoch``, or of the ``floor``."""
        return float(self.ask(what))

    def ask(self, what: str, *arguments: Any) -> Any:
        """Return what a method of the contender returns.

        Raises:
            RuntimeError: It has failed, or its process has died.
        """
        try:
            self._pipe.send((what, *arguments))
            error, result = self._pipe.recv()
        except (EOFError, OSError) as dead:
            raise RuntimeError("the process of the contender has died") from dead
        if error is not None:
            raise RuntimeError(error)
        return result

    def end(self) -> None:
        """Let the process end."""
        with contextlib.suppress(OSError):
            self._pipe.send(None)
        self._process.join(10)
        self._process.kill()


def _serve(pipe: Any, module: str, name: str, project: Path) -> None:
    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    create = importlib.import_module(module).create
    contender = None
    with contextlib.redirect_stdout(io.StringIO()):
        while (asked := pipe.recv()) is not None:
            what, *arguments = asked
            try:
                if what == "begin":
                    contender = None  # frees the memory of the case before
                    gc.collect()
                    contender = create(name)(project, *arguments)
                    result = None
                else:
                    result = getattr(contender, what)(*arguments)
            except Exception as error:
                pipe.send((f"{type(error).__name__}: {error}".splitlines()[0], None))
            else:
                pipe.send((None, result))
        # Its loader processes end with it.
        del contender
        gc.collect()
