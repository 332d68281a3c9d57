"""What results depend on of a project's own Python."""

import hashlib
import json
import os
import py_compile
import sys

import pytest
from small_project import EXPERIMENTS, write_experiment

from foldsmith.config import Experiment
from foldsmith.errors import ConfigError
from foldsmith.project import ProjectFolder
from foldsmith.run.engine import run
from foldsmith.steps.inputs.train import train_inputs
from foldsmith.steps.registry import types_of
from foldsmith.steps.train_command import train
from foldsmith.utils.hashing import FileHashes

LOSS = """
import torch
{before}
class OwnLoss(torch.nn.MSELoss):
    pass

TYPES = {{"OwnLoss": OwnLoss}}
"""


def use(folder, *files: str) -> None:
    text = (folder / "project.yml").read_text()
    (folder / "project.yml").write_text(f"{text}python: [{', '.join(files)}]\n")


def files_of(folder, name="200") -> dict[str, str]:
    project = ProjectFolder.open(folder)
    experiment = Experiment.load(project, f"exp_config/{name}.yml", ["model/pretrained=null"])
    hashes = FileHashes(project.hash_store)
    return train_inputs(experiment, 0, types_of(project), hashes)["files"]


@pytest.fixture
def ready(small_project):
    run(ProjectFolder.open(small_project), "exp_config/900.yml", until="preprocess")
    write_experiment(small_project, "200", EXPERIMENTS["200"] | {"loss": {"type": "OwnLoss"}})
    use(small_project, "own.py")
    (small_project / "own.py").write_text(LOSS.format(before=""))
    return small_project


def test_a_file_that_offers_nothing_is_imported_for_what_it_does(ready):
    (ready / "patch.py").write_text("TYPES = {}\n")
    use_both = (ready / "project.yml").read_text().replace("[own.py]", "[own.py, patch.py]")
    (ready / "project.yml").write_text(use_both)
    assert {"own.py", "patch.py"} <= files_of(ready).keys()
    assert "patch.py" in files_of(ready, "100") and "own.py" not in files_of(ready, "100")


def test_a_model_that_is_registered_with_timm_is_named_by_its_name(ready):
    (ready / "net.py").write_text(
        "import timm\n\n"
        "@timm.models.register_model\n"
        "def own_resnet(pretrained=False, **options):\n"
        "    return timm.create_model('test_resnet', **options)\n\n"
        "class Unused:\n    pass\n\n"
        "TYPES = {'Unused': Unused}\n"
    )
    (ready / "project.yml").write_text(
        (ready / "project.yml").read_text().replace("[own.py]", "[own.py, net.py]")
    )
    assert "net.py" not in files_of(ready)
    changed = {"loss": {"type": "OwnLoss"}, "model/base_name": "own_resnet"}
    write_experiment(ready, "200", EXPERIMENTS["200"] | changed)
    assert "net.py" in files_of(ready)


def test_a_module_that_own_python_imports_is_an_input_too(ready, monkeypatch):
    (ready / "helper_of_own.py").write_text("FACTOR = 2\n\ndef doubled(x):\n    return x * 2\n")
    monkeypatch.syspath_prepend(ready)
    (ready / "own.py").write_text(LOSS.format(before="from helper_of_own import doubled\n"))
    before = files_of(ready)
    assert before["helper_of_own.py"]
    (ready / "helper_of_own.py").write_text("def doubled(x):\n    return x * 3\n")
    # This process goes on with the module that it has imported.
    with pytest.raises(ConfigError, match="helper_of_own.py: was changed since this command"):
        files_of(ready)


def test_data_that_own_python_reads_is_declared(ready):
    (ready / "own.py").write_text(LOSS.format(before='\nFILES = ["weights.csv"]\n'))
    with pytest.raises(ConfigError, match=r"own.py: FILES: .*weights.csv: no such file"):
        files_of(ready)
    (ready / "weights.csv").write_text("1\n")
    before = files_of(ready)
    (ready / "weights.csv").write_text("2\n")
    after = files_of(ready)
    assert {k for k in after if after[k] != before[k]} == {"weights.csv"}
    # Those who do not use the file do not depend on its data.
    assert "weights.csv" not in files_of(ready, "100")
    (ready / "own.py").write_text(LOSS.format(before='\nFILES = "weights.csv"\n'))
    with pytest.raises(ConfigError, match="own.py: FILES must be a list of file names"):
        ProjectFolder.open(ready)


def test_a_manifest_names_the_code_that_ran(ready):
    """Edited between two folds: the second is not trained by code that its manifest lacks."""
    (ready / "own.py").write_text(
        LOSS.format(before="")
        + "from pathlib import Path\n"
        + "class Editing(OwnLoss):\n"
        + "    def forward(self, x, y):\n"
        + "        path = Path(__file__)\n"
        + "        begun = (path.parent / 'output/200/fold0/resume.pth').exists()\n"
        + "        if begun and path.read_text().endswith('Editing\\n'):\n"
        + "            path.write_text(path.read_text() + '# edited')\n"
        + "        return super().forward(x, y)\n"
        + "TYPES['OwnLoss'] = Editing\n"
    )
    ran = hashlib.sha256((ready / "own.py").read_bytes()).hexdigest()
    with pytest.raises(ConfigError, match="own.py: was changed since this command has imported it"):
        train(ProjectFolder.open(ready), "exp_config/200.yml", ["model/pretrained=null"])
    first = json.loads((ready / "output/200/fold0/manifest.json").read_text())
    assert first["inputs"]["files"]["own.py"] == ran
    assert not (ready / "output/200/fold1/manifest.json").exists()


def test_a_compiled_form_beside_a_file_is_not_taken_for_it(ready):
    (ready / "own.py").write_text(LOSS.format(before="\nNUMBER = 1\n"))
    py_compile.compile(str(ready / "own.py"))
    status = (ready / "own.py").stat()
    (ready / "own.py").write_text(LOSS.format(before="\nNUMBER = 2\n"))
    os.utime(ready / "own.py", (status.st_atime, status.st_mtime))
    ProjectFolder.open(ready)
    assert sys.modules["foldsmith_project_own"].NUMBER == 2
