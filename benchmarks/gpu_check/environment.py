"""The machine that the check finds: its Python, its card, and the packages that it lacks."""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]

# Modules without which nothing runs, and the packages that bring them.
NEEDED = {
    "torch": "torch",
    "torchvision": "torchvision",
    "timm": "timm",
    "pytorch_pfn_extras": "pytorch-pfn-extras",
    "lightly": "lightly",
    "cv2": "opencv-python-headless",
    "numpy": "numpy",
    "pandas": "pandas",
    "sklearn": "scikit-learn",
    "scipy": "scipy",
    "filelock": "filelock",
    "optuna": "optuna",
    "colorlog": "colorlog",
    "matplotlib": "matplotlib",
    "pydantic": "pydantic",
    "pydantic_core": "pydantic-core",
    "annotated_types": "annotated-types",
    "typing_inspection": "typing-inspection",
    "yaml": "PyYAML",
    "typer": "typer",
    "jinja2": "jinja2",
    # Imported by lightly and optuna.
    "tqdm": "tqdm",
    "rich": "rich",
    "PIL": "pillow",
    "pytest": "pytest",
    "hypothesis": "hypothesis",
}

# Modules without which one test or contender is left out, which the results say.
WANTED = {
    "albumentations": "albumentations",
    "onnx": "onnx",
    "onnxruntime": "onnxruntime",
    "onnxscript": "onnxscript",
    "fastapi": "fastapi",
    "uvicorn": "uvicorn",
    "python_multipart": "python-multipart",
    "httpx": "httpx",
}

# Run with the environment of the parts, so that it sees what they will see.
_LOOK = """
import importlib, importlib.metadata, importlib.util, json, os, platform, sys
found, broken = {}, {}
quick = sys.argv[2] == "quick"
for name in json.loads(sys.argv[1]):
    try:
        # A rehearsal has no time to import them, and no card.
        if quick:
            if importlib.util.find_spec(name) is None:
                raise ModuleNotFoundError(name)
            found[name] = importlib.metadata.version(name) if name == "torch" else ""
        else:
            found[name] = str(getattr(importlib.import_module(name), "__version__", ""))
    except Exception as error:
        broken[name] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
card = {}
if "torch" in found and not quick:
    import torch
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        card = {
            "name": torch.cuda.get_device_name(),
            "count": torch.cuda.device_count(),
            "free_gib": round(free / 2**30, 1),
            "total_gib": round(total / 2**30, 1),
            "capability": list(torch.cuda.get_device_capability()),
            "bf16": torch.cuda.is_bf16_supported(False),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "nccl": str(torch.cuda.nccl.version()) if torch.distributed.is_nccl_available() else "",
        }
try:
    cores = len(os.sched_getaffinity(0))
except AttributeError:
    cores = os.cpu_count()
print("FOUND " + json.dumps({
    "python": platform.python_version(), "cores": cores, "versions": found, "absent": broken,
    "card": card, "system": platform.platform(),
}))
"""


def fail(text: str) -> NoReturn:
    """End the check before it has begun, with one line that says why."""
    print(f"error: {text}", file=sys.stderr)
    sys.exit(2)


def python_path(packages: Path | None) -> str:
    """Return where the parts' processes look for modules, before those of the machine."""
    folders = [REPOSITORY / "src", HERE, REPOSITORY / "benchmarks"]
    if packages is not None:
        folders.append(packages)
    before = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    return os.pathsep.join([*map(str, folders), *before])


def environment_of(variables: dict[str, str], quick: bool) -> dict[str, Any]:
    """Return Python, card, versions and absent modules, as the parts will find them.

    Args:
        variables: The environment of the parts' processes.
        quick: Look for the modules without importing them, and for no card.
    """
    names = json.dumps([*NEEDED, *WANTED])
    result = subprocess.run(
        [sys.executable, "-c", _LOOK, names, "quick" if quick else "whole"],
        env=variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    lines = [line for line in result.stdout.splitlines() if line.startswith("FOUND ")]
    if not lines:
        fail(f"{sys.executable} cannot look at its packages: {result.stderr[-500:]}")
    machine: dict[str, Any] = json.loads(lines[-1].removeprefix("FOUND "))
    card = machine["card"]
    device = f"{card['name']}, {card['total_gib']} GiB, CUDA {card['cuda']}" if card else "no GPU"
    machine["line"] = (
        f"Python {machine['python']}, torch {machine['versions'].get('torch', 'absent')}, "
        f"{machine['cores']} cores, {device}"
    )
    left_out = [WANTED[name] for name in machine["absent"] if name in WANTED]
    if left_out:
        machine["line"] += f"; without {', '.join(left_out)}"
    return machine


def missing_line(machine: dict[str, Any], rehearse: bool) -> str | None:
    """Return what keeps the check from beginning, in one line; None if nothing does."""
    absent = {NEEDED[name]: why for name, why in machine["absent"].items() if name in NEEDED}
    if absent:
        broken = [
            f"{name} ({why})" for name, why in absent.items() if "ModuleNotFoundError" not in why
        ]
        return (
            f"packages are missing: {', '.join(absent)}; put their wheels into a folder and pass "
            "it as --wheels DIR (docs/gpu.md has the command that makes it)"
            + (f"; cannot be imported: {'; '.join(broken)}" if broken else "")
        )
    if not rehearse and not machine["card"]:
        return "torch finds no CUDA device here; --rehearse runs the same, small, on the CPU"
    return None


def unpack(wheels: Path, target: Path) -> Path:
    """Install into a folder those wheels whose packages the machine lacks; return the folder.

    Args:
        wheels: Folder of wheels, also for other Pythons: pip takes those that fit.
        target: The folder, which is made.
    """
    names = {_normal(file.name.split("-")[0]) for file in wheels.glob("*.whl")}
    if not names:
        fail(f"--wheels: {wheels} holds no wheel")
    here = {_normal(each.metadata["Name"] or "") for each in importlib.metadata.distributions()}
    wanted = sorted(names - here)
    target.mkdir(parents=True)
    if wanted:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
        command += ["--disable-pip-version-check", "--no-compile", "--find-links", str(wheels)]
        result = subprocess.run(
            [*command, "--target", str(target), *wanted],
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode:
            fail(f"--wheels: {result.stderr.strip().splitlines()[-1]}")
    return target


def _normal(name: str) -> str:
    """Return the name of a package as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()
