"""Numbers as people read them."""


def size_text(n_bytes: float) -> str:
    """Return bytes as ``120 MiB``, ``3.4 GiB``."""
    return f"{n_bytes / 2**30:.1f} GiB" if n_bytes >= 2**29 else f"{n_bytes / 2**20:.0f} MiB"
