"""The files of open_clip's models: fetched by its own functions, looked at before they are loaded."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import nn

from ..weights import is_torchscript, read_state_dict

CONFIG = "open_clip_config.json"
# In the order in which open_clip prefers them.
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")
TELLING = ("conv1.weight", "patch_embed.proj.weight", "token_embedding.weight", "text_projection")  # ends of keys
Shapes = dict[str, tuple[int, ...]]


def import_open_clip():
    """Returns the package open_clip, whose import takes seconds.

    Raises:
        ValueError: It is not installed.
    """
    try:
        import open_clip
    except ImportError as error:
        raise ValueError(
            'The backbone is a model of open_clip, which is not installed: pip install -e ".[open_clip]".'
        ) from error
    return open_clip


@contextmanager
def handled_root() -> Iterator[None]:
    """Gives the root logger a handler: without one, open_clip's first line would add one that prints all our lines."""
    root, handler = logging.getLogger(), logging.NullHandler()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)


def near(name: str, names: Iterable[str]) -> str:
    """Returns what an error says of names that are close to a wrong one; "" if none is."""
    lower = {known.lower(): known for known in names}
    found = [lower[match] for match in difflib.get_close_matches(name.lower(), lower, n=3)]
    return f" Did you mean {' or '.join(found)}?" if found else ""


def reason_of(error: Exception) -> str:
    """Returns the first line of an error of another library, which may be long."""
    return (str(error).strip().split("\n")[0] or type(error).__name__)[:300]


def fetch(repository: str, filename: str = "", revision: str = "", *, download: bool) -> Path | None:
    """Returns a file of a repository on the Hugging Face Hub, from the cache or else by open_clip from the network.

    Args:
        filename: "": open_clip's file of weights. Where it has a twin in safetensors, that is taken.
        revision: a commit, branch or tag; "": the main branch.
        download: False: None is returned of what is not in the cache.

    Raises:
        OSError: It could not be fetched.
    """
    from huggingface_hub import constants, try_to_load_from_cache
    from open_clip.pretrained import download_pretrained_from_hf

    if not download:
        twins = {"": (WEIGHTS[0], WEIGHTS[-1])}.get(filename) or (filename.replace(".bin", ".safetensors"), filename)
        found = (try_to_load_from_cache(repository, name, revision=revision or None) for name in twins)
        return next((Path(path) for path in found if isinstance(path, str)), None)
    try:
        return Path(download_pretrained_from_hf(repository, filename=filename or None, revision=revision or None))
    except (OSError, ValueError) as error:  # ValueError: the name of a repository that cannot be
        at = f" --revision {revision}" if revision else ""
        raise OSError(
            f"{repository} could not be fetched from the Hugging Face Hub ({reason_of(error)}). It is looked for in "
            f"the cache {constants.HF_HUB_CACHE} first: where there is a network, `hf download {repository}{at}` puts "
            "it there."
        ) from error


def revision_of(path: Path | None) -> str:
    """Returns the commit that a file in the hub's cache belongs to; "" of another file, or none."""
    parts = path.parts if path else ()
    return parts[parts.index("snapshots") + 1] if "snapshots" in parts else ""


def weights_in(folder: Path) -> Path:
    """Returns the file of weights in a folder.

    Raises:
        FileNotFoundError: There is none.
    """
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"{folder.absolute()} has no weights. Put one of these files there: {', '.join(WEIGHTS)}.")


def read_shapes(path: Path) -> Shapes:
    """Returns the shapes of the tensors in a file of weights by their keys, without those that training wraps around.

    Raises:
        ValueError: The file cannot be read.
    """
    if path.suffix in (".npz", ".npy"):
        return {}  # big_vision's, whose keys open_clip renames
    if path.suffix != ".safetensors":
        if is_torchscript(path):
            raise ValueError(
                f"{path} is a TorchScript archive, as OpenAI's are; open_clip reads safetensors and state dicts saved "
                "by torch.save. Leave `open_clip:` and the architecture out."
            )
        shapes = {key: tuple(value.shape) for key, value in read_state_dict(path).items()}
    else:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "pt") as file:
                shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}
        except (SafetensorError, OSError) as error:
            raise ValueError(
                f"{path} ({path.stat().st_size:,} bytes) cannot be read ({reason_of(error)}). It must be a file of "
                "safetensors. If it is cut short, fetch it again."
            ) from error
    return {key.removeprefix("module."): shape for key, shape in shapes.items()}


def misfit(path: Path, name: str, shapes: Shapes, error: Exception) -> str:
    """Returns what is wrong with weights that open_clip could not put into its model `name`."""
    details = " ".join(str(error).split())
    details = f"{details[:400]} ..." if len(details) > 400 else details or type(error).__name__
    alike = look_alikes(shapes)
    looks = f", and look like open_clip's {' or '.join(alike[:4])}" if alike else ""
    told = [key for key in shapes if key.endswith(TELLING)] or list(shapes)
    keys = ", ".join(f"{key} of shape {shapes[key]}" for key in told[:4])
    return (
        f"The weights in {path} do not fit {name} of open_clip ({details}). They hold {keys}{looks}. Name the "
        "architecture that they belong to."
    )


def check_positions(path: Path, name: str, shapes: Shapes, model: nn.Module) -> None:
    """Raises ValueError if open_clip has stretched the positions of a file to those of another image or text size."""
    plain = {key.removeprefix("text."): shape for key, shape in shapes.items()}
    for key, value in model.state_dict().items():
        shape = plain.get(key.removeprefix("text."))
        if key.endswith(("positional_embedding", "pos_embed")) and shape and shape != tuple(value.shape):
            alike = look_alikes(shapes)
            looks = f", such as {' or '.join(alike[:4])}" if alike else ""
            raise ValueError(
                f"The weights in {path} have {key} of shape {shape}; {name} of open_clip has {tuple(value.shape)}, for "
                f"images or texts of another size. Name the architecture that they belong to{looks}."
            )


def look_alikes(shapes: Shapes) -> list[str]:
    """Returns the names of open_clip's architectures that have the sizes of a state dict."""
    open_clip = import_open_clip()
    plain = {key.removeprefix("text."): shape for key, shape in shapes.items()}
    found = _sizes_of_weights(plain)
    names = open_clip.list_models()
    return [name for name in names if found and _sizes_of_config(open_clip.get_model_config(name)) == found]


def _sizes_of_weights(shapes: Shapes) -> tuple | None:
    """Joint width, then each tower's width and number of blocks, patch and number of positions of a ViT."""
    needed = ("text_projection", "token_embedding.weight", "visual.conv1.weight", "visual.positional_embedding")
    if not all(key in shapes for key in needed):
        return None
    projection, tokens, patches, positions = (shapes[key] for key in needed)
    text, vision = _count(shapes, "transformer.resblocks."), _count(shapes, "visual.transformer.resblocks.")
    return projection[-1], tokens[-1], text, patches[0], vision, patches[-1], positions[0]


def _sizes_of_config(config: dict) -> tuple | None:
    vision, text = config["vision_cfg"], config["text_cfg"]
    if "patch_size" not in vision or not isinstance(vision.get("layers"), int):
        return None
    size, patch = vision.get("image_size", 224), vision["patch_size"]
    positions = (size // patch) ** 2 + 1 if isinstance(size, int) else None
    vision_sizes = (vision.get("width"), vision["layers"], patch, positions)
    return config["embed_dim"], text.get("width"), text.get("layers"), *vision_sizes


def _count(shapes: Shapes, prefix: str) -> int:
    return len({key.removeprefix(prefix).split(".")[0] for key in shapes if key.startswith(prefix)})
