"""Estimates of runs: times with their sources, machines, disk space, and the printed text."""

import json
import re
import shutil
import tracemalloc

import pandas as pd
import pytest
import small_project
from bundled import SMALL

from foldsmith import Project
from foldsmith.errors import ConfigError
from foldsmith.models.backbone import create_backbone
from foldsmith.project.tables import read_test, read_train
from foldsmith.run.durations import seconds_here
from foldsmith.run.image_store_size import image_sizes
from foldsmith.run.plan import plan_of
from foldsmith.run.state import speeds_of, states_of
from foldsmith.steps.cost import Costs, weight_bytes
from foldsmith.steps.inputs.predictions import infer_inputs
from foldsmith.steps.inputs.pretrain import pretrain_inputs
from foldsmith.steps.inputs.train import train_inputs
from foldsmith.steps.kinds.pretrain import kept_backbones
from foldsmith.steps.kinds.training import resume_bytes
from foldsmith.steps.manifest import read_manifest, write_manifest
from foldsmith.steps.preprocess import preprocess
from foldsmith.utils.hashing import FileHashes
from foldsmith.utils.machine import cores_here

ALL = "exp_config/900.yml"

# Seconds of an epoch, or of a step without, that manifests say.
EPOCHS = {"000": 10.0, "100": 4.0, "200": 5.0}
STEPS = {"preprocess": 3.0, "infer 100": 2.0, "infer 200": 2.0, "ensemble 900": 7.0}


def leave_manifests(folder, names=("000", "100", "200"), device="cuda", cores=1):
    """Leave what finished steps would, with known times, and no files that they made."""
    project = Project.open(folder)
    hashes = FileHashes(project.hash_store)
    plan = plan_of(project, ALL)
    for step in plan.steps:
        if step.kind.name == "preprocess":
            content = json.loads(step.kind.manifest(step).read_text())
            content["facts"]["wall_s"] = STEPS["preprocess"]
            content.pop("sha256", None)  # of the content as it was
            step.kind.manifest(step).write_text(json.dumps(content))
            continue
        if step.kind.name == "ensemble":
            inputs = {"config": {}}
            if len(names) < 3:
                continue
        elif step.name not in names:
            continue
        elif step.kind.name == "pretrain":
            inputs = pretrain_inputs(step.experiment, plan.types, hashes)
        elif step.kind.name == "train":
            inputs = train_inputs(step.experiment, step.fold, plan.types, hashes)
        else:
            inputs = infer_inputs(step.experiment, "metric", {}, plan.types, hashes)
        if step.kind.name != "ensemble" and step.epochs:
            facts = {"epoch_s": EPOCHS[step.name]}
        else:
            facts = {"wall_s": STEPS[step.label]}
        step.folder.mkdir(parents=True, exist_ok=True)
        (step.folder / "resolved_config.yml").write_text(step.experiment.dump())
        path = step.kind.manifest(step)
        write_manifest(path, step.label, inputs, [], hashes, device=device, cores=cores, **facts)


@pytest.fixture(scope="module")
def preprocessed(tmp_path_factory, small_images):
    folder = tmp_path_factory.mktemp("estimated") / "project"
    small_project.make_project(folder, small_images)
    preprocess(Project.open(folder))
    return folder


@pytest.fixture(scope="module")
def timed(preprocessed):
    """A project all of whose steps were measured on a GPU; nothing may be changed in it."""
    folder = preprocessed.parent / "timed"
    shutil.copytree(preprocessed, folder)
    leave_manifests(folder)
    return folder


@pytest.fixture
def fresh(preprocessed, tmp_path):
    """A copy that was preprocessed, and no more."""
    return shutil.copytree(preprocessed, tmp_path / "fresh")


def sources(result):
    return dict(zip(result.steps["step"], result.steps["source"], strict=True))


def seconds(result):
    return dict(zip(result.steps["step"], result.steps["seconds"], strict=True))


def test_known_times_give_the_known_estimate(cli, timed):
    asked = ["estimate", "-cfg", ALL, "--from-scratch", "--json"]
    one = json.loads(cli(timed, *asked, "--gpus", "1").stdout)
    in_turn = 3 + 3 * 10 + 2 * 3 * 4 + 2 + 2 * 2 * 5 + 2 + 7
    assert one["wall_s"] == one["serial_s"] == in_turn
    assert all(step["source"] == "measured" and step["measured"] for step in one["steps"])
    assert one["gpu_hours"] == pytest.approx((in_turn - 3 - 7) / 3600)

    # 2 per node, 4 in all: the four folds of both experiments at once.
    several = json.loads(cli(timed, *asked, "--gpus", "2", "--nodes", "2").stdout)
    assert several["wall_s"] == 3 + 30 + 3 * 4 + 2 + 7
    assert several["serial_s"] == in_turn
    path = [step["step"] for step in several["critical_path"]]
    assert path[:2] == ["preprocess", "pretrain 000"] and path[-2:] == ["infer 100", "ensemble 900"]
    starts = {step["step"]: step["start_s"] for step in several["steps"]}
    folds = [f"train {name} fold {k}" for name in ("100", "200") for k in (0, 1)]
    assert {starts[fold] for fold in folds} == {33.0}
    places = {
        (step["node"], *step["gpu_numbers"]) for step in several["steps"] if step["step"] in folds
    }
    assert len(places) == 4
    assert several["gpu_fraction"] == pytest.approx(78 / (4 * 54))
    assert several["notes"] == [
        "16 CPUs per node are assumed, 8 for each GPU; change it with --cpus"
    ]


def test_what_is_printed_is_plain_and_narrow(cli, timed, monkeypatch):
    # Nothing is ever coloured: NO_COLOR and TERM=dumb have nothing to take away.
    monkeypatch.setenv("FORCE_COLOR", "1")
    text = cli(timed, "estimate", "-cfg", ALL, "--from-scratch", "--gpus", "2").stdout
    assert text.isascii() and "\x1b" not in text
    lines = text.splitlines()
    assert max(len(line) for line in lines if not line.startswith("note:")) <= 80
    assert "88 s one step after another, 1.4 times as long" in text
    assert "9 to do, 0 done; 100% of their time is measured" in text
    chart = text.partition("* preprocess")[2]
    # Two folds at once, then two: half of the chart's width says how long.
    assert re.search(r"train 100 folds 0-1 +2+", chart) and re.search(
        r"\* ensemble 900 +1+$", chart, re.M
    )
    bars = {m[1]: m[2] for m in re.finditer(r"^. (\w+ [\w -]*?\w)  +(\d+)$", chart, re.M)}
    cells = 80 - len("* train 100 folds 0-1") - 1
    assert len(bars["pretrain 000"]) == pytest.approx(30 / 64 * cells, abs=2)
    assert len(bars["train 100 folds 0-1"]) == pytest.approx(12 / 64 * cells, abs=2)


def test_what_is_done_counts_as_done(fresh):
    leave_manifests(fresh)
    project = Project.open(fresh)
    result = project.estimate("900", gpus=1, cpus=4)
    # Of the trainings there are no snapshots: they would be made again. Preprocessing is done.
    assert "preprocess" not in sources(result) and len(result.durations) == 8
    assert "8 to do, 1 done" in str(result)
    again = project.estimate("900", gpus=1, cpus=4, from_scratch=True)
    assert again.wall_s == result.wall_s + 3


def test_one_experiment_is_drawn_from_another(fresh):
    leave_manifests(fresh, ["000", "100"])
    result = Project.open(fresh).estimate("900", gpus=4, cpus=16, from_scratch=True)
    found = sources(result)
    assert found["train 100 fold 0"] == "measured"
    assert found["train 200 fold 1"] == found["infer 200"] == "from 100"
    assert found["ensemble 900"] == "guess"
    # The same backbone and images: as long, for each epoch.
    assert seconds(result)["train 200 fold 1"] == pytest.approx(2 / 3 * 3 * 4)
    assert seconds(result)["infer 200"] == pytest.approx(2)
    larger = Project.open(fresh).estimate(
        "900", {"200:dataset/img_size": 64}, gpus=4, cpus=16, from_scratch=True
    )
    assert seconds(larger)["train 200 fold 1"] == pytest.approx(4 * 8, rel=0.2)


def test_other_values_are_no_measurement(timed):
    result = Project.open(timed).estimate(
        "900", {"[0-2]*:dataset/img_size": 64}, gpus=1, from_scratch=True
    )
    assert sources(result)["pretrain 000"] == "from 000 (changed)"
    assert seconds(result)["pretrain 000"] == pytest.approx(4 * 30, rel=0.2)
    assert set(result.steps.query("measured")["step"]) == {"preprocess", "ensemble 900"}
    # More epochs of the same are.
    longer = Project.open(timed).estimate(
        "900", {"200:globals/max_epoch": 4}, gpus=1, from_scratch=True
    )
    assert sources(longer)["train 200 fold 0"] == "measured"
    assert seconds(longer)["train 200 fold 0"] == 20


def test_a_dry_run_grows_with_the_image_size(timed):
    """One size was measured: another takes longer by its operations, and status guesses nothing."""
    project = Project.open(timed)

    def seconds_of(side):
        plan = plan_of(project, ALL, ["[0-2]*:dataset/img_size=" + str(side)])
        states = states_of(plan, FileHashes(project.hash_store))
        steps = [step for step in plan.steps if step.kind.name in ("pretrain", "train", "infer")]
        speeds = speeds_of(plan)
        unknown = [step for step in steps if speeds.measured(step, states[step.label]) is None]
        found = seconds_here(plan, unknown, states)
        costs = Costs(plan.project, plan.types)
        epochs = {step.label: states[step.label].epochs_left or 1 for step in steps}
        return (
            {step.label: speeds.measured(step, states[step.label]) for step in steps} | found,
            {step.label: step.kind.operations(step, costs) for step in steps},
            {step.label for step in unknown},
            epochs,
        )

    small, small_work, unmeasured, _ = seconds_of(32)
    assert not unmeasured
    for side in (64, 224):
        large, large_work, unmeasured, _ = seconds_of(side)
        assert unmeasured == set(large)
        for label, seconds in large.items():
            ratio = large_work[label] / small_work[label]
            assert ratio == pytest.approx((side / 32) ** 2, rel=0.2)
            assert seconds / small[label] == pytest.approx(ratio, rel=0.01), label


def test_another_device_shows(fresh):
    leave_manifests(fresh, device="cpu")
    project = Project.open(fresh)
    result = project.estimate("900", gpus=1, cpus=4, from_scratch=True)
    assert sources(result)["train 100 fold 0"] == "measured on cpu"
    assert not result.steps.query("kind == 'train'")["measured"].any()
    assert any(
        "measured on a CPU, but estimated for GPUs: 000, 100, 200" in n for n in result.notes
    )
    faster = project.estimate("900", gpus=1, cpus=4, speedup=4, from_scratch=True)
    assert sources(faster)["train 100 fold 0"] == "measured on cpu /4"
    assert seconds(faster)["train 100 fold 0"] == 3
    assert not faster.notes
    # What the user says is for these machines, and others are drawn from it as it is.
    said = project.estimate(
        "900", gpus=1, cpus=4, speedup=4, epoch_s={"100": 1.5}, from_scratch=True
    )
    assert sources(said)["train 100 fold 0"] == "given"
    assert seconds(said)["train 100 fold 0"] == 4.5


def test_fewer_cores_take_longer(fresh):
    cores = cores_here()
    leave_manifests(fresh, device="cpu", cores=cores)
    project = Project.open(fresh)
    whole = project.estimate("900", {"[0-2]*:globals/resources": {"cpus": cores}}, gpus=0)
    assert sources(whole)["train 200 fold 0"] == "measured"
    half = project.estimate("900", {"[0-2]*:globals/resources": {"cpus": cores / 2}}, gpus=0)
    assert sources(half)["train 200 fold 0"] == "measured x2"
    assert seconds(half)["train 200 fold 0"] == 2 * seconds(whole)["train 200 fold 0"]
    # Alone, a step has all cores.
    assert half.serial_s == whole.serial_s
    # Measured on so many cores that it is to have: as on Ray.
    leave_manifests(fresh, device="cpu", cores=cores / 2)
    same = project.estimate("900", {"[0-2]*:globals/resources": {"cpus": cores / 2}}, gpus=0)
    assert sources(same)["train 200 fold 0"] == "measured"


def test_guesses_say_so(fresh):
    project = Project.open(fresh)
    result = project.estimate("900", gpus=1)
    assert set(sources(result).values()) == {"guess"}
    assert any("100% of the time is guessed" in n and "--epoch-s 000=" in n for n in result.notes)
    assert not result.steps["measured"].any()
    timed = project.estimate("900", gpus=0, cpus=1, measure=True)
    by_kind = timed.steps.groupby("kind")["source"].agg(set)
    assert all(source.startswith("timed") for source in by_kind["train"] | by_kind["infer"])
    assert not timed.steps["measured"].any()


def test_a_model_that_nobody_can_count_needs_a_number(fresh):
    (fresh / "own.py").write_text("def own():\n    raise OSError\n\nTYPES = {'Own': own}\n")
    with (fresh / "project.yml").open("a") as file:
        file.write("python: [own.py]\n")
    (fresh / "exp_config/100.yml").write_text(
        "import: foldsmith:multi_class.yml\nglobals/output_root: output/100\nmodel: {type: Own}\n"
    )
    project = Project.open(fresh)
    with pytest.raises(
        ConfigError, match=r"100.yml: the time of an epoch is unknown.*--epoch-s 100=SECONDS"
    ):
        project.estimate("100", gpus=1)
    result = project.estimate("100", gpus=1, epoch_s={"100": 2})
    assert any(
        n == "100: its model has no known size, and is left out of the disk space"
        for n in result.notes
    )
    assert sources(result) == {
        "train 100 fold 0": "given",
        "train 100 fold 1": "given",
        "infer 100": "guess",
    }


def no_such_machines(project, overrides, message, **machines):
    with pytest.raises(ConfigError) as error:
        project.estimate("900", overrides, from_scratch=True, **machines)
    assert re.search(message, str(error.value)), error.value


def test_what_fits_no_machine_is_named(fresh):
    with (fresh / "project.yml").open("a") as file:
        file.write("resources: {preprocess: {cpus: 6, memory_gib: 5}}\n")
    project = Project.open(fresh)
    half = {"1*:globals/resources": {"gpus": 0.5}}
    message = r"100.yml: globals/resources/gpus: 0.5: no node has that .there are: 8 CPUs, 0 GPUs"
    no_such_machines(project, half, message, gpus=0, cpus=8)
    two = {"2*:globals/resources": {"gpus": 2}}
    message = r"200.yml: globals/resources/gpus: 2: a step computes on one GPU; give it 1 or less"
    no_such_machines(project, two, message, gpus=2, cpus=8)
    message = r"project.yml: resources/preprocess/cpus: 6: no node has that .there are: 4 CPUs"
    no_such_machines(project, {}, message, gpus=1, cpus=4)
    message = r"project.yml: resources/preprocess/memory_gib: 5: no node has that .* 4.0 GiB"
    no_such_machines(project, {}, message, gpus=1, cpus=8, memory_gib=4)
    no_such_machines(project, {}, "--speedup is for GPUs", gpus=0, cpus=8, speedup=2)
    message = "--epoch-s 900: no experiment with epochs in the plan .there is 000, 100, 200"
    no_such_machines(project, {}, message, cpus=8, epoch_s={"900": 2})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["1*:globals/resources={gpus: 2}", "--gpus", "1"], "100.yml: globals/resources/gpus: "),
        (["--epoch-s", "100=fast"], "--epoch-s 100=fast: is not NAME=SECONDS"),
        (["--save", "run.txt"], "--save run.txt: must be a .png, .svg or .pdf file"),
    ],
)
def test_mistakes_are_one_line(cli, timed, arguments, message):
    result = cli(timed, "estimate", "-cfg", ALL, "--from-scratch", *arguments, code=2)
    assert message in result.stderr and "Traceback" not in result.stderr
    assert result.stdout == ""


def test_disk(timed):
    project = Project.open(timed)
    result = project.estimate("900", gpus=1, cpus=4, from_scratch=True)
    disk = result.disk
    assert disk.used == 0  # preprocessing was told of no experiments, and keeps no images
    # Kept at the end: two backbones and what the pretraining goes on from, three models per fold.
    backbone = weight_bytes(create_backbone("test_resnet"))
    pretraining = plan_of(project, "exp_config/000.yml").steps[-1].experiment
    assert kept_backbones(pretraining) == 2
    rest = disk.end - disk.images - 2 * backbone
    at_least = resume_bytes(pretraining, backbone) + 2 * 2 * 3 * backbone
    assert at_least < rest < 1.3 * at_least
    assert disk.peak > disk.end


def test_disk_is_what_a_training_really_takes(cli, fresh):
    plan = ["estimate", "-cfg", "exp_config/000.yml", "--json", "--gpus", "0", "--cpus", "2"]
    small = [*SMALL, "loader/train/batch_size=8"]
    said = json.loads(cli(fresh, *plan, *small).stdout)["disk_bytes"]
    assert said["used"] == 0
    cli(fresh, "run", "-cfg", "exp_config/000.yml", "--no-report", *small)
    done = json.loads(cli(fresh, *plan, *small).stdout)
    store = sum(path.stat().st_size for path in (fresh / ".foldsmith/images").rglob("*.bin"))
    assert said["images"] == done["disk_bytes"]["images"] == store > 0
    assert done["steps"] == [] and done["wall_s"] == 0
    assert said["end"] == pytest.approx(done["disk_bytes"]["used"], rel=0.02)
    text = cli(fresh, "estimate", "-cfg", "exp_config/000.yml", *small).stdout
    assert "everything is done: 2 steps" in text
    # The first real epoch is a measurement, and others are drawn from it.
    result = Project.open(fresh).estimate("000", {"dataset/img_size": 32, "globals/max_epoch": 9})
    epoch_s = read_manifest(fresh / "output/000/manifest.json").facts["epoch_s"]
    row = result.steps.set_index("step").loc["pretrain 000"]
    assert row["source"].startswith("measured") and row["epoch_s"] >= epoch_s


def test_images_by_the_million_are_no_objects(fresh):
    tables = fresh / "input"
    n = 20_000
    pd.DataFrame({"object_id": range(n)}).to_csv(tables / "test.csv", index=False)
    info = pd.DataFrame({"height": [48, 48, 30, 48] * n, "width": [48, 31, 48, 48] * n})
    info.to_csv(tables / "img_info.csv", index=False)
    project = Project.open(fresh)

    def peak(function):
        tracemalloc.start()
        found = function()
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found, size

    read = [
        lambda: (read_train(project), read_test(project)),
        lambda: pd.read_csv(tables / "img_info.csv"),
    ]
    (sizes, counts, n_images), size = peak(lambda: image_sizes(project))
    assert sizes.tolist() == [[30, 48], [48, 31], [48, 48]]
    assert counts.tolist() == [n, n, 2 * n]
    assert n_images == n + 24
    assert size < 2.5 * sum(peak(function)[1] for function in read)


def test_the_picture(timed, tmp_path, cli):
    file = tmp_path / "run.svg"
    text = cli(timed, "estimate", "-cfg", ALL, "--from-scratch", "--gpus", "2", "--save", str(file))
    assert f"wrote {file}" in text.stdout and file.read_text().startswith("<?xml")
    Project.open(timed).estimate("900", gpus=1, from_scratch=True).save(tmp_path / "run.png")
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")


def test_the_picture_has_a_row_per_gpu(timed):
    result = Project.open(timed).estimate("900", gpus=2, nodes=2, cpus=4, from_scratch=True)
    axis = result.figure().axes[0]
    names = [label.get_text() for label in axis.get_yticklabels()]
    gpus = [f"node {node} GPU {gpu}" for node in (0, 1) for gpu in (0, 1)]
    assert [name for name in names if "GPU" in name] == gpus
    assert len(axis.collections) == len(result.steps)


def test_frame_and_json_agree(timed):
    result = Project.open(timed).estimate("900", gpus=2, from_scratch=True)
    plain = json.loads(json.dumps(result.as_dict()))
    frame = pd.DataFrame(plain["steps"])
    assert frame["end_s"].max() == result.wall_s == plain["wall_s"]
    assert list(frame.columns) == list(result.steps.columns)
    assert plain["steps"][0]["fold"] is None and plain["steps"][0]["epoch_s"] is None


def test_work_is_images_times_views_times_operations(preprocessed):
    project = Project.open(preprocessed)

    def operations(label, *overrides):
        plan = plan_of(project, ALL, overrides)
        step = next(step for step in plan.steps if step.label == label)
        costs = Costs(plan.project, plan.types)
        return step.kind.operations(step, costs) / costs.model(step.experiment).forward[32]

    learned = 3  # a forward pass, and a backward one of twice its operations
    assert operations("pretrain 000") == (24 + 8) * 2 * learned
    # A momentum encoder looks at both views too.
    assert operations("pretrain 000", "000:model/type=BYOL") == (24 + 8) * 2 * (learned + 1)
    assert operations("train 100 fold 0") == 12 * learned + 12
    assert operations("train 100 fold 0", "100:globals/freeze_backbone=true") == 12 + 12
    # By the chosen and the last epoch; the other images by both folds; with mirror images.
    assert operations("infer 100", "100:globals/tta=hflip") == 2 * (2 * 24 + 2 * 8)
