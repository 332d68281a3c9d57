import subprocess
import sys

# Half of what `foldsmith status` would take otherwise; each is imported where it is used.
SLOW = {"lightly", "matplotlib", "optuna", "scipy", "sklearn", "timm", "torchvision"}
SLOW |= {"torch._dynamo", "torch._inductor"}


def test_commands_that_train_nothing_do_not_wait_for_slow_libraries():
    code = "import sys, foldsmith.steps, foldsmith.run; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert SLOW & set(result.stdout.split()) == set()


def test_the_package_itself_imports_nothing():
    code = "import sys, foldsmith; print(callable(foldsmith.load), *sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    callable_, *modules = result.stdout.split()
    assert callable_ == "True"
    assert {"torch", "numpy", "pandas", "cv2", "pydantic", *SLOW} & set(modules) == set()


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
