"""The evaluator that the config names."""

from engine import EVALUATOR_REGISTRY, build_evaluator
