"""Tables, photos, statistics, folds, transforms, datasets, loaders."""
