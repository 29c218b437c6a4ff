"""CLIP with OpenAI's names: load a model, make tokens of texts, build a model from its weights."""

from .clip import available_models, load, tokenize
from .model import build_model

__all__ = ["available_models", "build_model", "load", "tokenize"]
