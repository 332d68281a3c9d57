"""The command that begins a project."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from foldsmith.cli.command import Command, command
from foldsmith.errors import FoldsmithError

group = typer.Typer()


def metric_names(incomplete: str) -> list[str]:
    """Return the names of the metrics that go on as ``incomplete``, for Tab."""
    from foldsmith.targets.metrics import METRICS

    return [name for name in METRICS if name.startswith(incomplete)]


class NewCommand(Command):
    """The command ``new``, whose help lists the metrics of the registry."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options of the help; called by typer."""
        # Imported when the help is shown: other commands start without the metrics.
        from foldsmith.targets.metrics import METRICS, default_metric, names_of

        option: Any = next(option for option in self.params if option.name == "metric")
        of_scales = names_of((m for m in METRICS.values() if m.needs_order), "and")
        option.metavar = "METRIC"
        of_classes = names_of((m for m in METRICS.values() if not m.needs_order), "and")
        option.help = (
            f"Metric that judges the predictions, maybe with options, as in FBeta(beta=2). "
            f"{of_scales} are of a scale, {of_classes} of classes."
        )
        option.show_default = (
            f"{default_metric(False).name} for a scale, {default_metric(True).name} for classes"
        )
        super().format_options(ctx, formatter)


@command(group, NewCommand)
def new(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The project's folder.")],
    images: Annotated[
        Path | None,
        typer.Option(
            "--images",
            metavar="DIR",
            help="Folder of the images; without --train, one folder in it per class.",
            show_default="a project.yml to fill in",
        ),
    ] = None,
    train: Annotated[
        Path | None,
        typer.Option("--train", metavar="CSV", help="Table of the labelled images."),
    ] = None,
    test: Annotated[
        Path | None,
        typer.Option("--test", metavar="CSV", help="Table of the images to predict, if any."),
    ] = None,
    test_images: Annotated[
        Path | None,
        typer.Option(
            "--test-images",
            metavar="DIR",
            help="Folder of the images to predict, if it is another one.",
        ),
    ] = None,
    sample: Annotated[
        Path | None,
        typer.Option(
            "--sample",
            metavar="CSV",
            help="Sample submission, whose form the submissions take.",
            show_default="a sample_submission.csv beside the tables",
        ),
    ] = None,
    id_column: Annotated[
        list[str] | None,
        typer.Option(
            "--id",
            metavar="COLUMN",
            help="Column that names the images.",
            show_default="found in the data",
        ),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            metavar="COLUMN",
            help="Column to predict; several, as a,b,c: numbers, labels of 0 and 1, or classes.",
            show_default="found in the data",
        ),
    ] = None,
    group: Annotated[
        list[str] | None,
        typer.Option(
            "--group",
            metavar="COLUMN",
            help="Column whose equal values must stay in one fold, as of one patient; or none.",
            show_default="found in the data",
        ),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            "--metric",
            help="Metric that judges the predictions.",
            autocompletion=metric_names,
        ),
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(
            "--time",
            metavar="TIME",
            help="How long a run may take: 15m, 1h30m, or small (15m), medium (1h), large (8h).",
            show_default="15m, or 1h with a GPU",
        ),
    ] = None,
    classes: Annotated[
        bool | None,
        typer.Option(
            "--classes/--scale",
            help="Targets are classes without an order, numbers too; or steps of a scale.",
            show_default="found in the data",
        ),
    ] = None,
    labels: Annotated[
        bool,
        typer.Option(
            "--labels", help="Columns of 0 and 1 are labels, also if each image has exactly one."
        ),
    ] = False,
    skip_missing: Annotated[
        bool,
        typer.Option(
            "--skip-missing", help="Leave out rows without an image or target, and list them."
        ),
    ] = False,
    yes: Annotated[
        bool,
        typer.Option("--yes", "-y", help="Ask nothing: take columns by the names that people use."),
    ] = False,
) -> None:
    """Begin a project: experiments and a project.yml.

    foldsmith new my-project --images images --train train.csv --test test.csv
    foldsmith new my-project --images images --train train.csv --group patient --metric MAE --yes
    foldsmith new my-project --images images --train train.csv --time 1h
    foldsmith new my-project --images classes    # one folder per class, no table
    foldsmith new my-project                     # a project.yml to fill in

    Options that are missing are found in the data and printed. If several columns are possible,
    you are asked. A few batches are trained to measure this machine; image size, backbone and
    epochs are chosen so that a run ends within --time, this command included.

    Writes DIR/project.yml, the recommended experiments DIR/exp_config/*.yml, the tables with the
    images' paths in DIR/input, a link to the images, DIR/time_plan.json and a README; with
    --skip-missing, also the rows that were left out, in DIR/input/skipped.csv. Nothing that exists
    is replaced.
    """
    from foldsmith.new.new import new_project, new_project_of
    from foldsmith.new.new_rows import Data

    if images is None:
        flags = {
            "--train": train,
            "--test": test,
            "--test-images": test_images,
            "--sample": sample,
            "--id": id_column,
            "--target": target,
            "--group": group,
            "--metric": metric,
            "--classes": classes,
        }
        named = [flag for flag, value in flags.items() if value is not None]
        if named:
            raise typer.BadParameter(f"{named[0]} needs --images, the folder of the images")
        new_project(folder, time)
        return
    data = Data(
        images=images,
        train=train,
        test=test,
        test_images=test_images,
        sample=sample,
        id_column=_one_column("--id", id_column),
        target_column=_one_column("--target", target),
        group_column=_one_column("--group", group),
        metric=metric,
        time=time,
        classes=classes,
        skip_missing=skip_missing,
        labels=labels,
    )
    on_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    new_project_of(folder, data, _ask if on_terminal else None, yes)


def _one_column(flag: str, names: list[str] | None) -> str | None:
    """Return the column that a flag names; it may be given once."""
    if not names:
        return None
    if len(names) > 1:
        raise typer.BadParameter(
            f"{flag} is given {len(names)} times ({', '.join(names)}); a project has one"
        )
    return names[0]


def _ask(question: str, answers: Sequence[str], best: str) -> str:
    """Ask a person until the answer is a possible one."""

    def known(text: str) -> str:
        if text not in answers:
            raise typer.BadParameter(f"{text!r} is none of these: {', '.join(answers)}")
        return text

    listed = ", ".join(answers[:12]) + (", ..." if len(answers) > 12 else "")
    try:
        answer: str = typer.prompt(f"{question} ({listed})", default=best, value_proc=known)
    except typer.Abort:
        raise FoldsmithError("no answer; name the column with its flag, or use --yes") from None
    return answer
