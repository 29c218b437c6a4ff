"""Image transforms by name."""

from engine.data.transforms import INTERPOLATION_MODES, build_transform
