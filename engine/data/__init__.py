"""From the config to batches: items, image files, transforms, samplers, loaders."""
