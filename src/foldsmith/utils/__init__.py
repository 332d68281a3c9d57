"""Small modules that the whole package uses, one subject each."""
