"""Names and columns of the tables of image statistics that ``foldsmith preprocess`` writes."""

from typing import Final

# A row per image.
IMG_INFO: Final = "img_info.csv"

# A row per statistic: means and standard deviations over all images.
STATS_BY_DATA: Final = "stats_by_data.csv"

CHANNELS: Final = {"Red": "r", "Green": "g", "Blue": "b"}

# Columns of the first table beside the image's id.
COLUMNS: Final = [
    "height",
    "width",
    *(f"{short}_{name}" for name in ("mean", "std") for short in CHANNELS.values()),
]
