"""Looking at data of which nothing is known yet: images, ids, targets and groups."""
