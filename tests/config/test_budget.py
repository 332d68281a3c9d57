import pytest

from foldsmith.config import Experiment
from foldsmith.errors import ConfigError
from foldsmith.project import ProjectFolder
from foldsmith.project.budget import seconds_of, within_budget


def test_every_choice_is_made_wherever_it_stands():
    three = {"small": 1, "medium": [2], "large": {"a": 3}}
    tree = {"globals": {"n": three, "sizes": {"s": 1}}, "list": [three, 4]}
    small = within_budget(tree, "small")
    assert small == {"globals": {"n": 1, "sizes": {"s": 1}}, "list": [1, 4]}
    assert within_budget(tree, "large")["list"] == [{"a": 3}, 4]
    # A choice in a choice, and sections that only begin alike.
    assert within_budget({"small": three, "medium": 0, "large": 0}, "small") == 1
    assert within_budget({"small": 1, "other": 2}, "small") == {"small": 1, "other": 2}
    assert within_budget({}, "small") == {}


def test_a_choice_of_two_is_refused_by_its_key():
    with pytest.raises(ConfigError, match="globals/max_epoch: .*large is missing"):
        within_budget({"globals": {"max_epoch": {"small": 1, "medium": 2}}}, "small")


def test_the_project_chooses_and_an_experiment_may_say_otherwise(project_dir):
    file = project_dir / "exp_config/010.yml"
    recipe = "import: foldsmith:recommended_regression.yml\n"
    file.write_text(recipe)
    text = (project_dir / "project.yml").read_text()

    def epochs(time, *overrides):
        (project_dir / "project.yml").write_text(
            "".join(line for line in text.splitlines(True) if not line.startswith("time:"))
            + f"time: {time}\n"
        )
        project = ProjectFolder.open(project_dir)
        return Experiment.load(project, file, overrides).globals.max_epoch

    assert epochs("small") < epochs("medium") < epochs("large")
    assert epochs("30m") == epochs("small") and epochs("8h") == epochs("large")
    assert epochs("31m") == epochs("3h") == epochs("medium")
    assert epochs("large", "globals/max_epoch=3") == 3
    file.write_text(recipe + "globals/max_epoch: 4\n")
    assert epochs("large") == 4
    for wrong in ("huge", "900", "0m", "15 m"):
        with pytest.raises(ConfigError, match="time: .*not a time; write it as in 90s, 15m"):
            epochs(wrong)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("15m", 900), ("1h30m", 5400), ("0.5h", 1800), ("medium", 3600)],
)
def test_times_are_read(text, seconds):
    assert seconds_of(text) == seconds
