"""The commands that run an experiment, and show its state and results."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from foldsmith.cli import signals
from foldsmith.cli.command import command, open_project
from foldsmith.cli.completion import PRETRAININGS, output_folders
from foldsmith.cli.options import (
    AnyConfig,
    CheckpointOption,
    ConfigOption,
    KeepSnapshots,
    ProjectOption,
    RunOverrides,
    SkipBad,
    TrustPython,
)
from foldsmith.errors import one_line

group = typer.Typer()
logger = logging.getLogger(__name__)


@command(group)
def run(
    config: ConfigOption,
    overrides: RunOverrides = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be run, and run nothing.")
    ] = False,
    only: Annotated[
        str | None,
        typer.Option("--only", help="Experiments to run, as in 100,200.", show_default="all"),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(
            "--until",
            metavar="KIND",
            help="Last kind of step to run: preprocess, pretrain, train, features or infer.",
            show_default="all",
        ),
    ] = None,
    skip_bad: SkipBad = False,
    keep_snapshots: KeepSnapshots = False,
    no_report: Annotated[
        bool, typer.Option("--no-report", help="Write no report at the end.")
    ] = False,
    time: Annotated[
        str | None,
        typer.Option(
            "--time",
            metavar="TIME",
            help="Plan sizes and epochs of the recommended recipe anew, to end within 15m, 1h, ...",
            show_default="the values in exp_config, as they are",
        ),
    ] = None,
    engine: Annotated[
        Literal["local", "ray"],
        typer.Option(
            "--engine",
            help="Steps here, side by side on several GPUs or by globals/threads; or by Ray.",
        ),
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(
            "--address",
            metavar="ADDR",
            help="A Ray cluster, HOST:PORT, or auto for the one that this machine is part of.",
            show_default="Ray is started here, and stopped at the end",
        ),
    ] = None,
    stop: Annotated[
        bool, typer.Option("--stop", help="Stop this run, which goes on at --address.")
    ] = False,
    project: ProjectOption = Path("."),
    trust_python: TrustPython = False,
) -> None:
    """Do all that an experiment needs and that is not done.

    foldsmith run -cfg exp_config/900.yml --dry-run    # what, and why
    foldsmith run -cfg exp_config/900.yml
    foldsmith run -cfg exp_config/900.yml --only 100,200 --until train
    foldsmith run -cfg exp_config/900.yml '1*:globals/max_epoch=2'
    foldsmith run -cfg exp_config/901.yml --time 1h                      # see below
    foldsmith run -cfg exp_config/900.yml --engine ray                   # many at once, here
    foldsmith run -cfg exp_config/900.yml --engine ray --address auto    # on a cluster

    Continues after an interruption: finished steps stay, a training continues after its last
    finished epoch, and stale steps are repeated. On a cluster
    Ctrl-C leaves the run going; the same command attaches to it again, with --stop it ends it.

    --time measures this machine, and writes values that fit into the experiments of foldsmith new,
    time_plan.json and project.yml; experiments that you have changed are refused. With the time
    that is planned already it changes and measures nothing.

    Writes into the output folders that the experiments name, and reports/NAME.html at the end.
    """
    names = [name for name in (only or "").split(",") if name]
    if stop and address is None:
        raise typer.BadParameter("--stop needs --address: a run without it ends with its command")
    if address is not None and engine != "ray":
        raise typer.BadParameter("--address needs --engine ray")
    if time is not None and (dry_run or stop):
        raise typer.BadParameter("--time writes a plan; leave out --dry-run and --stop")
    opened, values = open_project(project, trust_python), overrides or ()
    if time is not None:
        from foldsmith.new.timing.planned import plan_for

        opened = plan_for(opened, config, time)
    if dry_run and not stop:
        from foldsmith.run.dry_run import dry_run as planned

        typer.echo(planned(opened, config, values, names, until))
        return
    from foldsmith.run import engine as run_engine

    if stop and address is not None:
        run_engine.stop(opened, config, address)
        return
    how = (skip_bad, keep_snapshots, engine, address)
    reported = not no_report and until is None

    def report_so_far() -> None:
        if reported:
            _report_of_run(opened, config, values)

    run_engine.run(opened, config, values, names, until, *how, on_blend=report_so_far)
    report_so_far()


def _report_of_run(project: Any, config: Path, overrides: Sequence[str]) -> None:
    """Write the report; the run has done its work, whatever happens here."""
    from foldsmith.report import write_report

    try:
        logger.info(f"wrote {write_report(project, config, overrides)}")
    except Exception as error:  # a run of hours must not end as failed for want of a picture
        if signals.received() is not None:
            raise
        logger.warning(
            f"the report could not be written: {one_line(error)} "
            f"(foldsmith report -cfg {config} --debug shows where)"
        )


@command(group)
def status(
    config: AnyConfig = None,
    overrides: RunOverrides = None,
    project: ProjectOption = Path("."),
    trust_python: TrustPython = False,
) -> None:
    """Show the state of each step: done, to do, stale or running.

    foldsmith status
    foldsmith status -cfg exp_config/900.yml

    Works at any time, also during a run. Names the changed inputs of stale steps. Writes only
    stored hashes of files (.foldsmith).
    """
    from foldsmith.run.status import status

    typer.echo(status(open_project(project, trust_python), config, overrides or ()))


@command(group)
def report(
    config: ConfigOption,
    overrides: RunOverrides = None,
    output: Annotated[
        Path | None,
        typer.Option(
            *("-o", "--output"),
            metavar="HTML",
            help="The file to write.",
            show_default="reports/NAME.html",
        ),
    ] = None,
    look_at: Annotated[
        str | None,
        typer.Option(
            "--look-at",
            metavar="ID,ID",
            help="Labelled images of which to show what each model looked at.",
            show_default="the worst and the best",
        ),
    ] = None,
    project: ProjectOption = Path("."),
    trust_python: TrustPython = False,
) -> None:
    """Write the results of a run as one HTML file.

    foldsmith report -cfg exp_config/900.yml
    foldsmith report -cfg exp_config/900.yml -o findings.html

    Data, curves, predictions with the worst and best images, blends, costs and configuration of the
    steps that are done. The file opens without a network.
    """
    from foldsmith.report import write_report

    ids = [name for name in (look_at or "").split(",") if name]
    opened = open_project(project, trust_python)
    logger.info(f"wrote {write_report(opened, config, overrides or (), output, ids)}")


@command(group)
def compare(
    a: Annotated[
        Path,
        typer.Argument(
            metavar="A",
            help="Output folder of a finished run.",
            autocompletion=output_folders(PRETRAININGS),
        ),
    ],
    b: Annotated[
        Path,
        typer.Argument(
            metavar="B",
            help="Output folder of another one.",
            autocompletion=output_folders(PRETRAININGS),
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            *("-o", "--output"),
            metavar="HTML",
            help="The file to write.",
            show_default="reports/compare_A_B.html",
        ),
    ] = None,
    checkpoint: CheckpointOption = None,
    project: Annotated[
        Path | None,
        typer.Option(
            "--project",
            metavar="DIR",
            help="Project folder; A and B are relative to it.",
            show_default="the projects of A and B",
        ),
    ] = None,
    trust_python: TrustPython = False,
) -> None:
    """Say which of two runs is better, and show where.

    foldsmith compare output/900_ensemble output/901_ensemble
    foldsmith compare output/100_resnet18d_cls output/200_resnet18d_reg -cri last

    Ensembles by the cross-fitted predictions of the blend that they recommend, experiments by
    their out-of-fold ones. Writes one HTML file beside the reports of A's project.
    """
    from foldsmith import report
    from foldsmith.steps.output_folder import shown

    path = report.compare(
        *(a, b, output),
        checkpoint=checkpoint,
        project=project,
        trust=trust_python,
        show=typer.echo,
    )
    logger.info(f"wrote {shown(path)}")
