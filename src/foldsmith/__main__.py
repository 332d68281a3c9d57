"""``python -m foldsmith``: the same as the ``foldsmith`` command."""

from foldsmith.cli import main

if __name__ == "__main__":
    main()
