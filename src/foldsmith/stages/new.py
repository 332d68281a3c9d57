"""A new project: the recommended recipe, and a project file to fill in."""

from pathlib import Path
from string import Template

from foldsmith.atomic import write_text
from foldsmith.config.budget import Budget
from foldsmith.config.project import PROJECT_FILE, TEMPLATE
from foldsmith.errors import OutputError
from foldsmith.stages.output_folder import shown


def new_project(folder: Path, budget: Budget) -> Path:
    """Write a project file and the experiments of the recommended recipe.

    Args:
        folder: The project folder; made if it is not there.
        budget: How much time it may take.

    Returns:
        The project file.

    Raises:
        OutputError: One of the files is there already; nothing is written then.
    """
    files = {path.relative_to(TEMPLATE): path for path in sorted(TEMPLATE.rglob("*.yml"))}
    for name in files:
        if (folder / name).exists():
            raise OutputError(f"{folder / name}: exists already; name another folder")
    for name, path in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text(encoding="utf-8")
        values = {"name": folder.resolve().name, "budget": budget}
        write_text(folder / name, Template(text).substitute(values))
        print(f"wrote {shown(folder / name)}")
    print(
        f"next: set the lines of {shown(folder / PROJECT_FILE)} that say what your data is; then, "
        f"in {shown(folder)}: foldsmith doctor, foldsmith run -cfg exp_config/901.yml"
    )
    return folder / PROJECT_FILE
