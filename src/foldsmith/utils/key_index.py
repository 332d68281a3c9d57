"""Finding rows by keys of bytes, among millions."""

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.uint8]


class KeyTable:
    """Finds the row of a key: sorted numbers in place of a dict of objects.

    Args:
        keys: uint8, shape (n, width), the width a multiple of 8.
    """

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        mixed = _mixed(keys)
        self._rows = np.argsort(mixed, kind="stable")
        self._mixed = mixed[self._rows]

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, keys: Keys) -> npt.NDArray[np.int64]:
        """Return the first row of each key, shape (n,); -1 where there is none."""
        mixed = _mixed(keys)
        places = np.searchsorted(self._mixed, mixed)
        found = np.full(len(keys), -1, np.int64)
        left = np.arange(len(keys))
        # Once, but for different keys of the same number.
        while len(left):
            left = left[places[left] < len(self._mixed)]
            left = left[self._mixed[places[left]] == mixed[left]]
            rows = self._rows[places[left]]
            equal = (self._keys[rows] == keys[left]).all(axis=1)
            found[left[equal]] = rows[equal]
            left = left[~equal]
            places[left] += 1
        return found

    def find_one(self, key: bytes) -> int:
        """Return the first row of one key; -1 if there is none."""
        if not len(self._mixed):
            return -1
        mixed = _mixed(np.frombuffer(key, np.uint8).reshape(1, -1))[0]
        place = int(self._mixed.searchsorted(mixed))
        while place < len(self._mixed) and self._mixed[place] == mixed:
            row = int(self._rows[place])
            if self._keys[row].tobytes() == key:
                return row
            place += 1
        return -1


def _mixed(keys: Keys) -> npt.NDArray[np.uint64]:
    """Return one number for each key."""
    words = np.ascontiguousarray(keys).view(np.uint64)
    mixed: npt.NDArray[np.uint64] = np.bitwise_xor.reduce(words, axis=1)
    return mixed
