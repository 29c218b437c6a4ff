"""A run and its folder: the lock, config.yaml, results.json and what they say of it."""
