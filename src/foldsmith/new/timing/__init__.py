"""The time of a project: sizes, backbones and epochs that fit it, from the data and the machine."""
