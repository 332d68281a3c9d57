"""foldsmith from Python: a project with methods that run it and read its results.

Errors that are meant for people are :class:`~foldsmith.errors.FoldsmithError`, with the line that
the command would print.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from foldsmith.config.output_path import EXPERIMENTS
from foldsmith.errors import ConfigError
from foldsmith.project import ProjectFolder
from foldsmith.utils.log_output import lines_shown
from foldsmith.utils.yaml_io import inline_yaml

# Methods import their modules when they are called: torch takes seconds, and opening a project
# must be immediate.
if TYPE_CHECKING:
    import pandas as pd

    from foldsmith.extras.estimate.result import Estimate
    from foldsmith.report import Results
    from foldsmith.run.engine import Engine

# Path of a value -> the value; for other experiments with their pattern before it, as in
# {"globals/max_epoch": 2, "1*:dataset/img_size": 64}.
Overrides = Mapping[str, Any]


class Project(ProjectFolder):
    """A project folder, with the commands of ``foldsmith`` as methods.

    It is the :class:`foldsmith.project.ProjectFolder` that all of foldsmith's functions take,
    with methods of its own. An experiment is named as in ``"901"``, the file
    ``exp_config/901.yml``, or by the path of its file, relative to the project folder.

    Overrides are a dict of paths and values, as in ``{"globals/max_epoch": 2}``. They are for
    that experiment; ``{"1*:globals/max_epoch": 2}`` is for all whose name fits ``1*``. Methods
    that read the results of a run need the overrides of that run.
    """

    @classmethod
    def new(
        cls,
        folder: Path | str,
        images: Path | str,
        train: Path | str | None = None,
        test: Path | str | None = None,
        *,
        test_images: Path | str | None = None,
        sample: Path | str | None = None,
        id_column: str | None = None,
        target_column: str | None = None,
        group_column: str | None = None,
        metric: str | None = None,
        time: str | None = None,
        classes: bool | None = None,
        labels: bool = False,
        skip_missing: bool = False,
        quiet: bool = False,
    ) -> "Project":
        """Begin a project from images and tables, as ``foldsmith new --yes`` does.

        Args:
            folder: The project's folder.
            images: Folder of the images; without ``train`` one folder in it per class.
            train: Table of the labelled images.
            test: Table of the images to predict, if there are any.
            test_images: Folder of the images to predict, if it is another.
            sample: Sample submission; None takes a ``sample_submission.csv`` beside the tables.
            id_column: Column that names the images; None to find it, as for the next ones.
            target_column: Column to predict; several of 0 and 1, as ``a,b,c``, are labels.
            group_column: Column whose equal values stay in one fold; ``none`` for no groups.
            metric: Name of the metric that judges predictions; None to be chosen.
            time: How long a run may take, as in ``15m`` or ``1h``; None to be chosen.
            classes: Whether targets are classes without an order, numbers too (False: steps of a
                scale); None to be found.
            labels: Take columns of 0 and 1 for labels, also if every image has exactly one.
            skip_missing: Leave out rows without an image or target.
            quiet: Show warnings only.

        Raises:
            DataError: A table or image is wrong.
            OutputError: The folder holds a project already.
        """
        from foldsmith.new.new import new_project_of
        from foldsmith.new.new_rows import Data

        data = Data(
            images=Path(images),
            train=_path(train),
            test=_path(test),
            test_images=_path(test_images),
            sample=_path(sample),
            id_column=id_column,
            target_column=target_column,
            group_column=group_column,
            metric=metric,
            time=time,
            classes=classes,
            labels=labels,
            skip_missing=skip_missing,
        )
        with lines_shown(quiet):
            new_project_of(Path(folder), data, yes=True)
        return cls.open(folder)

    def run(
        self,
        experiment: Path | str,
        overrides: Overrides | None = None,
        *,
        only: Sequence[str] = (),
        until: str | None = None,
        skip_bad: bool = False,
        keep_snapshots: bool = False,
        time: str | None = None,
        engine: "Engine" = "local",
        address: str | None = None,
        quiet: bool = False,
    ) -> "Results":
        """Run all that an experiment needs and that is not done, as ``foldsmith run`` does.

        Progress is printed, unless ``quiet`` is true or the logger ``foldsmith`` of Python's
        logging has a higher level or handlers of your own.

        Args:
            experiment: The experiment.
            overrides: Values to run it with.
            only: Names of the experiments to run, as in ``100``; all if empty.
            until: Last kind of step: preprocess, pretrain, train, features or infer; all if None.
            skip_bad: Leave out images that cannot be read.
            keep_snapshots: Keep the snapshots of the trainings.
            time: Plan sizes and epochs of the recommended recipe anew, to end within this time,
                as in ``1h``; None leaves the values in ``exp_config`` as they are.
            engine: ``local``: on this machine, one step after the other or one on each of several
                GPUs; ``ray``: many at once.
            address: Address of a Ray cluster, or ``auto``; None starts Ray on this machine and
                stops it at the end. On a cluster the run goes on if this call is interrupted,
                and the same call attaches to it.
            quiet: Show warnings and errors only, and no progress bars.

        Returns:
            Its results.

        Raises:
            ConfigError: An experiment is wrong, or a step that is left out is not done.
            DataError: A table or image is wrong.
            OutputError: Another process runs a step.
            TrainingError: Trainings have failed; steps that do not depend on them have run.
        """
        from foldsmith.run import engine as run_engine

        file, texts = self.experiment_file(experiment), override_texts(overrides)
        how = (skip_bad, keep_snapshots, engine, address)
        with lines_shown(quiet):
            if time is not None:
                from foldsmith.new.timing.planned import plan_for

                self.settings = plan_for(self, file, time).settings
            run_engine.run(self, file, texts, list(only), until, *how)
        return self.results(experiment, overrides)

    def results(self, experiment: Path | str, overrides: Overrides | None = None) -> "Results":
        """Return the results of an experiment: scores, predictions, logs and figures of them.

        Args:
            experiment: The experiment.
            overrides: Overrides that it was run with.

        Raises:
            ConfigError: An experiment is wrong.
        """
        from foldsmith.report import Results
        from foldsmith.run.plan import plan_of

        file = self.experiment_file(experiment)
        return Results(plan_of(self, file, override_texts(overrides)), file.stem)

    def status(
        self, experiment: Path | str | None = None, overrides: Overrides | None = None
    ) -> "pd.DataFrame":
        """Return a row per step: done, to do, stale or running, and the reason.

        Args:
            experiment: The experiment; None for all in ``exp_config``.
            overrides: Overrides that it was run with.

        Returns:
            Columns step, kind, experiment, fold, status, why, epochs_left, seconds_left.

        Raises:
            ConfigError: An experiment is wrong.
        """
        from foldsmith.run.status import status_frame

        file = None if experiment is None else self.experiment_file(experiment)
        return status_frame(self, file, override_texts(overrides))

    def estimate(
        self,
        experiment: Path | str,
        overrides: Overrides | None = None,
        *,
        nodes: int = 1,
        gpus: int | None = None,
        cpus: float | None = None,
        memory_gib: float | None = None,
        speedup: float = 1.0,
        epoch_s: Mapping[str, float] | None = None,
        measure: bool = False,
        from_scratch: bool = False,
    ) -> "Estimate":
        """Estimate the rest of a run on some machines, as ``foldsmith estimate`` does.

        Args:
            experiment: The experiment.
            overrides: Values to run it with.
            nodes: Number of machines, all alike.
            gpus: GPUs of each; as many as this machine has if None.
            cpus: CPU cores of each; if None as many as this machine has, or 8 for each GPU if it
                has fewer GPUs than that.
            memory_gib: Memory of each; if None, the memory of this machine, or no limit if it has
                fewer GPUs.
            speedup: How many times as fast the GPUs are as the device that was measured on.
            epoch_s: Name of an experiment -> seconds of its epochs on these machines.
            measure: Time the models of steps without a measurement, on this machine.
            from_scratch: Estimate the whole run, including the steps that are done.

        Returns:
            Wall time, critical path, GPU hours and disk space; ``steps`` is a frame, ``figure()``
            a Gantt chart.

        Raises:
            ConfigError: An experiment is wrong, or a step fits no machine.
            DataError: A table is wrong.
        """
        from foldsmith.extras.estimate.estimate import estimate

        return estimate(
            *(self, self.experiment_file(experiment), override_texts(overrides)),
            nodes=nodes,
            gpus=gpus,
            cpus=cpus,
            memory_gib=memory_gib,
            speedup=speedup,
            epoch_s=epoch_s,
            measure=measure,
            from_scratch=from_scratch,
        )

    def report(
        self,
        experiment: Path | str,
        overrides: Overrides | None = None,
        output: Path | str | None = None,
    ) -> Path:
        """Write one HTML file with the results of an experiment.

        Args:
            experiment: The experiment.
            overrides: Overrides that it was run with.
            output: The file; ``reports/NAME.html`` in the project folder if None.

        Returns:
            The file.

        Raises:
            ConfigError: An experiment is wrong.
        """
        from foldsmith.report import write_report

        file, texts = self.experiment_file(experiment), override_texts(overrides)
        return write_report(self, file, texts, _path(output))

    def experiment_file(self, experiment: Path | str) -> Path:
        """Return the file of an experiment that is named as in ``901``, or by its path."""
        path = Path(experiment)
        return path if path.suffix in (".yml", ".yaml") else Path(EXPERIMENTS, f"{path}.yml")


def override_texts(overrides: Overrides | None) -> list[str]:
    """Return overrides as the command line has them, ``PATH=VALUE`` each.

    Raises:
        ConfigError: Something is no plain value: a number, a text, true or false, null, a list
            or a dict of them.
    """
    texts = []
    for path, value in (overrides or {}).items():
        if "=" in path:
            raise ConfigError(f"override {path!r}: give the value apart: {{path: value}}")
        # A reference is text that YAML would not take without quotes.
        if isinstance(value, str) and value.startswith("@"):
            texts.append(f"{path}={value}")
            continue
        try:
            texts.append(f"{path}={inline_yaml(value)}")
        except yaml.YAMLError:
            raise ConfigError(
                f"override {path!r}: {value!r} is no plain value (a number, text, list or dict)"
            ) from None
    return texts


def _path(path: Path | str | None) -> Path | None:
    return None if path is None else Path(path)
