"""A trained run on new images: what predict.py stands on."""
