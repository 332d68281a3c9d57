import pytest
import yaml
from small_project import EXPERIMENTS, write_experiment

from foldsmith.errors import ConfigError, OutputError
from foldsmith.project import ProjectFolder
from foldsmith.run.plan import overrides_for, plan_of, plan_of_all, select
from foldsmith.steps.output_folder import refuse_existing


@pytest.fixture
def opened(project_dir):
    return ProjectFolder.open(project_dir)


def edit(folder, name, **values):
    path = folder / "exp_config" / f"{name}.yml"
    content = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(content | values))


def test_the_ensemble_needs_what_its_files_say(opened):
    plan = plan_of(opened, "exp_config/900.yml")
    labels = [step.label for step in plan.steps]
    assert len(labels) == 1 + 4 + 8 * (5 + 1) + 1
    assert labels[0] == "preprocess" and labels[-1] == "ensemble 900"
    position = {label: k for k, label in enumerate(labels)}
    for step in plan.steps:
        assert all(position[need] < position[step.label] for need in step.needs), step.label
    by_label = {step.label: step for step in plan.steps}
    assert by_label["train 103 fold 4"].needs == ("preprocess", "pretrain 003")
    assert by_label["infer 103"].needs == tuple(f"train 103 fold {k}" for k in range(5))
    # Both 100 and 200 start from the same backbone: it is made once.
    assert by_label["pretrain 000"].wanted == ("backbone_epoch_150.pth",)
    assert len(by_label["ensemble 900"].needs) == 8


def test_one_experiment_needs_its_own_branch_only(opened):
    plan = plan_of(opened, "exp_config/201.yml")
    names = {step.name for step in plan.steps}
    assert names == {"", "001", "201"}
    assert plan_of(opened, "exp_config/002.yml").steps[-1].label == "pretrain 002"


def test_all_experiments_of_a_project(opened):
    assert {step.name for step in plan_of_all(opened).steps} == {
        "",
        *("000", "001", "002", "003", "100", "101", "102", "103"),
        *("200", "201", "202", "203", "900"),
        *("300", "301", "302", "400", "401", "402", "403", "404", "405", "406"),
        *("410", "411", "412", "420", "421", "422", "430", "440", "901"),
    }


def test_only_and_until(opened):
    plan = plan_of(opened, "exp_config/900.yml")
    chosen = select(plan, ["100", "000"], "train")
    assert {step.kind.name for step in chosen.steps} == {"preprocess", "pretrain", "train"}
    assert {step.name for step in chosen.steps} == {"", "000", "100"}
    with pytest.raises(ConfigError, match=r"--only 104: not in the plan .it has: 000, 001"):
        select(plan, ["104"], None)


def test_what_nobody_makes_is_named_before_the_work(opened, project_dir):
    edit(project_dir, "100", **{"model/pretrained": "output/nowhere/backbone_epoch_1.pth"})
    edit(project_dir, "200", **{"model/pretrained": "output/000_resnet18d_simsiam/x.pth"})
    edit(project_dir, "101", **{"optimizer/lrr": 1})
    edit(
        project_dir,
        "201",
        **{"model/pretrained": "output/001_resnet34d_simsiam/backbone_epoch_120.pth"},
    )
    with pytest.raises(ConfigError) as error:
        plan_of(opened, "exp_config/900.yml")
    lines = str(error.value).splitlines()
    assert any(
        "100.yml: model/pretrained: output/nowhere/backbone_epoch_1.pth is not" in x for x in lines
    )
    assert any("101.yml: optimizer: AdamW has no argument lrr" in x for x in lines)
    assert any(
        "001.yml writes no backbone_epoch_120.pth" in x and "backbone_epoch_100.pth" in x
        for x in lines
    ), lines


def test_members_must_be_made_by_somebody(opened):
    members = "ensemble/experiments=[output/100_resnet18d_cls, output/000_resnet18d_simsiam, x]"
    with pytest.raises(ConfigError) as error:
        plan_of(opened, "exp_config/900.yml", [members])
    assert "x is not there and no experiment beside 900.yml makes it" in str(error.value)
    assert "is made by 000.yml, a self-supervised experiment" in str(error.value)


def test_two_files_with_one_output_folder_are_refused(opened, project_dir):
    (project_dir / "exp_config/104.yml").write_text(
        (project_dir / "exp_config/100.yml").read_text()
    )
    with pytest.raises(
        ConfigError, match=r"output folder of several experiments .100.yml, 104.yml"
    ):
        plan_of(opened, "exp_config/900.yml")


def test_a_broken_file_matters_only_where_it_is_needed(opened, project_dir):
    (project_dir / "exp_config/999.yml").write_text("globals: {task: nonsense}")
    assert len(plan_of(opened, "exp_config/900.yml").steps) == 54
    (project_dir / "exp_config/100.yml").write_text("globals: [")
    with pytest.raises(ConfigError, match=r"100\.yml:1"):
        plan_of(opened, "exp_config/900.yml")


def test_overrides_go_to_the_files_they_name(opened, project_dir):
    path = project_dir / "exp_config/900.yml"
    overrides = ["globals/seed=3", "1*:globals/max_epoch=2", "*:globals/device=cpu"]
    assert overrides_for(path, path, overrides) == ["globals/seed=3", "globals/device=cpu"]
    other = path.with_name("103.yml")
    assert overrides_for(other, path, overrides) == ["globals/max_epoch=2", "globals/device=cpu"]
    # A colon in a value is no pattern.
    assert overrides_for(path, path, ["globals/output_path=a:b"]) == ["globals/output_path=a:b"]
    plan = plan_of(opened, "exp_config/900.yml", ["10[01]:globals/max_epoch=7"])
    assert {s.name: s.epochs for s in plan.steps if s.kind.name == "train"} == {
        "100": 7,
        "101": 7,
        "102": 150,
        "103": 150,
        "200": 200,
        "201": 200,
        "202": 200,
        "203": 200,
    }
    with pytest.raises(ConfigError, match="no file in .* is called 7"):
        plan_of(opened, "exp_config/900.yml", ["7*:globals/max_epoch=7"])


def test_ensembles_of_two_checkpoints_infer_their_members_twice(small_project):
    last = EXPERIMENTS["900"] | {
        "globals/output_path": "output/800",
        "ensemble/checkpoint": "last",
    }
    write_experiment(small_project, "800", last)
    plan = plan_of_all(ProjectFolder.open(small_project))
    labels = {step.label for step in plan.steps}
    for step in plan.steps:
        assert set(step.needs) <= labels, step.label
    assert {"infer 100", "infer 100 by last", "infer 200", "infer 200 by last"} <= labels


@pytest.mark.parametrize(
    ("metric", "override", "message"),
    [
        ("RMSE", "ensemble/calibrate=thresholds", "thresholds needs .* QWK or Accuracy"),
        ("AUC", "ensemble/calibrate=isotonic", "isotonic needs a metric of point predictions"),
        ("LogLoss", "ensemble/calibrate=none", "task regression gives no class probabilities"),
    ],
)
def test_what_a_metric_does_not_allow_is_said_before_any_work(
    small_project, metric, override, message
):
    file = small_project / "project.yml"
    file.write_text(f"{file.read_text()}metric: {metric}\n")
    with pytest.raises(ConfigError, match=message):
        plan_of(ProjectFolder.open(small_project), "exp_config/900.yml", [override])


def test_what_a_step_asks_for_is_its_experiments_then_its_kinds(project_dir):
    path = project_dir / "project.yml"
    settings = yaml.safe_load(path.read_text())
    settings["resources"] = {"train": {"cpus": 4, "gpus": 0.5}, "preprocess": {"cpus": 8}}
    path.write_text(yaml.safe_dump(settings))
    overrides = ["100:globals/resources={gpus: 0.25, memory_gib: 6}"]
    project = ProjectFolder.open(project_dir)
    plan = plan_of(project, "exp_config/900.yml", overrides)
    asked = {
        step.label: step.resources(project).model_dump(exclude_none=True) for step in plan.steps
    }
    assert asked["train 100 fold 0"] == {"cpus": 4, "gpus": 0.25, "memory_gib": 6}
    assert asked["infer 100"] == {"gpus": 0.25, "memory_gib": 6}
    assert asked["train 101 fold 0"] == {"cpus": 4, "gpus": 0.5}
    assert asked["preprocess"] == {"cpus": 8} and asked["ensemble 900"] == {}
    settings["resources"] = {"training": {"cpus": 4}}
    path.write_text(yaml.safe_dump(settings))
    # A kind may be one of the project's own, so that this shows when a plan is made.
    with pytest.raises(ConfigError, match="resources/training: no such kind of step .*train"):
        plan_of(ProjectFolder.open(project_dir), "exp_config/900.yml")


def test_a_broken_file_is_named_before_what_it_would_make(small_project):
    file = small_project / "exp_config/200.yml"
    file.write_text(file.read_text() + "globals/no_such_key: [1\n")
    with pytest.raises(ConfigError) as raised:
        plan_of(ProjectFolder.open(small_project), "exp_config/900.yml")
    lines = str(raised.value).splitlines()
    assert "200.yml" in lines[0] and "is not there" not in lines[0], lines


def test_the_remedy_is_a_flag_that_the_command_has(tmp_path):
    refuse_existing(tmp_path)  # an empty folder has nothing to lose
    (tmp_path / "resume.pth").touch()
    with pytest.raises(OutputError, match="--resume"):
        refuse_existing(tmp_path)
    with pytest.raises(OutputError, match="add -f") as raised:
        refuse_existing(tmp_path, resumable=False)
    assert "--resume" not in str(raised.value)
