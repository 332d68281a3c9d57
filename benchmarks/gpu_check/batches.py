"""Which batch size fills a card."""

# The smallest batch with this share of the best speed is taken.
_ENOUGH = 0.96


def enough(found: list[dict[str, float]]) -> int:
    """Return the smallest batch that is about as fast as the fastest."""
    best = max(row["images_per_s"] for row in found)
    return int(min(row["batch"] for row in found if row["images_per_s"] >= _ENOUGH * best))
