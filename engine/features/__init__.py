"""Features of images by a frozen tower: each image is encoded once and its feature kept."""
