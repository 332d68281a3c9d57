"""Print the command that installs the optional packages of a feature."""

import re
import shlex
from importlib.metadata import PackageNotFoundError, requires


def install_command(extra: str) -> str:
    """Return the command that installs the packages of an extra, as ``serve``.

    It names the packages themselves, since foldsmith may have been installed from a folder and be
    on no index.
    """
    try:
        wanted = requires("foldsmith") or []
    except PackageNotFoundError:  # run from its source, uninstalled
        wanted = []
    packages = [
        found[1].strip()
        for text in wanted
        if (found := re.fullmatch(r"([^;]+);\s*extra == ['\"](.+)['\"]", text))
        and found[2] == extra
    ]
    return "pip install " + (shlex.join(packages) if packages else f"'.[{extra}]'")
