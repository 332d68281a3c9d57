"""The ``foldsmith`` command: its groups of commands, and how it ends."""

import errno
import io
import json
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from foldsmith import __version__
from foldsmith.cli import (
    check_commands,
    new_command,
    predict_commands,
    run_commands,
    signals,
    step_commands,
)
from foldsmith.cli.command import command, help_text, open_project
from foldsmith.cli.options import ConfigOption, ProjectOption, RunOverrides, TrustPython
from foldsmith.distributed import process_group
from foldsmith.errors import ConfigError, Detached, FoldsmithError, Stopped, one_line

EPILOG = """Overrides, PATH=VALUE, set any value of an experiment, as in globals/max_epoch=2.

Exit codes: 0, done; 2, something to mend (an option, a file, a value, the data, disk or memory),
one line each on stderr; 1, unexpected (--debug shows where); 130 and 143, stopped by Ctrl-C and by
SIGTERM, with the command that goes on.
"""

app = typer.Typer(
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

group = typer.Typer()


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"foldsmith {__version__}")
        raise typer.Exit


def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """From a folder of photos and a CSV to a prediction, without pretrained weights.

    foldsmith new my-project --images photos --train train.csv --test test.csv
    foldsmith run --project my-project -cfg exp_config/901.yml
    foldsmith predict --run my-project/output/901_ensemble new_photos -o predictions.csv

    The commands run inside a project folder, or take --project. "run" does the five stages as
    needed; each stage is a command too. Every command has examples: foldsmith COMMAND --help.
    """


@command(group)
def plan(
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
            "--speedup", min=0.001, help="How many times as fast the GPUs are as what was measured."
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
        bool, typer.Option("--measure", help="Time models here whose steps were never measured.")
    ] = False,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Plan what is done, too.")
    ] = False,
    save: Annotated[
        Path | None,
        typer.Option("--save", metavar="FILE", help="Draw the plan as a .png, .svg or .pdf."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
    project: ProjectOption = Path("."),
    trust_python: TrustPython = False,
) -> None:
    """Say what a run will take: time, GPU hours, disk.

    foldsmith plan -cfg exp_config/900.yml
    foldsmith plan -cfg exp_config/900.yml --gpus 8 --nodes 2    # 8 per node, 16 in all
    foldsmith plan -cfg exp_config/900.yml --gpus 4 --cpus 32 --speedup 30 --save plan.svg
    foldsmith plan -cfg exp_config/900.yml --from-scratch --epoch-s 000=12.5 --json

    On paper, from measured epochs: steps side by side as "foldsmith run --engine ray" starts them,
    and one after another. Where nothing was measured, times are estimates, and say so. Runs
    nothing; writes nothing but remembered hashes of files (.foldsmith), and what --save names.
    """
    from foldsmith.extras.estimate.estimate import forecast

    planned = forecast(
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
        planned.save(save)
    typer.echo(json.dumps(planned.as_dict(), indent=2) if as_json else str(planned))
    if save is not None and not as_json:
        typer.echo(f"wrote {save}")


def _epoch_seconds(texts: Sequence[str]) -> dict[str, float]:
    """Return name -> seconds of what is written as ``000=12.5``."""
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


# The help lists the commands in this order.
app.callback(help=help_text(_options))(_options)
for _group in (
    new_command.group,
    run_commands.group,
    group,
    check_commands.group,
    step_commands.group,
    predict_commands.group,
):
    app.add_typer(_group)


def main() -> None:
    """Run the command; an error that is meant for people is one line and exit code 2.

    The exit codes are those of :data:`EPILOG`; --debug changes none of them.
    """
    for stream in (sys.stdout, sys.stderr):
        # What a terminal or a file's encoding lacks, as Japanese in latin-1, is escaped: nothing
        # that is only printed may end a command.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    debug = "--debug" in sys.argv[1:]
    # Wherever it stands, as in "foldsmith train ... --debug".
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    signals.watch()
    try:
        _refuse_torchrun(arguments)
        code = app(args=arguments, prog_name="foldsmith", standalone_mode=False)
    except Detached as stopped:
        print(f"\nfoldsmith: {signals.how_to_attach(arguments)}", file=sys.stderr)
        code = 128 + stopped.args[0]
    except Stopped as stopped:
        code = signals.stopped(stopped.args[0], arguments)
    except Exception as error:
        received = signals.received()
        if received is not None:
            # A library's way to say that it was interrupted: no error of its own.
            sys.exit(signals.stopped(received, arguments))
        if hasattr(error, "show") and hasattr(error, "exit_code"):
            error.show()  # a mistyped option: the class depends on typer's version
            sys.exit(error.exit_code)
        if debug:
            traceback.print_exc()
        told = isinstance(error, FoldsmithError) and error.told
        for line in [] if told else _message(error).splitlines():
            print(f"foldsmith: error: {line}", file=sys.stderr)
        code = 2 if isinstance(error, (FoldsmithError, OSError, MemoryError)) else 1
    sys.exit(code)


def _refuse_torchrun(arguments: list[str]) -> None:
    """Make sure that several processes were started for a command that is made for them."""
    if process_group.asked_for() > 1 and arguments[:1] not in (["pretrain"], ["train"]):
        raise ConfigError(
            f"RANK and WORLD_SIZE={process_group.asked_for()} are set, as by torchrun: that is for "
            "'foldsmith pretrain' and 'foldsmith train'; start other commands without it"
        )


def _message(error: BaseException) -> str:
    if isinstance(error, FoldsmithError):
        return str(error)
    if isinstance(error, OSError):
        name = f"{error.filename}: " if error.filename else ""
        remedy = (
            "; free some space and run the command again" if error.errno == errno.ENOSPC else ""
        )
        return f"{name}{error.strerror or one_line(error)}{remedy}"
    if isinstance(error, MemoryError):
        return f"out of memory {one_line(error)}".strip()
    return f"unexpected {type(error).__name__}: {one_line(error)} (--debug shows where)"


if __name__ == "__main__":
    main()
