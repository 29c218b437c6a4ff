"""How the images of the `shapes` data sets are drawn."""
