"""Run foldsmith and kill this process (SIGKILL) at its n-th file: a test's stand-in for fate.

    python die_at_write.py N before|after|torn COMMAND...
    python die_at_write.py NAME before|after|torn COMMAND...

NAME is the end of a path, as in fold0/manifest.json.

``before`` dies with the temporary file written and not yet renamed, ``after`` just after the
rename, ``torn`` with half of the temporary file gone.
"""

import os
import signal
import sys

from foldsmith.cli import main

at, moment = sys.argv[1], sys.argv[2]
sys.argv = ["foldsmith", *sys.argv[3:]]
count = 0
replace = os.replace


def dying_replace(source, target, *arguments, **options):
    global count
    count += 1
    now = count == int(at) if at.isdigit() else str(target).endswith(at)
    if now and moment != "after":
        if moment == "torn":
            os.truncate(source, os.path.getsize(source) // 2)
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target, *arguments, **options)
    if now:
        os.kill(os.getpid(), signal.SIGKILL)


os.replace = dying_replace
main()
