"""Exceptions for people (one clear line, no traceback), and the exception of a signal."""

import errno

# Error numbers of an unsupported operation of a file system. Google Drive, for example, has
# neither links nor locks.
UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP)


class FoldsmithError(Exception):
    """Base class: the message names the file, the key and the remedy.

    The command line prints it as one line and exits with code 2.

    Attributes:
        told: Whether another process of the same training says it.
    """

    told = False

    def __str__(self) -> str:
        """Return the message alone; the Config System appends its own trace to ``args``."""
        return str(self.args[0]) if self.args else ""


class ConfigError(FoldsmithError):
    """A project file, an experiment file or an override is wrong."""


class DataError(FoldsmithError):
    """A table or an image is missing, unreadable or inconsistent."""


class OutputError(FoldsmithError):
    """An output folder is in the way, incomplete, or made from something else."""


class TrainingError(FoldsmithError):
    """One training cannot continue, for example after a NaN loss; others may."""


class Stopped(BaseException):
    """A signal, the argument, has asked to end; not a KeyboardInterrupt, which typer swallows."""


class Detached(Stopped):
    """The same, while something was watched that goes on by itself."""


def one_line(text: object) -> str:
    """Return ``text`` with every run of white space, line breaks included, as one blank."""
    return " ".join(str(text).split())
