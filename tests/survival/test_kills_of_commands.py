"""Kills between file operations of the commands that write; `make survive` does all of them."""

import numpy as np
import pytest
from commands_to_kill import Chain

KILLS = 3
KILLED = ("new", "train -f", "infer", "export -f")
LEFT_OUT = ("report", "predict", "backbone", "backbone -f")


@pytest.fixture(scope="module")
def chain(tmp_path_factory, small_images):
    return Chain(tmp_path_factory.mktemp("chain") / "of commands", small_images, LEFT_OUT)


@pytest.mark.parametrize("name", KILLED)
def test_a_command_that_was_killed_goes_on_to_the_same_result(chain, name):
    operations = len(chain.operations[name])
    # The later ones, of the command that goes on, fall into what is left to do or are not reached.
    at = np.random.default_rng(1).integers(1, operations + 1, KILLS).tolist()
    assert chain.kill(name, at) >= 1
