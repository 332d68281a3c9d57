import subprocess
import sys

import pytest

# Each takes a second or more to import, and is imported where it is used.
SLOW = {"cv2", "lightly", "matplotlib", "optuna", "scipy", "sklearn", "timm", "torchvision"}
SLOW |= {"pytorch_pfn_extras", "torch"}


def modules_after(folder, *command):
    """Return the modules that a command has imported in an interpreter of its own."""
    code = (
        "import atexit, sys; from foldsmith.cli.main import main; "
        "atexit.register(lambda: print('imported:', *sys.modules)); main()"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, *command],
        **{"cwd": folder, "capture_output": True, "text": True, "timeout": 120},
    )
    assert run.returncode == 0, run.stderr
    text, _, modules = run.stdout.rpartition("imported:")
    return text, set(modules.split())


CHECK = ["check", "-cfg", "exp_config/900.yml"]


@pytest.mark.parametrize("command", [["--help"], ["run", "--help"], ["status"], CHECK])
def test_commands_that_compute_nothing_import_nothing_slow(command, small_project):
    text, modules = modules_after(small_project, *command)
    assert text and modules & SLOW == set()


def test_a_project_is_opened_without_slow_libraries(small_project):
    code = (
        "import sys; from foldsmith import Project, load; Project.open(sys.argv[1]).status();"
        "print(*sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(small_project)], capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 0, run.stderr
    assert set(run.stdout.split()) & SLOW == set()


def test_the_package_itself_imports_nothing():
    code = "import sys, foldsmith; print(callable(foldsmith.load), *sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    callable_, *modules = result.stdout.split()
    assert callable_ == "True"
    assert {"numpy", "pandas", "pydantic", *SLOW} & set(modules) == set()


def test_a_module_that_is_imported_later_does_what_it_does():
    code = """
import sys
import foldsmith, pytorch_pfn_extras, torch
assert "torch._dynamo" not in sys.modules
model = torch.nn.Linear(2, 1)
compiled = pytorch_pfn_extras.compile(model, torch.optim.SGD(model.parameters(), lr=0.1))
print(type(compiled).__name__, "torch._dynamo" in sys.modules)
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
    )
    assert result.stdout.split() == ["OptimizedModule", "True"], result.stderr


def test_a_backbone_needs_no_compiler_and_can_be_compiled_all_the_same():
    code = """
import sys
import torch
from foldsmith.models.backbone import create_backbone
model = create_backbone("naflexvit_base_patch16_gap", options={"embed_dim": 12, "depth": 1})
image = torch.ones(1, 3, 32, 32)
features = model.eval()(image)
assert "torch._dynamo" not in sys.modules, "imported"
import torchvision
boxes = torch.tensor([[0.0, 0.0, 0.0, 8.0, 8.0]])
assert torchvision.ops.roi_align(image, boxes, 2).shape == (1, 3, 2, 2)
assert torch._dynamo.utils.counters is not None
compiled = torch.compile(model, backend="eager")
print(torch.allclose(compiled(image), features), torch.compiler.disable.__module__)
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120
    )
    assert result.stdout.split() == ["True", "torch.compiler"], result.stderr
