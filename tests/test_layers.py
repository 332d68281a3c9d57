"""Structure of the package: imports go down without circles, and a name has one class.

All import statements count, also those inside functions, which only postpone a dependency. Imports
for type checkers count too: a module that needs the type depends on its owner.
"""

import ast
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1] / "src" / "foldsmith"

# From the bottom to the top. A module imports its own package and the packages before it. The root
# package gives people `Project` and `load`, and imports both when they are asked for; modules take
# nothing from it but its version.
LAYERS = (
    *("errors", "utils", "distributed", "project", "config", "data", "targets", "models", "ssl"),
    *("inference", "training", "blending", "steps", "predictor", "run", "report", "new"),
    *("extras", "api", "cli", "__main__"),
)

# Modules that are below the packages between ``utils`` and their own, whose subject they share: a
# project is judged by a metric, which is computed from arrays alone.
LEAVES = {
    *("targets.metrics", "targets.metric", "targets.metric_text", "targets.class_values"),
    *("targets.label_means", "targets.scores_of_values", "targets.scores_of_classes"),
    *("targets.scores_of_labels", "targets.partial_areas", "targets.ranks", "targets.row_means"),
    *("targets.label_metrics", "targets.calibrations"),
    *("targets.column_metrics", "targets.judged_columns", "targets.formulas"),
    *("targets.class_column_metrics", "targets.class_blocks"),
}

# (module, module that it may import nevertheless) -> why.
EXCEPTIONS = {
    ("run.engine", "extras.ray.engine"): "the engine is chosen here; Ray need not be installed",
}

# Module -> packages and modules that it does without, directly and through others: who reads it
# need not read them.
DOES_WITHOUT = {
    "training.loop": (
        *("targets", "steps", "inference", "ssl"),
        *("project.project_file", "project.tables", "config.experiment", "data.cache.image_store"),
    ),
    "steps.train": (
        *("ssl", "blending", "predictor", "run", "report", "new", "extras", "api", "cli"),
        *("config.check", "config.values", "config.source_signatures"),
        *("data.folds", "data.statistics", "data.near_duplicates", "data.transforms.colour"),
        *("models.feature_heads", "models.fitted_heads", "models.descriptors", "inference.oof"),
        *("steps.features", "steps.infer", "steps.ensemble", "steps.pretrain", "steps.trial_build"),
        *("steps.oof_summary", "steps.predictions", "project.submission"),
        *("training.pretrain_step", "training.extensions.log_mlflow"),
    ),
}

# Packages that the core does without: only these may import them.
OPTIONAL = {"extras": {"api", "cli", "extras"}}


def modules(root: Path) -> dict[str, Path]:
    """Return the modules of a package by their names without the package's own."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts).removesuffix("__init__").removesuffix(".")] = path
    return found


def imports_of(path: Path, known: Iterable[str], package: str = "foldsmith") -> set[str]:
    """Return the modules of the package that a file imports anywhere, by statement or by name."""
    known, names = set(known), set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            # `from a.b import c` means the module a.b.c, or a name in a.b.
            inside = node.module.removeprefix(package).removeprefix(".")
            for alias in node.names:
                is_module = f"{inside}.{alias.name}".removeprefix(".") in known
                names.add(f"{node.module}.{alias.name}" if is_module else node.module)
        elif isinstance(node, ast.Call) and "import_module" in ast.unparse(node.func):
            names |= {arg.value for arg in node.args if isinstance(arg, ast.Constant)}
    found = {name.removeprefix(f"{package}.") for name in names if name.startswith(f"{package}.")}
    return found & known


def root_names(path: Path) -> set[str]:
    """Return the names that a file takes from the root package."""
    nodes = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.ImportFrom)]
    return {alias.name for node in nodes if node.module == "foldsmith" for alias in node.names}


def graph(root: Path) -> dict[str, set[str]]:
    """Return the imports of each module of a package."""
    known = modules(root)
    return {name: imports_of(path, known) - {name} for name, path in known.items()}


def layer_of(module: str) -> float:
    """Return the place of a module's package in the order; the root package is above all."""
    if module in LEAVES:
        return LAYERS.index("utils") + 0.5
    return LAYERS.index(module.partition(".")[0]) if module else len(LAYERS)


def is_exception(module: str, imported: str) -> bool:
    return (module, imported) in EXCEPTIONS


def upward_imports(imports: dict[str, set[str]]) -> list[str]:
    """Return the imports that go up in the order of the packages, without the exceptions."""
    return [
        f"{module} imports {other}"
        for module, others in imports.items()
        for other in sorted(others)
        if layer_of(other) > layer_of(module) and not is_exception(module, other)
    ]


def reached(imports: dict[str, set[str]], start: str) -> set[str]:
    """Return the modules that a module imports, directly or through others."""
    seen: set[str] = set()
    todo = [start]
    while todo:
        more = imports[todo.pop()] - seen
        seen |= more
        todo += more
    return seen


def circles(imports: dict[str, set[str]]) -> list[list[str]]:
    """Return the groups of modules that import each other, directly or through others."""
    reach = {module: reached(imports, module) for module in imports}
    found: list[list[str]] = []
    for module in imports:
        if module in reach[module] and not any(module in group for group in found):
            found.append([other for other in reach[module] if module in reach[other]])
    return [sorted(group) for group in found]


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    return graph(ROOT)


def test_each_package_has_its_place(imports):
    assert {module.partition(".")[0] for module in imports if module} == set(LAYERS)


def test_imports_go_down(imports):
    assert upward_imports(imports) == []


def test_no_module_imports_itself_through_others(imports):
    assert circles(imports) == []


def test_the_core_does_without_extras(imports):
    for package, users in OPTIONAL.items():
        found = [
            f"{module} imports {other}"
            for module, others in imports.items()
            for other in sorted(others)
            if other.partition(".")[0] == package
            and module.partition(".")[0] not in {"", *users}
            and not is_exception(module, other)
        ]
        assert found == []


@pytest.mark.parametrize("module", DOES_WITHOUT)
def test_a_reader_of_the_training_is_spared(module, imports):
    read = reached(imports, module)
    for name in DOES_WITHOUT[module]:
        is_package = "." not in name
        found = {m for m in imports if m == name or (is_package and m.startswith(f"{name}."))}
        assert found, f"there is no module {name}"
        assert not found & read


def test_each_exception_is_needed(imports):
    for module, imported in EXCEPTIONS:
        assert imported in imports[module], f"{module} does not import {imported} any more"
        assert layer_of(imported) > layer_of(module), f"{module} may import {imported} anyway"


def test_the_root_package_is_for_people(imports):
    top = {module.partition(".")[0] for module in imports} | {"__version__"}
    for name, path in modules(ROOT).items():
        assert root_names(path) <= top, name


def test_no_two_public_classes_share_a_name():
    owners: dict[str, list[str]] = {}
    for module, path in modules(ROOT).items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                owners.setdefault(node.name, []).append(module)
    assert {name: found for name, found in owners.items() if len(found) > 1} == {}


@pytest.mark.parametrize(
    "line",
    [
        "from foldsmith.steps import train",
        "import foldsmith.steps.train",
        "def later():\n    from foldsmith.steps.train import train_folds",
        "import importlib\n\ndef later():\n    importlib.import_module('foldsmith.steps.train')",
        "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    import foldsmith.steps.train",
    ],
)
def test_an_import_is_found_wherever_it_stands(tmp_path, line):
    for folder in ("data", "steps"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").touch()
    (tmp_path / "data/images.py").write_text(line + "\n")
    (tmp_path / "steps/train.py").write_text("import foldsmith.data.images\n")
    found = graph(tmp_path)
    assert upward_imports(found) == ["data.images imports steps.train"]
    assert circles(found) == [["data.images", "steps.train"]]
