import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_project import EXPERIMENTS, make_project, write_experiment

from foldsmith.project import ProjectFolder
from foldsmith.run.doctor import doctor
from foldsmith.run.dry_run import dry_run
from foldsmith.steps.preprocess import preprocess
from foldsmith.training.batch_size import propose_batch


@pytest.fixture
def folder(tmp_path, generated_data):
    made = make_project(tmp_path / "project", generated_data)
    preprocess(ProjectFolder.open(made))
    return made


def test_a_sound_project_has_no_problems(folder, capsys):
    assert doctor(ProjectFolder.open(folder)) == []
    text = capsys.readouterr().out
    for name in ("python", "torch", "GPU", "cores", "60 labelled images, 20 to predict"):
        assert name in text
    for name in ("000", "100", "200"):
        assert f"  {name}: " in text and "M parameters" in text


def test_what_fails_in_an_experiment_is_found_with_all_the_others(folder):
    outputs = {"model/dims_head": [None, 3]}
    write_experiment(folder, "100", EXPERIMENTS["100"] | outputs | {"model/pretrained": None})
    write_experiment(
        folder, "200", EXPERIMENTS["200"] | {"loss": {"type": "MSELoss", "reduction": "none"}}
    )
    problems = doctor(ProjectFolder.open(folder))
    assert len(problems) == 2, problems
    assert any("100.yml: model: gives outputs of shape (3,)" in line for line in problems)
    assert any("200.yml: one batch fails: RuntimeError" in line for line in problems)


def test_frozen_features_are_tried_too(folder, capsys):
    recipe = {"import": "foldsmith:image_descriptors.yml", "dataset/img_size": 32}
    write_experiment(folder, "300", recipe | {"globals/output_root": "output/300"})
    project = ProjectFolder.open(folder)
    assert doctor(project, "exp_config/300.yml") == []
    assert "300: 235 features of 4 images" in capsys.readouterr().out
    maps = {"model": {"type": "GaussianBlur"}, "globals/output_root": "output/300"}
    write_experiment(folder, "300", recipe | maps)
    problems = doctor(project, "exp_config/300.yml")
    assert len(problems) == 1 and "300.yml" in problems[0]


def test_a_group_in_two_folds_is_a_leak(folder):
    import pandas as pd

    table = pd.read_csv(folder / "input/train_gkf-2fold.csv")
    table.loc[1, "art_series_id"] = table.loc[0, "art_series_id"]
    table["fold"] = [0, 1] * (len(table) // 2)
    table.to_csv(folder / "input/mine.csv", index=False)
    for name in ("100", "200"):
        meta = {"globals/meta_file": "input/mine.csv"}
        write_experiment(folder, name, EXPERIMENTS[name] | meta)
    problems = doctor(ProjectFolder.open(folder))
    assert len(problems) == 1
    assert "mine.csv" in problems[0] and "in more than one fold" in problems[0]


@given(st.integers(1, 512), st.integers(1, 8), st.integers(1, 600))
def test_a_proposal_fits_and_keeps_the_images_of_a_step(batch_size, grad_accum, fits):
    batch, accum = propose_batch(batch_size, grad_accum, fits)
    assert batch <= fits or (batch, accum) == (batch_size, grad_accum)
    assert batch * accum == batch_size * grad_accum
    if batch_size <= fits:
        assert (batch, accum) == (batch_size, grad_accum)
    else:
        assert 1 <= batch <= fits


def test_a_probe_that_no_backbone_is_kept_for_is_found(folder):
    content = {key: value for key, value in EXPERIMENTS["000"].items() if key != "import"}
    probed = {"import": "foldsmith:simsiam_cosine.yml", **content, "probe/every": 3}
    write_experiment(folder, "000", probed | {"model/out_dim": 64})
    problems = doctor(ProjectFolder.open(folder), "exp_config/000.yml")
    assert len(problems) == 1 and "probe: every: 3 must be a multiple" in problems[0]


@pytest.fixture
def fresh(tmp_path, generated_data):
    """A project that was not preprocessed."""
    return make_project(tmp_path / "fresh", generated_data)


def _files(folder):
    return sorted(str(path) for path in folder.rglob("*") if ".foldsmith" not in path.parts)


def test_a_fresh_project_is_tried_with_a_few_images(fresh, capsys):
    before = _files(fresh)
    assert doctor(ProjectFolder.open(fresh)) == []
    text = capsys.readouterr().out
    assert "not preprocessed yet: tried with 60 labelled images" in text
    for name in ("000", "100", "200"):
        assert f"  {name}: " in text and "M parameters" in text
    assert _files(fresh) == before


def test_faults_of_a_fresh_project_are_found(fresh):
    loss = {"loss": {"type": "MSELoss", "reduction": "none"}}
    write_experiment(fresh, "200", EXPERIMENTS["200"] | loss)
    problems = doctor(ProjectFolder.open(fresh))
    assert len(problems) == 1 and "200.yml: one batch fails: RuntimeError" in problems[0]


def test_a_dry_run_of_a_fresh_project_estimates_every_step(fresh):
    table = dry_run(ProjectFolder.open(fresh), "exp_config/900.yml").splitlines()
    *rows, member, summary = table
    assert len(rows) == 7 and all("to do" in row and "~" in row and "?" not in row for row in rows)
    assert member.startswith("the next member of 900 is 100: about")
    assert "left (~: estimated)" in summary


def test_a_dry_run_takes_what_was_measured(folder):
    rows = dry_run(ProjectFolder.open(folder), "exp_config/900.yml").splitlines()
    assert rows[0].split()[:2] == ["preprocess", "done"] and "~" not in rows[0]
