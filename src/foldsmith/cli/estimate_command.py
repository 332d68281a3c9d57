"""The command that estimates the time and disk of a run."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from foldsmith.cli.command import command, open_project
from foldsmith.cli.options import ConfigOption, ProjectOption, RunOverrides, TrustPython

group = typer.Typer()
logger = logging.getLogger(__name__)


@command(group)
def estimate(
    config: ConfigOption,
    overrides: RunOverrides = None,
    gpus: Annotated[
        int | None,
        typer.Option("--gpus", min=0, help="GPUs per node.", show_default="those here"),
    ] = None,
    nodes: Annotated[int, typer.Option("--nodes", min=1, help="Machines, all alike.")] = 1,
    cpus: Annotated[
        int | None,
        typer.Option(
            "--cpus",
            min=1,
            help="CPU cores per node.",
            show_default="those here, or 8 per GPU if there are fewer GPUs here",
        ),
    ] = None,
    memory: Annotated[
        float | None,
        typer.Option(
            "--memory",
            metavar="GIB",
            min=0.1,
            help="Memory per node in GiB.",
            show_default="that here, or no limit if there are fewer GPUs here",
        ),
    ] = None,
    speedup: Annotated[
        float,
        typer.Option(
            "--speedup", min=0.001, help="Speed of the GPUs relative to the measured device."
        ),
    ] = 1.0,
    epoch_s: Annotated[
        list[str] | None,
        typer.Option(
            "--epoch-s",
            metavar="NAME=S",
            help="Seconds of an experiment's epochs there, as in 000=12.5; may be repeated.",
        ),
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Time models without a measurement on this machine.")
    ] = False,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Include the steps that are done.")
    ] = False,
    save: Annotated[
        Path | None,
        typer.Option("--save", metavar="FILE", help="Draw a Gantt chart: .png, .svg or .pdf."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
    project: ProjectOption = Path("."),
    trust_python: TrustPython = False,
) -> None:
    """Estimate the time, GPU hours and disk space of a run.

    foldsmith estimate -cfg exp_config/900.yml
    foldsmith estimate -cfg exp_config/900.yml --gpus 8 --nodes 2    # 8 per node, 16 in all
    foldsmith estimate -cfg exp_config/900.yml --gpus 4 --cpus 32 --speedup 30 --save run.svg
    foldsmith estimate -cfg exp_config/900.yml --from-scratch --epoch-s 000=12.5 --json

    Schedules the steps from measured epochs: side by side as "foldsmith run --engine ray" starts
    them, and one after another. The source of each time is shown: a measurement, another
    experiment, or a guess. Runs nothing, and writes only hashes of files (.foldsmith) and the file
    of --save.
    """
    from foldsmith.extras.estimate.estimate import estimate

    found = estimate(
        *(open_project(project, trust_python), config, overrides or ()),
        nodes=nodes,
        gpus=gpus,
        cpus=cpus,
        memory_gib=memory,
        speedup=speedup,
        epoch_s=_epoch_seconds(epoch_s or ()),
        measure=measure,
        from_scratch=from_scratch,
    )
    if save is not None:
        found.save(save)
    typer.echo(json.dumps(found.as_dict(), indent=2) if as_json else str(found))
    if save is not None and not as_json:
        logger.info(f"wrote {save}")


def _epoch_seconds(texts: Sequence[str]) -> dict[str, float]:
    """Parse texts like ``000=12.5``; return name -> seconds."""
    seconds = {}
    for text in texts:
        name, _, number = text.partition("=")
        try:
            seconds[name] = float(number)
        except ValueError:
            seconds[name] = 0.0
        if not 0 < seconds[name] < float("inf"):
            raise typer.BadParameter(f"--epoch-s {text}: is not NAME=SECONDS, as in 000=12.5")
    return seconds
