"""Looking at data of which nothing is known yet: photos, ids, targets and groups."""
