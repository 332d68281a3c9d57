"""The help of every command is good enough to work from."""

import shlex

import pytest
import typer.main

from foldsmith.cli.main import app

GROUP = typer.main.get_command(app)
COMMANDS = sorted(GROUP.commands)


def help_of(cli, folder, *command):
    return cli(folder, *command, "--help").stdout


def examples_in(text):
    lines = [line.strip() for line in text.splitlines()]
    return [line for line in lines if line.startswith("foldsmith ")]


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_come_before_the_options_and_are_real(name, cli, tmp_path):
    text = help_of(cli, tmp_path, name)
    before, options, _ = text.partition("Options:")
    assert options
    examples = examples_in(before)
    assert examples, text
    for example in examples:
        program, command, *arguments = shlex.split(example, comments=True)
        assert (program, command) == ("foldsmith", name)
        # Parsed by the real parser; a mistyped option or value raises.
        GROUP.commands[command].make_context(command, arguments)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_says_what_it_is(name):
    for parameter in GROUP.commands[name].params:
        if parameter.param_type_name == "option":
            assert parameter.help, f"{name}: {parameter.opts}"


def test_the_overview_shows_commands_examples_and_exit_codes(cli, tmp_path):
    text = help_of(cli, tmp_path)
    listed = text.partition("\nCommands:\n")[2].partition("\n\n")[0].splitlines()
    assert [line.split()[0] for line in listed] == list(GROUP.commands)
    assert not [line for line in listed if line.endswith("...")]  # none is cut short
    examples = examples_in(text.partition("Options:")[0])
    assert [shlex.split(example)[1] for example in examples] == ["new", "run", "predict"]
    assert "Exit codes: 0, done; 2," in text


def test_examples_are_not_wrapped(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    text = help_of(cli, tmp_path, "new")
    assert "foldsmith new my-project --images images --train train.csv --test test.csv\n" in text
    assert help_of(cli, tmp_path, "new") == text


@pytest.mark.parametrize(
    ("command", "default"),
    [
        (["infer"], "[default: metric]"),
        (["train"], "[default: (all)]"),
        (["export"], "[default: (last)]"),
        (["predict"], "[default: (the recommended one)]"),
        (["new"], "[default: (15m, or 1h with a GPU)]"),
    ],
)
def test_defaults_are_shown(cli, tmp_path, command, default):
    assert default in " ".join(help_of(cli, tmp_path, *command).split())
