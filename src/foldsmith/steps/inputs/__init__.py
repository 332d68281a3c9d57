"""The inputs of each step, as hashes of content."""
