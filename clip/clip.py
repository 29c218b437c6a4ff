"""Load a CLIP by name or path, and turn texts into its tokens."""

import difflib
import hashlib
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path

import torch
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor
from torchvision.transforms.functional import crop

from .backbones import CONFIGS, find_backbone
from .backbones.hf_files import parts_of
from .download import download, sha256
from .model import build_model
from .state_dict import HEAD_DIM
from .tokens import beginning, tokenize, tokenizer  # noqa: F401  OpenAI's callers look here
from .two_towers import MEAN, STD, ClosedTowers, Preprocessing, TwoTowers  # noqa: F401
from .weights import missing_file_message, read_state_dict, torch_readable


class _Addresses(dict):
    """URLs by a model's name; what has none stands for its file: the embedded model's name, or a path."""

    def __missing__(self, name: str) -> str:
        if find_backbone(name):
            raise ValueError(
                f"{name} is a model of another library, but what asks for its file builds OpenAI's CLIP. Name one of "
                f"{', '.join(_MODELS)}, or the path of such a file."
            )
        return str(resolve(name))


_OPENAI = "https://openaipublic.azureedge.net/clip/models"
_URLS = {
    "RN50": f"{_OPENAI}/afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762/RN50.pt",
    "RN101": f"{_OPENAI}/8fa8567bab74a42d41c5915025a8e4538c3bdbe8804a470a72f30b0d94fab599/RN101.pt",
    "RN50x4": f"{_OPENAI}/7e526bd135e493cef0776de27d5f42653e6b4c8bf9e0f653bb11773263205fdd/RN50x4.pt",
    "RN50x16": f"{_OPENAI}/52378b407f34354e150460fe41077663dd5b39c54cd0bfd2b27167a4a06ec9aa/RN50x16.pt",
    "RN50x64": f"{_OPENAI}/be1cfb55d75a9666199fb2206c106743da0f6468c9d327f3e0d0a543a9919d9c/RN50x64.pt",
    "ViT-B/32": f"{_OPENAI}/40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af/ViT-B-32.pt",
    "ViT-B/16": f"{_OPENAI}/5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f/ViT-B-16.pt",
    "ViT-L/14": f"{_OPENAI}/b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836/ViT-L-14.pt",
    "ViT-L/14@336px": f"{_OPENAI}/3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02/ViT-L-14-336px.pt",
}
_EMBEDDED = {"ViT-T/8-shapes": Path(__file__).with_name("shapes.npz")}  # comes with the package, needs no network
_MODELS = _Addresses(_URLS)


def available_models() -> list[str]:
    """Names that `load` takes."""
    return [*_MODELS, *_EMBEDDED]


def load(
    name: str | Path,
    device: str | torch.device | None = None,
    jit: bool = False,
    download_root: str | Path | None = None,
    *,
    heads: Sequence[int] = (),
    activation: str = "",
    draw: bool = True,
) -> tuple[TwoTowers | ClosedTowers, Compose]:
    """A CLIP in eval() mode and float32, and the transform of its images.

    Args:
        name: one of `available_models()`, the path of a weights file that `read_state_dict` takes, or a name of
            another library's (docs/BACKBONES.md).
        device: where the model goes; None: "cuda" if there is a GPU, else "cpu".
        jit: kept for OpenAI's callers; only False.
        download_root: cache folder, `~/.cache/clip` by default.
        heads: of a file in OpenAI's layout: numbers of attention heads of the image tower and of the text tower; (): by
            OpenAI's rule, one for each 64 of a width.
        activation: of such a file: "quick_gelu", "gelu" or "gelu_tanh"; "": by OpenAI's rule, QuickGELU.
        draw: of such a file: whether start values are drawn before it is read, see `build_model`.

    Returns:
        The model, and a callable from a PIL image to a (3, R, R) float32 tensor normalised with its mean and std.

    Raises:
        ValueError: the name is unknown, the file does not hold a CLIP, or heads and activation fit no such CLIP.
        FileNotFoundError: the path does not exist.
        OSError: the download failed.
    """
    if jit:
        raise ValueError("jit is True; it must be False, since models are plain modules here. Leave the argument out.")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if (heads or activation) and _says_all(name):
        raise ValueError(
            f"MODEL.BACKBONE.HEADS and MODEL.BACKBONE.ACTIVATION state what a file leaves open; of {name} both are "
            "known. Leave them out."
        )
    if backbone := find_backbone(name):
        model = backbone.load()
        return model.to(device), _transform(model.preprocessing)
    path = resolve(name, download_root)
    state_dict = read_state_dict(path)
    try:
        model = build_model(state_dict, heads=heads, activation=activation, draw=draw)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return model.to(device), _transform(model.preprocessing)


def resolve(name: str | Path, download_root: str | Path | None = None) -> Path:
    """The weights file of a model's name, fetched if need be, or the path itself.

    Raises:
        ValueError: neither a model's name nor something that looks like a path.
        FileNotFoundError: the path does not exist.
    """
    if backbone := find_backbone(name):
        return backbone.weights_file(download=True)
    if name in _MODELS:
        return _download(_MODELS[name], download_root)
    path = _EMBEDDED.get(name) or Path(name).expanduser()
    if path.is_file():
        return path
    if name in _EMBEDDED or isinstance(name, Path) or _looks_like_path(name):
        whole = [f"{library}:{name}" for config, library in CONFIGS.items() if (path / config).is_file()]
        raise FileNotFoundError(missing_file_message(path) + (f" Or name {' or '.join(whole)}." if whole else ""))
    near = difflib.get_close_matches(name.lower(), [model.lower() for model in available_models()], n=1)
    hint = [f" Did you mean {model}?" for model in available_models() if model.lower() in near]
    raise ValueError(
        f"There is no model {name!r}. Name one of {', '.join(available_models())}, the path of a weights file, or a "
        f"model of another library: open_clip:ARCHITECTURE/TAG, hf:OWNER/NAME.{''.join(hint)}"
    )


def weights_sha256(name: str | Path) -> str | None:
    """The sha256 of the file that `load` reads for a model's name or a path; None where there is no such file.

    Of weights in several files, or with a config beside them that says what they compute, it is the sha256 of the
    digests of all of these: the weights in the order of their names, then the config.
    """
    if name in _MODELS:
        return _MODELS[name].split("/")[-2]  # of a URL, against which `download` has checked the file
    backbone = find_backbone(name)
    path = backbone.weights_file(download=False) if backbone else _EMBEDDED.get(name) or Path(name).expanduser()
    if path is None or not path.is_file():
        return None
    files = parts_of(path) if path.suffix == ".json" else [path]
    files += [config] if backbone and (config := backbone.config_file()) else []
    digests = [_sha256_now(file) for file in files]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def own_preprocessing(name: str | Path) -> Preprocessing | None:
    """How the weights of a model of another library were trained to see images; None of OpenAI's names and of paths."""
    backbone = find_backbone(name)
    return backbone and backbone.preprocessing()


def library_facts(name: str | Path) -> dict[str, str]:
    """What is known of a model of another library: library, version, revision; {} of OpenAI's names and of paths."""
    backbone = find_backbone(name)
    return backbone.facts() if backbone else {}


def weights_warning(name: str | Path, heads: Sequence[int] = (), activation: str = "") -> str:
    """Says, of weights that are neither OpenAI's nor the embedded ones, what is assumed of them; "" of the others.

    Args:
        name, heads, activation: as `load` takes them.
    """
    if backbone := find_backbone(name):
        return backbone.warning
    if weights_sha256(name) is None or _says_all(name):
        return ""
    of_heads = f"heads, {heads[0]} and {heads[1]}, are stated" if heads else f"heads of {HEAD_DIM} are assumed"
    said = f"{activation} is stated, and {of_heads}" if activation else f"QuickGELU is assumed, and {of_heads}"
    said = said if heads or activation else f"QuickGELU and {of_heads}"
    doubt = " Models that were trained with GELU, as most of open_clip's, compute something else."
    return f"The weights {Path(name).name} are not OpenAI's: {said}.{'' if activation else doubt}"


def _says_all(name: str | Path) -> bool:
    """Whether heads and activation are known: of OpenAI's and the embedded weights, and where a config says them."""
    return bool(find_backbone(name)) or weights_sha256(name) in map(weights_sha256, available_models())


def _sha256_now(path: Path) -> str:
    status = path.stat()
    return _sha256_of(path, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@cache
def _sha256_of(path: Path, *status: int) -> str:
    """A file's digest; the same file, by inode, size and times of change, is read once: weights are large."""
    return sha256(path)


def _download(url: str, root: str | Path | None = None) -> Path:
    """What OpenAI's callers give to torch.jit.load, or else to torch.load: the file of an entry of `_MODELS`."""
    return download(url, root) if "://" in url else torch_readable(url, root)


def _looks_like_path(name: str) -> bool:
    if not name.strip():
        return False  # as a path, it would be the current folder
    path = Path(name).expanduser()
    known_suffix = path.suffix.lower() in (".pt", ".pth", ".npz", ".bin", ".ckpt", ".tar", ".safetensors")
    known_folder = path.is_dir() or ("/" in name and path.parent.is_dir())
    return known_suffix or known_folder or name.startswith(("/", "./", "../", "~"))


def _transform(preprocessing: Preprocessing) -> Compose:
    """PIL image -> (3, R, R) float32, normalised."""
    size, mode = preprocessing.size, InterpolationMode(preprocessing.interpolation)
    resize = Resize(size if preprocessing.resize != "squash" else (size, size), interpolation=mode)
    normalize = Normalize(preprocessing.mean, preprocessing.std)
    center = CenterCrop(size) if preprocessing.resize != "hf_crop" else partial(_floor_crop, size=size)
    return Compose([resize, center, _to_rgb, ToTensor(), normalize])


def _floor_crop(image: Image.Image, size: int) -> Image.Image:
    """transformers' centre: half a pixel is rounded down, where torchvision rounds it to the even one."""
    return crop(image, (image.height - size) // 2, (image.width - size) // 2, size, size)


def _to_rgb(image: Image.Image) -> Image.Image:
    return image.convert("RGB")
