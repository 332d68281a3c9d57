"""The moment at which a training replaces the files of an earlier one in its folder."""

from collections.abc import Callable

from pytorch_pfn_extras.training import extension


class Beginning(extension.Extension):
    """Makes the folder ready at the end of the first epoch, before anything of it is written.

    Until then the results of an earlier training stay: a loss that fails at the first batch, a
    learning rate that is too high, or a model that does not fit into memory costs nothing.

    Args:
        begin: Makes the folder ready; called once, by :meth:`now` or by the manager.
    """

    trigger = (1, "epoch")
    # After the validation, which may fail too, and before everything that writes.
    priority = extension.PRIORITY_WRITER - 50
    default_name = "beginning"

    def __init__(self, begin: Callable[[], None]) -> None:
        self._waiting: list[Callable[[], None]] = [begin]
        self._begun = False

    def now(self) -> None:
        """Make the folder ready, if that has not been done."""
        self._begun = True
        while self._waiting:
            self._waiting.pop(0)()

    def then(self, action: Callable[[], None]) -> None:
        """Do something as soon as the folder is ready, or at once if it is."""
        self._waiting.append(action)
        if self._begun:
            self.now()

    def __call__(self, manager: extension.ExtensionsManagerProtocol) -> None:
        """Make the folder ready; called by the manager at the end of an epoch."""
        self.now()
