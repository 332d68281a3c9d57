"""The ``foldsmith`` command: its groups of commands, and how it ends."""

import errno
import io
import logging
import sys
import traceback
from typing import Annotated

import typer

from foldsmith import __version__
from foldsmith.cli import (
    check_commands,
    estimate_command,
    new_command,
    predict_commands,
    run_commands,
    signals,
    step_commands,
)
from foldsmith.cli.command import help_text
from foldsmith.distributed import process_group
from foldsmith.errors import ConfigError, Detached, FoldsmithError, Stopped, one_line
from foldsmith.utils.log_output import show_lines

EPILOG = """Overrides, PATH=VALUE, set any value of an experiment, as in globals/max_epoch=2.

Exit codes: 0, done; 2, something to mend (an option, a file, a value, the data, disk or memory),
one line each on stderr; 1, unexpected (--debug shows where); 130 and 143, stopped by Ctrl-C and by
SIGTERM, with the command that continues.
"""

app = typer.Typer(
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# They may stand anywhere, as in "foldsmith train ... --debug"; --verbose has no short form, since
# -v is the fold of a training.
_SWITCHES = ("--debug", "--quiet", "--verbose")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"foldsmith {__version__}")
        raise typer.Exit


def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="Show only results, warnings and errors.")
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option("--verbose", help="Also show details, such as each file that is written."),
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """From a folder of images and a CSV to a prediction, without pretrained weights.

    foldsmith new my-project --images images --train train.csv --test test.csv
    foldsmith run --project my-project -cfg exp_config/901.yml
    foldsmith predict --run my-project/output/901_ensemble new_images -o predictions.csv

    The commands run inside a project folder, or take --project. "run" does the five stages as
    needed; each stage is a command too. Every command has examples: foldsmith COMMAND --help.
    """


# The help lists the commands in this order.
app.callback(help=help_text(_options))(_options)
for _group in (
    new_command.group,
    run_commands.group,
    estimate_command.group,
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
        # Characters that the encoding lacks, such as Japanese in latin-1, are escaped: printing
        # must not end a command.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    given = sys.argv[1:]
    debug, quiet, verbose = (switch in given for switch in _SWITCHES)
    arguments = [argument for argument in given if argument not in _SWITCHES]
    show_lines(logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO)
    signals.watch()
    try:
        if quiet and verbose:
            raise ConfigError("--quiet and --verbose exclude each other; give one of them")
        _refuse_torchrun(arguments)
        code = app(args=arguments, prog_name="foldsmith", standalone_mode=False)
    except Detached as stopped:
        print(f"\nfoldsmith: {signals.how_to_attach(arguments)}", file=sys.stderr)
        code = 128 + stopped.args[0]
    except Stopped as stopped:
        code = signals.stopped(stopped.args[0], arguments)
    except Exception as error:
        code = _report(error, arguments, debug)
    sys.exit(code)


def _report(error: Exception, arguments: list[str], debug: bool) -> int:
    """Print an error that ended a command; return the exit code."""
    received = signals.received()
    if received is not None:
        # A library's way to report an interruption: not an error of its own.
        return signals.stopped(received, arguments)
    if hasattr(error, "show") and hasattr(error, "exit_code"):
        error.show()  # a mistyped option: the class depends on typer's version
        return int(error.exit_code)
    if debug:
        traceback.print_exc()
    told = isinstance(error, FoldsmithError) and error.told
    for line in [] if told else _message(error).splitlines():
        print(f"foldsmith: error: {line}", file=sys.stderr)
    return 2 if isinstance(error, (FoldsmithError, OSError, MemoryError)) else 1


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
