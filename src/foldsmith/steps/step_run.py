"""One run of a step: the actions of every kind of step before and after its own work."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from foldsmith.config import Context, Globals
from foldsmith.models.runtime import Runtime
from foldsmith.project import ProjectFolder
from foldsmith.steps.image_store import open_store
from foldsmith.steps.manifest import Inputs, Stopwatch, write_manifest
from foldsmith.steps.registry import types_of
from foldsmith.targets.task import Task
from foldsmith.utils.atomic import remove_leftovers
from foldsmith.utils.hashing import FileHashes
from foldsmith.utils.locking import lock
from foldsmith.utils.owned_files import OwnedFiles


@dataclass(frozen=True)
class StepRun:
    """One run of a step, from its first check to its manifest.

    All kinds of steps keep one order, so that a run may be killed at any moment: check the
    experiment and note its inputs, hold the output folder (:func:`held`), remove the manifest of
    an earlier run (:meth:`begin_writing`), write the outputs, write the manifest last
    (:meth:`finish`). A folder without a manifest is unfinished.

    Attributes:
        project: The project.
        types: The registry, with the project's own types.
        hashes: Hashes of files.
        clock: Seconds since the run began.
    """

    project: ProjectFolder
    types: Mapping[str, Callable[..., Any]]
    hashes: FileHashes
    clock: Stopwatch

    @classmethod
    def of(cls, project: ProjectFolder) -> "StepRun":
        """Begin a run in a project."""
        return cls(project, types_of(project), FileHashes(project.hash_store), Stopwatch())

    def restarted(self) -> "StepRun":
        """Return the run of the next of several steps: the same with a new clock."""
        return replace(self, clock=Stopwatch())

    def context(
        self, settings: Globals, runtime: Runtime | None = None, task: Task | None = None
    ) -> Context:
        """Return the objects that components refer to beside the experiment's tree.

        Args:
            settings: The globals of the experiment.
            runtime: Device and precision.
            task: The task; None if nothing is learned from targets.
        """
        store = open_store(self.project, settings, self.hashes)
        return Context(images=store, runtime=runtime, task=task)

    def noted(self, inputs: Inputs) -> Inputs:
        """Return inputs after keeping the hashes of the files that were read for them."""
        self.hashes.save()
        return inputs

    def begin_writing(
        self, owned: OwnedFiles, manifest: str, outputs: Iterable[str], step: str
    ) -> None:
        """Put the names of the outputs on a folder's list and remove its manifest.

        From here on the results of an earlier run count as unfinished.

        Args:
            owned: The list of the folder, which is held.
            manifest: Name of the manifest.
            outputs: Names of the other files that the step will write.
            step: Name under which the files are listed.

        Raises:
            OutputError: A file of one of these names exists that foldsmith did not write.
        """
        owned.record([manifest, *outputs], step)
        (owned.folder / manifest).unlink(missing_ok=True)

    def finish(
        self, manifest: Path, step: str, inputs: Inputs, outputs: list[Path], **facts: Any
    ) -> None:
        """Write the manifest, after all outputs.

        Args:
            manifest: Its path.
            step: Name of the step, for people.
            inputs: The inputs of the step before it began.
            outputs: The files that were written.
            **facts: seed, device, scores, ...; the seconds are added.
        """
        seconds = self.clock.seconds
        write_manifest(manifest, step, inputs, outputs, self.hashes, **facts, wall_s=seconds)


@contextmanager
def held(*folders: Path) -> Iterator[None]:
    """Hold output folders, and remove files that a killed process was writing into them.

    Args:
        folders: The folders; they need not exist.

    Raises:
        OutputError: Another process holds one of them.
    """
    with ExitStack() as locks:
        for folder in folders:
            locks.enter_context(lock(folder))
        for folder in folders:
            remove_leftovers(folder)
        yield
