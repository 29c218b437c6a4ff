"""Tiny models of transformers with random weights, their tokenizers and processors, saved as it saves them."""

import gzip
import io
import json
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

import torch

WORDS = """a photo of a cat and a dog. a drawing of the sea, with ships on it. an airplane in the sky.
the name of the flower is rose. x y z. a picture of a big house in the city, and one of a small house."""
SIDE = 32


def save_clip(
    folder: Path, *, family="CLIP", activation="quick_gelu", heads=2, width=32, eos=49407, text=None, vision=None
) -> Path:
    """Saves a CLIPModel, its tokenizer and processor.

    Args:
        family: What the library's classes begin with, CLIP or MetaClip2.
        activation: Of both towers.
        heads, width: Of both towers.
        eos: eos_token_id of the text tower; 2 is that of old configs.
        text, vision: More of the towers' configs.
    """
    import transformers

    tower = {"hidden_size": width, "num_attention_heads": heads, "num_hidden_layers": 2, "intermediate_size": 48}
    tower |= {"hidden_act": activation, "projection_dim": 24}
    ids = {"bos_token_id": 49406, "eos_token_id": eos}
    config = getattr(transformers, f"{family}Config")(
        text_config=tower | ids | (text or {}),
        vision_config=tower | {"image_size": SIDE, "patch_size": 8} | (vision or {}),
        projection_dim=24,
    )
    save(getattr(transformers, f"{family}Model")(config), folder)
    transformers.CLIPTokenizer(vocab=clip_vocabulary()[0], merges=clip_vocabulary()[1]).save_pretrained(folder)
    sizes = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
    transformers.CLIPImageProcessorPil(**sizes).save_pretrained(folder)
    return folder


def save_siglip(folder: Path, *, version=1, **vision) -> Path:
    """Saves a SiglipModel, a small tokenizer as those of SigLIP 1 or 2, and its processor."""
    import transformers

    folder.mkdir(parents=True, exist_ok=True)
    (save_sentencepiece if version == 1 else save_gemma)(folder)
    tower = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 40}
    config = transformers.SiglipConfig(
        text_config=tower | {"vocab_size": 80, "max_position_embeddings": 24, "projection_size": 32},
        vision_config=tower | {"image_size": SIDE, "patch_size": 8} | vision,
    )
    save(transformers.SiglipModel(config), folder)
    transformers.SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    return folder


def save_sentencepiece(folder: Path) -> None:
    import sentencepiece
    import transformers

    pieces = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(WORDS.replace(".", "").replace(",", "").splitlines()),
        model_writer=pieces,
        vocab_size=64,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        user_defined_symbols=["\u2581x"],
        minloglevel=2,
    )
    (folder / "spiece.model").write_bytes(pieces.getvalue())
    transformers.SiglipTokenizer(str(folder / "spiece.model")).save_pretrained(folder)


def save_gemma(folder: Path) -> None:
    """Of one with which a word has other tokens at the start of a text than behind a space."""
    from transformers.models.siglip2 import Siglip2Tokenizer

    merges = [("c", "a"), ("ca", "t"), ("\u2581", "cat"), ("\u2581", "x"), ("\u2581", "r"), ("o", "s"), ("os", "e")]
    merges += [("\u2581r", "ose")]
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *"abcdefghijklmnopqrstuvwxyz.\u2581", *map("".join, merges)]
    ids = {token: i for i, token in enumerate(tokens)}
    options = {"padding_side": "right", "add_bos_token": False, "add_eos_token": True}
    Siglip2Tokenizer(vocab=ids, merges=merges, **options).save_pretrained(folder)


def save(model: torch.nn.Module, folder: Path, **options) -> None:
    """Draws all weights far from their start values, which are small or zero, and saves them."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in model.named_parameters():
            noise = torch.randn(value.shape, generator=generator)
            is_norm = "norm" in name and name.endswith("weight")
            scale = 0.2 if value.dim() < 2 else value[0].numel() ** -0.5
            value.copy_(1 + 0.1 * noise if is_norm else scale * noise)
        model.logit_scale.fill_(2.3)
    model.save_pretrained(folder, **options)


@lru_cache
def clip_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """OpenAI's vocabulary and merges, by the rule of its byte-pair file: bytes, bytes at a word's end, merges."""
    packed = files("clip").joinpath("bpe_simple_vocab_16e6.txt.gz").read_bytes()
    merges = [tuple(line.split()) for line in gzip.decompress(packed).decode().split("\n")[1 : 49152 - 256 - 2 + 1]]
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    symbols = [chr(byte) for byte in printable] + [chr(256 + i) for i in range(256 - len(printable))]
    tokens = [*symbols, *(f"{symbol}</w>" for symbol in symbols), *map("".join, merges)]
    return {token: i for i, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}, merges


def change(folder: Path, name: str, **fields) -> None:
    """Changes fields of a JSON file in a folder; text_config__hidden_act is one inside another."""
    content = json.loads((folder / name).read_text())
    for key, value in fields.items():
        *parents, last = key.split("__")
        node = content
        for parent in parents:
            node = node[parent]
        node[last] = value
    (folder / name).write_text(json.dumps(content))


def save_chinese_clip(folder: Path) -> Path:
    """Saves a ChineseCLIPModel, a BERT tokenizer of a few words and its processor."""
    import transformers

    folder.mkdir(parents=True, exist_ok=True)
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "x"]
    (folder / "vocab.txt").write_text("\n".join([*marks, *sorted(set(WORDS.replace(".", " .").split()) - {"x"})]))
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    tower = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 48}
    config = transformers.ChineseCLIPConfig(
        text_config=tower | {"vocab_size": 100},
        vision_config=tower | {"image_size": SIDE, "patch_size": 8},
        projection_dim=24,
    )
    save(transformers.ChineseCLIPModel(config), folder)
    transformers.ChineseCLIPImageProcessorPil(
        size={"height": SIDE, "width": SIDE}, do_center_crop=False
    ).save_pretrained(folder)
    return folder
