"""Tables, images, statistics, folds, transforms, datasets, loaders."""
