"""Kill this process (SIGKILL) at its n-th file: a test's stand-in for fate."""

import os
import signal


def die_at_write(at: int | str, moment: str) -> None:
    """Let this process die when it writes a file.

    Args:
        at: Number of the file, from 1; or the end of its path, as in fold0/manifest.json.
        moment: ``before`` dies with the temporary file written and not yet renamed, ``after``
            just after the rename, ``torn`` with half of the temporary file gone.
    """
    count = 0
    replace = os.replace

    def dying_replace(source, target, *arguments, **options):
        nonlocal count
        count += 1
        now = count == at if isinstance(at, int) else str(target).endswith(at)
        if now and moment != "after":
            if moment == "torn":
                os.truncate(source, os.path.getsize(source) // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target, *arguments, **options)
        if now:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = dying_replace
