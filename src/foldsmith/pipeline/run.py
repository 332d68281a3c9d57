"""Running what is missing or out of date."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from foldsmith.bars import Bar, progress_bar
from foldsmith.config import Project
from foldsmith.config.resources import Kind
from foldsmith.data.checks import table_problems
from foldsmith.data.tables import bad_ids
from foldsmith.errors import ConfigError, DataError, OutputError, TrainingError
from foldsmith.hashing import FileHashes
from foldsmith.pipeline.live import RunView, run_view
from foldsmith.pipeline.plan import Plan, Step, plan_of
from foldsmith.pipeline.state import (
    StepState,
    speeds_of,
    state_of_step,
    states_of,
)
from foldsmith.pipeline.table import duration, plan_table, summary
from foldsmith.stages.ensemble import ensemble_experiment
from foldsmith.stages.frozen import fit_experiment
from foldsmith.stages.infer import for_unreadable, infer_experiment, tidy_inference
from foldsmith.stages.output_folder import Start, tidy
from foldsmith.stages.preprocess import preprocess
from foldsmith.stages.pretrain import pretrain_experiment
from foldsmith.stages.train import train_folds
from foldsmith.training.extensions import EpochReport


def dry_run(
    project: Project,
    config: Path | str,
    overrides: Sequence[str] = (),
    only: Sequence[str] = (),
    until: Kind | None = None,
) -> str:
    """Return the table of what :func:`run` would do; nothing is changed.

    Raises:
        ConfigError: An experiment is wrong.
        DataError: One line per problem of the tables.
    """
    plan = plan_of(project, config, overrides)
    _check_tables(plan)
    states = states_of(plan, FileHashes(project.hash_store))
    return plan_table(plan.select(only, until), states, speeds_of(plan))


def run(
    project: Project,
    config: Path | str,
    overrides: Sequence[str] = (),
    only: Sequence[str] = (),
    until: Kind | None = None,
    skip_bad: bool = False,
    keep_snapshots: bool = False,
) -> None:
    """Run every step that an experiment needs and that is not done, in order.

    It may be killed at any moment and started again: it goes on after the last finished epoch,
    and the results are those of a run which was never interrupted.

    Args:
        project: The project.
        config: Experiment file of any kind, relative to the project folder.
        overrides: ``PATH=VALUE`` for this file, ``NAMES:PATH=VALUE`` for others, as in
            ``1*:globals/max_epoch=2``.
        only: Names of the experiments to run, as in ``100``; all if empty.
        until: Last kind of step; all if None.
        skip_bad: Leave out photos that cannot be read.
        keep_snapshots: Keep the snapshots of trainings after their inference.

    Raises:
        ConfigError: An experiment is wrong, or a step that is left out is not done.
        DataError: A table or photo is wrong.
        OutputError: Another process is at a step, or a file that foldsmith made was changed.
        TrainingError: Trainings have failed; everything that does not need them has been run.
    """
    plan = plan_of(project, config, overrides)
    _check_tables(plan)
    _Run(plan, plan.select(only, until), skip_bad, keep_snapshots).run()


def _check_tables(plan: Plan) -> None:
    problems = table_problems(plan.project, plan.meta_files)
    if problems:
        raise DataError("\n".join(problems))


class _Run:
    """One run of a plan."""

    def __init__(self, plan: Plan, chosen: Plan, skip_bad: bool, keep_snapshots: bool) -> None:
        self.plan = plan
        self.chosen = chosen
        self.skip_bad = skip_bad
        self.keep_snapshots = keep_snapshots
        self.hashes = FileHashes(plan.project.hash_store)
        self.states = states_of(plan, self.hashes)
        self.speeds = speeds_of(plan)
        self.failed: dict[str, str] = {}

    def run(self) -> None:
        self._check_left_out()
        print(summary(self.chosen, self.states, self.speeds), flush=True)
        self._warn_of_bad()
        with run_view(self.chosen, self.states, self.speeds) as view:
            self._steps(view)
        if self.failed:
            raise TrainingError("\n".join(self.failed.values()))
        print(f"everything is done: {len(self.chosen.steps)} steps")

    def _steps(self, view: RunView) -> None:
        bar = progress_bar(
            total=0,
            unit="epoch",
            bar_format="{desc} |{bar:20}| {n_fmt}/{total_fmt} epochs in all{postfix}",
        )
        with bar:
            for number, step in enumerate(self.chosen.steps, 1):
                self._step(number, step, bar, view)

    def _step(self, number: int, step: Step, bar: Bar, view: RunView) -> None:
        head = f"[{number}/{len(self.chosen.steps)}] {step.label}"
        lost = [label for label in step.needs if label in self.failed]
        if lost:
            self.failed[step.label] = f"{step.label}: not run, since {lost[0]} failed"
            return
        # Once more: what has been run since may have changed nothing that this step reads.
        before = self._state(step)
        if before.status == "running":
            raise OutputError(
                f"{step.folder}: another process is at '{step.label}' ({before.why}); wait for it "
                "to end, or stop it"
            )
        if before.status == "done":
            self._tidy(step)
            return
        left = sum(self._left().values())
        rest = f" ({duration(left)} left in all)" if left else ""
        print(f"\n{head}: {before.why or before.status}{rest}", flush=True)
        bar.total = bar.n + sum(
            self.states[other.label].epochs_left
            for other in self.chosen.steps
            if self.states[other.label].status != "done"
        )
        bar.set_description_str(head, refresh=False)
        bar.clear()  # what the step prints begins on a line of its own

        def listen(report: EpochReport) -> None:
            self.speeds.epoch_s[step.name] = report.epoch_s
            self.states[step.label] = StepState("to do", "", report.max_epoch - report.epoch)
            bar.set_description_str(f"{head} epoch {report.epoch}/{report.max_epoch}", False)
            left = duration(sum(self._left().values()))
            speed = f"{report.images_per_s:.0f} images/s, {report.data_wait:.0%} waiting"
            bar.set_postfix_str(f"{speed}, {left} left", False)
            bar.update(1)
            view.epoch(step, report)

        view.begin(step)
        try:
            self._execute(step, before, listen)
        except TrainingError as error:
            # The other trainings may be well; this one is told of again at the end.
            print(f"foldsmith: {error}", file=sys.stderr, flush=True)
            self.failed[step.label] = str(error)
            view.end(step, failed=True)
            return
        self.states[step.label] = self._state(step)
        view.end(step)

    def _state(self, step: Step) -> StepState:
        unfinished = [label for label, state in self.states.items() if state.status != "done"]
        state = state_of_step(step, self.plan, self.hashes, unfinished)
        self.states[step.label] = state
        return state

    def _execute(self, step: Step, state: StepState, listen: Any) -> None:
        if step.kind == "preprocess" or step.experiment is None:
            if "was changed" in state.why:
                raise OutputError(
                    f"{step.folder}: {state.why} since preprocess wrote it; keep it under another "
                    "name (globals/meta_file names a fold table), or run 'foldsmith preprocess' "
                    "to have it made again"
                )
            trained = [
                other.experiment for other in self.plan.steps if other.epochs and other.experiment
            ]
            preprocess(self.plan.project, self.skip_bad, trained)
        elif step.kind == "pretrain":
            pretrain_experiment(step.experiment, _start(state), listen)
        elif step.kind == "train":
            train_folds(step.experiment, [step.fold or 0], _start(state), listen)
        elif step.experiment.globals.task == "frozen-features":
            fit_experiment(step.experiment, "auto")
        elif step.kind == "infer":
            infer_experiment(step.experiment, step.folder, step.criterion, self.keep_snapshots)
        else:
            ensemble_experiment(step.experiment, force=True)

    def _tidy(self, step: Step) -> None:
        """Do what a step that is done was killed before doing: remove what nobody needs."""
        if step.epochs:
            tidy(step.folder, keep_resume=step.kind == "pretrain")
        elif step.kind == "infer":
            tidy_inference(step.folder, step.criterion, self.plan.project.n_splits)

    def _left(self) -> dict[str, float]:
        left = {
            step.label: self.speeds.left(step, self.states[step.label])
            for step in self.chosen.steps
        }
        return {label: seconds for label, seconds in left.items() if seconds is not None}

    def _check_left_out(self) -> None:
        """Make sure that the steps which are not to be run are not needed."""
        chosen = {step.label for step in self.chosen.steps}
        for step in self.chosen.steps:
            for label in step.needs:
                if label not in chosen and self.states[label].status != "done":
                    raise ConfigError(
                        f"'{step.label}' needs '{label}', which is {self.states[label].status}; "
                        "run it too (--only takes several names, as in 000,100)"
                    )

    def _warn_of_bad(self) -> None:
        counts = {part: len(bad_ids(self.plan.project, part)) for part in ("train", "test")}
        if any(counts.values()):
            print(
                f"warning: {counts['train']} train photos are left out and {counts['test']} test "
                f"photos get {for_unreadable(self.plan.project)}, since they cannot be read",
                file=sys.stderr,
            )


def _start(state: StepState) -> Start:
    """Return how a training begins: a finished one whose files are gone is made anew."""
    return "force" if state.status == "stale" else "auto"
