"""The list of models: true sizes, filters, and the text towers that open_clip's configs really give."""

import json

import pytest

import clip
from clip import models
from clip.models import __main__ as program
from clip.prompts import shares_positions


def listed(capsys, *words):
    code = program.main(list(words))
    return code, capsys.readouterr()


def test_openais_models_have_the_sizes_of_open_clips_configs():
    open_clip = pytest.importorskip("open_clip", reason="open_clip_torch is not installed")
    for name, (_, *sizes) in models.OPENAI.items():
        config = open_clip.get_model_config(name.replace("/", "-").replace("@336px", "-336"))
        assert sizes == [config["vision_cfg"]["image_size"], config["embed_dim"], config["text_cfg"]["width"]]
    assert [*models.OPENAI, "ViT-T/8-shapes"] == clip.available_models()


def test_the_table_lists_every_model_and_fits(capsys):
    open_clip = pytest.importorskip("open_clip", reason="open_clip_torch is not installed")
    code, found = listed(capsys)
    assert code == 0 and max(map(len, found.out.splitlines())) <= 120
    names = [line.split()[0] for line in found.out.split("\n\n")[0].splitlines()[1:]]
    theirs = [f"open_clip:{architecture}/{tag}" for architecture, tag in open_clip.list_pretrained()]
    assert names == [*clip.available_models(), *theirs]
    assert ["ViT-T/8-shapes", "2", "48", "128", "128", "shared"] in [line.split() for line in found.out.splitlines()]


def test_words_filter_and_a_word_that_nothing_holds_is_an_error(capsys):
    _, found = listed(capsys, "l/14", "336")
    assert [line.split()[0] for line in found.out.split("\n\n")[0].splitlines()[1:]] == ["ViT-L/14@336px"]
    code, found = listed(capsys, "vit", "no such")
    assert (code, found.out) == (1, "") and "Error: No model's name holds vit and no such." in found.err


def test_without_the_libraries_the_extras_are_named(capsys, monkeypatch):
    for module in (models, program):
        monkeypatch.setattr(module, "find_spec", lambda name: None)
    code, found = listed(capsys)
    assert code == 0 and "open_clip:" not in found.out.split("\n\n")[0]
    for extra in ("open_clip", "hf"):
        assert f'is not installed: pip install -e ".[{extra}]" adds its models.' in found.out


def test_a_text_tower_is_what_the_loaded_model_shows(tmp_path):
    tiny = pytest.importorskip("tests.support.backbones.tiny_open_clip", reason="open_clip_torch is not installed")
    found, expected = {}, {}
    for kind in ("vit", "not-causal", "first", "clipa", "worldwide", "siglip", "coca", "layer-scale"):
        folder = tiny.write_model(tmp_path / kind, kind)
        config = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
        config["text_cfg"].update({"hf_tokenizer_name": "T5"} if kind == "siglip" else {})
        found[kind] = models.text_tower(config).partition(":")[0]
        model = clip.load(f"open_clip:{folder}", "cpu")[0]
        expected[kind] = "closed" if model.closed else models.SHARED if shares_positions(model) else models.PLAIN
    assert found == expected and set(found.values()) == {"closed", "shared", "plain"}
