"""``python -m foldsmith``: the same as the ``foldsmith`` command."""

import os
import sys

# Python puts the working folder first among those it imports from. The foldsmith command does
# not, and in a project from elsewhere a file numpy.py there would run in the place of numpy.
if not getattr(sys.flags, "safe_path", False) and sys.path[:1] == [os.getcwd()]:
    del sys.path[0]

from foldsmith.cli.main import main

if __name__ == "__main__":
    main()
