"""The commands that look for mistakes and run nothing."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from foldsmith.cli.command import command, open_project
from foldsmith.cli.options import AnyConfig, ConfigOption, Overrides, ProjectOption, TrustPython
from foldsmith.errors import FoldsmithError

group = typer.Typer()
logger = logging.getLogger(__name__)


@command(group)
def check(
    config: ConfigOption,
    overrides: Overrides = None,
    sheet: Annotated[
        Path | None,
        typer.Option(
            "--show-augmentations",
            metavar="PNG",
            help="Write a contact sheet of the training transforms instead.",
        ),
    ] = None,
    project: ProjectOption = Path("."),
    trust_python: TrustPython = False,
) -> None:
    """Check an experiment file; print it as it would be run.

    foldsmith check -cfg exp_config/100.yml
    foldsmith check -cfg exp_config/100.yml globals/max_epoch=2 dataset/img_size=64
    foldsmith check -cfg exp_config/100.yml --show-augmentations sheet.png

    Prints YAML with every value, imports and overrides applied, or writes the sheet. Names,
    arguments, references and files are checked; nothing is run.
    """
    from foldsmith.steps.check import check, show_augmentations

    if sheet is None:
        typer.echo(check(open_project(project, trust_python), config, overrides or ()), nl=False)
    else:
        written = show_augmentations(
            open_project(project, trust_python), config, sheet, overrides or ()
        )
        logger.info(f"wrote {written}")


@command(group)
def doctor(
    config: AnyConfig = None,
    project: ProjectOption = Path("."),
    trust_python: TrustPython = False,
) -> None:
    """Check environment, data and experiments.

    foldsmith doctor
    foldsmith doctor -cfg exp_config/100.yml

    One batch goes through every model; where it does not fit into memory, a batch size that does is
    named. Trains nothing. Exit code 2 if something is wrong.
    """
    from foldsmith.run.doctor import doctor

    problems = doctor(open_project(project, trust_python), config)
    if problems:
        raise FoldsmithError("\n".join(problems))
    typer.echo("nothing is wrong")
