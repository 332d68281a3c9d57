"""Steps, plans, and the interface of a kind of step.

A plan, its states, the engines, the tables and the report loop over steps and ask ``step.kind``;
none of them compares the names of kinds. A new kind is one class in one file of
:mod:`foldsmith.steps.kinds` and one line in :mod:`foldsmith.steps.kinds.registry`, or one entry of
``TYPES`` in a project's own Python.

These modules need no torch: the functions that do the work are imported when a step runs.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from foldsmith.config import Checkpoint, Experiment
from foldsmith.project import ProjectFolder
from foldsmith.project.resources import Resources
from foldsmith.steps.cost import TRAINING_PASS, Costs, ModelSize, Trial, same_speed
from foldsmith.steps.manifest import MANIFEST, Inputs, Manifest, changed_outputs, differences
from foldsmith.steps.run_records import name_of
from foldsmith.steps.status import Status, StepState
from foldsmith.training.epoch_report import EpochReport
from foldsmith.utils.hashing import FileHashes

if TYPE_CHECKING:
    import pandas as pd

# Guessed seconds of a step that was never measured and whose kind has no better guess.
_GUESS_S = 60.0


@dataclass(frozen=True)
class Options:
    """Options of a run.

    Attributes:
        skip_bad: Skip unreadable images.
        keep_snapshots: Keep the snapshots of trainings after their inference.
    """

    skip_bad: bool = False
    keep_snapshots: bool = False


@dataclass(frozen=True)
class Step:
    """One step of a plan.

    Attributes:
        kind: Its kind, which answers every question about it.
        label: Name for people, as in ``train 100 fold 0``.
        folder: Its output folder.
        needs: Labels of the steps that come before it.
        experiment: The experiment; None for preprocessing.
        fold: The fold of a training.
        checkpoint: Which snapshots are used, for trainings and inferences.
        wanted: Files in its folder that later steps read.
    """

    kind: "StepKind"
    label: str
    folder: Path
    needs: tuple[str, ...] = ()
    experiment: Experiment | None = None
    fold: int | None = None
    checkpoint: Checkpoint = "metric"
    wanted: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of the experiment, as :func:`~foldsmith.steps.run_records.name_of`."""
        return name_of(self.experiment) if self.experiment else ""

    @property
    def epochs(self) -> int:
        """Number of epochs, for a pretraining or training; else 0."""
        return self.kind.epochs(self)

    @property
    def threads(self) -> int | None:
        """Threads on a CPU (``globals/threads``); None for torch's own choice."""
        return self.experiment.globals.threads if self.experiment else None

    @property
    def series(self) -> str:
        """Name that the folds of a training share, as in ``train 100``; else the label."""
        return self.label if self.fold is None else f"{self.kind.name} {self.name}"

    def resources(self, project: ProjectFolder) -> Resources:
        """Return the resources that it asks for: its experiment's, then its kind's."""
        of_kind = project.settings.resources.get(self.kind.name, Resources())
        return self.experiment.globals.resources.over(of_kind) if self.experiment else of_kind


@dataclass(frozen=True)
class Plan:
    """The steps of a run, each after its dependencies."""

    project: ProjectFolder
    steps: tuple[Step, ...]
    types: Mapping[str, Callable[..., Any]]

    @property
    def meta_files(self) -> set[str | None]:
        """The fold tables that its experiments name; None for the one from preprocess."""
        experiments = (step.experiment for step in self.steps)
        return {experiment.globals.meta_file for experiment in experiments if experiment}


class Planner(Protocol):
    """A plan that is being built, as the kinds of its steps see it."""

    project: ProjectFolder
    types: Mapping[str, Callable[..., Any]]
    # One line each; a plan that has some is refused.
    problems: list[str]

    def add(self, step: Step) -> str:
        """Add a step, unless there is one with its label; returns the label."""

    def add_experiment(self, experiment: Experiment, checkpoint: Checkpoint) -> tuple[str, ...]:
        """Add the steps of an experiment and those before it; returns the labels of its last."""

    def add_sources(self, experiment: Experiment, checkpoint: Checkpoint) -> tuple[str, ...]:
        """Add the experiments whose files this one names; returns the labels before its steps."""

    def making(self, folder: str) -> Experiment | None:
        """Return the experiment whose output folder this is."""

    def kind_of(self, experiment: Experiment) -> "StepKind":
        """Return the kind of the last step of an experiment."""

    def check(self, experiment: Experiment, made: Sequence[str] = ()) -> None:
        """Note the problems of an experiment.

        Args:
            experiment: The experiment.
            made: Files that an earlier step makes, which need not exist yet.
        """

    def missing(self, experiment: Experiment, key: str, file: str, output: str) -> None:
        """Note that no experiment makes a file or folder.

        Args:
            experiment: The experiment that names it.
            key: Where, as in ``model/pretrained``.
            file: The file or folder.
            output: The key of the experiment that would make it, as in ``globals/output_path``.
        """


class StepKind(ABC):
    """A kind of step: its planning, inputs, work, cost and report. An instance has no state.

    Attributes:
        name: Its name, as in ``run --until`` and in ``resources`` of ``project.yml``.
        tasks: ``globals/task`` of the experiments whose last step is of this kind.
        sections: For a project's own kind: the sections that an experiment with its task must have,
            as in ``("model", "tally/")``; a name that ends in ``/`` holds keys and values, any
            other one a component with a ``type:``.
        optional_sections: The sections that it may have.
        title: Heading of its sections in a report, before the name of the experiment; none have a
            section if it is empty.
        gathers: Whether its steps gather other experiments: they are planned first, since they
            choose the snapshots of their members, and run last.
        continues: Whether an interrupted step continues.
        computes: Whether its steps compute on the experiment's device.
        predicts: Whether an ensemble can blend its results.
        frozen: Whether all folds share one backbone that is not trained, so that no epoch is
            chosen and one set of results stands for all checkpoints.
        gives_files: Whether other experiments can name files that it makes.
        frees_needs: Whether a finished step deletes the weights of the steps that it needs.
    """

    name: ClassVar[str]
    tasks: ClassVar[Container[object]] = ()
    sections: ClassVar[tuple[str, ...]] = ()
    optional_sections: ClassVar[tuple[str, ...]] = ()
    title: ClassVar[str] = ""
    gathers: ClassVar[bool] = False
    continues: ClassVar[bool] = False
    computes: ClassVar[bool] = False
    predicts: ClassVar[bool] = False
    frozen: ClassVar[bool] = False
    gives_files: ClassVar[bool] = False
    frees_needs: ClassVar[bool] = False

    def __eq__(self, other: object) -> bool:
        # Another process has its own object.
        return isinstance(other, StepKind) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return f"<kind of steps: {self.name}>"

    # --- planning

    def finishes(self, experiment: Experiment) -> bool:
        """Return whether the last step of an experiment is of this kind."""
        return experiment.globals.task in self.tasks

    @abstractmethod
    def plan(
        self, experiment: Experiment, output: Path, planner: Planner, checkpoint: Checkpoint
    ) -> tuple[str, ...]:
        """Add the steps of an experiment and their dependencies to a plan.

        Args:
            experiment: One that this kind finishes.
            output: Its output folder.
            planner: The plan.
            checkpoint: Which snapshots are used.

        Returns:
            Labels of the last steps.
        """

    def epochs(self, step: Step) -> int:
        """Return the number of epochs of a step; 0 if it has none."""
        return 0

    def file_problem(self, experiment: Experiment, file: str) -> str | None:
        """Return why an experiment will not leave a file that another one names, if so."""
        return None

    def gives_probabilities(self, experiment: Experiment, planner: Planner) -> bool:
        """Return whether the predictions of an experiment are probabilities of classes."""
        return False

    def checkpoint_of_run(self, experiment: Experiment, asked: Checkpoint) -> Checkpoint:
        """Return the checkpoint by which a finished run inferred its experiments."""
        return asked

    def as_run(
        self,
        experiment: Experiment,
        folder: Path,
        checkpoint: Checkpoint,
        types: Mapping[str, Callable[..., Any]],
        hashes: FileHashes,
    ) -> Experiment:
        """Return the experiment that was run; its folder may record more than today's file."""
        return experiment

    def members(self, experiment: Experiment) -> list[str]:
        """Return the output folders of the experiments that an experiment gathers."""
        return []

    # --- inputs and manifest

    def manifest(self, step: Step) -> Path:
        """Return the path of the manifest, which a step writes last."""
        return step.folder / MANIFEST

    def locked(self, step: Step, project: ProjectFolder) -> list[Path]:
        """Return the paths that a step locks while it runs (:mod:`foldsmith.utils.locking`)."""
        return [step.folder]

    @abstractmethod
    def inputs(
        self, step: Step, plan: Plan, hashes: FileHashes, weights_may_be_gone: bool = False
    ) -> Inputs:
        """Return the inputs of a step, from today's files.

        Args:
            step: The step.
            plan: Its plan.
            hashes: Hashes of files.
            weights_may_be_gone: Whether finished predictions still count if the weights that made
                them were deleted.

        Raises:
            FoldsmithError: A table is wrong, or a result of an earlier step is not there.
        """

    # --- state

    def progress(self, step: Step) -> dict[str, Any]:
        """Return the progress record of a running or interrupted step; empty without one."""
        return {}

    def state(
        self,
        step: Step,
        plan: Plan,
        inputs: Inputs,
        manifest: Manifest | None,
        hashes: FileHashes,
        weights_may_be_gone: bool = False,
    ) -> StepState:
        """Return the state of a step whose dependencies are done and that is not running.

        Args:
            step: The step.
            plan: Its plan.
            inputs: As :meth:`inputs` returns them.
            manifest: Its manifest; None if it is not finished.
            hashes: Hashes of files.
            weights_may_be_gone: As for :meth:`inputs`.
        """
        if manifest is None:
            return StepState(Status.TO_DO)
        changed = differences(manifest.inputs, inputs)
        changed += changed_outputs(self.manifest(step).parent, manifest, hashes).values()
        return StepState(Status.STALE, "; ".join(changed)) if changed else StepState(Status.DONE)

    def state_before(
        self,
        step: Step,
        plan: Plan,
        manifest: Manifest | None,
        unfinished: Sequence[str],
        hashes: FileHashes,
        weights_may_be_gone: bool = False,
    ) -> StepState:
        """Return the state of a step that needs steps which are not done.

        Args:
            step: The step.
            plan: Its plan.
            manifest: Its manifest; None if it is not finished.
            unfinished: Labels of the steps that it needs and that are not done, at least one.
            hashes: Hashes of files.
            weights_may_be_gone: As for :meth:`inputs`.
        """
        if manifest is None:
            return StepState(Status.TO_DO, "", step.epochs)
        more = f" and {len(unfinished) - 1} more" if len(unfinished) > 1 else ""
        return StepState(Status.STALE, f"follows {unfinished[0]}{more}", step.epochs)

    # --- work

    def run_so_far(self, step: Step, plan: Plan, unfinished: Sequence[str]) -> bool:
        """Do a step with the results that there are, before all steps that it needs are done.

        Args:
            step: The step.
            plan: Its plan.
            unfinished: Labels of the steps that it needs and that are not done, at least one.

        Returns:
            Whether there is a new result.

        Raises:
            FoldsmithError: The step failed.
        """
        return False

    @abstractmethod
    def run(
        self,
        step: Step,
        plan: Plan,
        state: StepState,
        options: Options,
        listen: Callable[[EpochReport], None],
    ) -> None:
        """Run a step that is not done; an interrupted one continues if its kind can.

        Args:
            step: The step.
            plan: Its plan, with the steps of :meth:`context`.
            state: State of the step.
            options: Options of the run.
            listen: Called after each epoch.

        Raises:
            FoldsmithError: The step failed.
        """

    def context(self, step: Step, plan: Plan) -> tuple[Step, ...]:
        """Return the steps of a plan that another process needs to run a step."""
        return (step,)

    def tidy(self, step: Step, project: ProjectFolder) -> None:
        """Remove the files that a finished step was killed before removing."""
        return

    # --- output for people

    def advice(self, step: Step, project: ProjectFolder) -> str | None:
        """Return advice on a finished step, for the end of a run."""
        return None

    def report(self, step: Step, plan: Plan) -> "Iterable[str | tuple[str, pd.DataFrame]]":
        """Return the sentences and the tables, each with its caption, of a finished step's section.

        The report draws predictions, blends and curves of epochs by itself.
        """
        return ()

    # --- cost

    def images(self, step: Step, costs: Costs) -> tuple[int, int]:
        """Return how many images a step trains on, and how many only go through its model.

        Per epoch, or in the whole step if it has no epochs; an image counts once for each pass.

        Args:
            step: The step.
            costs: Numbers of images of its project.
        """
        return 0, costs.n_train + costs.n_test

    def operations(self, step: Step, costs: Costs) -> float | None:
        """Return the floating-point operations of an epoch, or of a step without epochs.

        They are those of the passes through the backbone.

        Args:
            step: The step.
            costs: Sizes of the models of its project.

        Returns:
            The operations; None if the step has no model, or its model cannot be counted.
        """
        size = costs.model(step.experiment) if step.experiment is not None else None
        if step.experiment is None or size is None or not any(size.forward.values()):
            return None
        trained, seen = self.images(step, costs)
        each = 1.0 if step.experiment.globals.freeze_backbone else TRAINING_PASS
        forward = size.forward[step.experiment.tree["dataset"]["img_size"]]
        return forward * (each * trained + seen)

    def guess_s(self, step: Step, costs: Costs) -> float | None:
        """Return guessed seconds of a step without a measurement and known operations.

        Args:
            step: The step.
            costs: Numbers of images of its project.

        Returns:
            The seconds; None if a guess would be worthless, as for epochs.
        """
        return None if step.epochs else _GUESS_S

    def same_speed(self, step: Step, made: Manifest) -> bool:
        """Return whether an image took as long in a recorded step as it would take today.

        Args:
            step: The step, as its files are today.
            made: Its manifest, finished or not.
        """
        return step.experiment is None or same_speed(step.experiment, made.inputs.get("config"))

    def same_images(self, step: Step, made: Manifest, costs: Costs) -> bool:
        """Return whether a recorded step used as many images as it would use today.

        Args:
            step: The step, as its files are today.
            made: Its manifest, finished or not.
            costs: Numbers of images of its project.
        """
        return True

    def disk(self, step: Step, size: ModelSize, n_splits: int) -> tuple[int, int]:
        """Return the bytes of weights that a step needs at its peak, and that it leaves.

        Args:
            step: The step.
            size: Size of its model.
            n_splits: Number of folds.
        """
        return 0, 0

    def weights(self, step: Step) -> list[Path]:
        """Return the files of weights in the folder of a step."""
        return []

    def try_batch(
        self, experiment: Experiment, types: Mapping[str, Callable[..., Any]]
    ) -> Trial | None:
        """Send one batch through the model of an experiment; None if it has no model.

        Args:
            experiment: The experiment.
            types: The components that it can name.

        Raises:
            FoldsmithError: It fails.
        """
        return None
