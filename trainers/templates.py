"""Sets of hand-made prompts for ensembling.

Source of the seven: the prompt-engineering notebook of CLIP's authors, https://github.com/openai/CLIP, which found them
by forward selection among their 80 ImageNet prompts.
"""

from __future__ import annotations

IMAGENET_TEMPLATES_SELECT = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)


def imagenet_templates() -> tuple[str, ...]:
    """Returns the full list of 80, with `{}` for the class name, from the package open_clip.

    Raises:
        ModuleNotFoundError: If open_clip is not installed.
    """
    try:
        from open_clip import OPENAI_IMAGENET_TEMPLATES
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "TRAINER.ZSCLIP.TEMPLATES is full, but the package open_clip, which holds the 80 templates, is not "
            "installed. Run `pip install open_clip_torch`, or use TRAINER.ZSCLIP.TEMPLATES select."
        ) from error
    return tuple(template("{}") for template in OPENAI_IMAGENET_TEMPLATES)
