"""The ``foldsmith`` command."""
