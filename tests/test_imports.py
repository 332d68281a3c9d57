import subprocess
import sys

# Half of what `foldsmith status` would take otherwise; each is imported where it is used.
SLOW = {"lightly", "matplotlib", "optuna", "scipy", "sklearn", "timm", "torchvision"}


def test_commands_that_train_nothing_do_not_wait_for_slow_libraries():
    code = "import sys, foldsmith.stages, foldsmith.pipeline; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert SLOW & set(result.stdout.split()) == set()
