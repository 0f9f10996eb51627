"""Dataset packs and corpus recipes on disk."""

import json
from pathlib import Path
from typing import Any

import pytest
from picochat_client.packs import dataset_settings
from picochat_contract.data_configs import DatasetConfig
from picochat_contract.errors import Code, SpecError

EXAMPLES = Path(__file__).parents[2] / "examples"


def write_json(folder: Path, name: str, value: Any) -> Path:
    path = folder / name
    path.write_text(json.dumps(value))
    return path


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_text("x")


def test_the_paths_of_a_pack_start_at_its_folder(tmp_path: Path) -> None:
    touch(tmp_path, "c.txt", "chat.jsonl", "eval.jsonl", "pref.jsonl", "arc.jsonl")
    pack = {"corpus": "c.txt", "chat": "chat.jsonl", "eval": "eval.jsonl", "preferences": "pref.jsonl"}
    path = write_json(tmp_path, "pack.json", {**pack, "external": {"arc": "arc.jsonl"}, "license": "MIT"})
    settings = dataset_settings(path)
    assert settings == {
        "sources": [{"type": "file", "path": str(tmp_path / "c.txt"), "license": "MIT"}],
        "chat": {"type": "file", "path": str(tmp_path / "chat.jsonl")},
        "eval": {"type": "file", "path": str(tmp_path / "eval.jsonl")},
        "preferences": {"type": "file", "path": str(tmp_path / "pref.jsonl")},
        "external": {"arc": {"type": "file", "path": str(tmp_path / "arc.jsonl")}},
    }
    DatasetConfig.model_validate(settings)


def test_a_recipe_keeps_its_options_and_lists_what_it_leaves_out(tmp_path: Path) -> None:
    source = {
        "path": "b",
        "label": "b",
        "weight": 0.5,
        "exclude": ["x"],
        "text_field": "t",
        "max_documents": 9,
    }
    sources = ["a", source, {"path": "c", "include": False, "reason": "old", "license": "CC0-1.0"}]
    (tmp_path / "mix").mkdir()
    recipe = write_json(tmp_path / "mix", "recipe.json", {"sources": sources, "exclude": ["log.md"]})
    pack = write_json(tmp_path, "pack.yaml", {"corpus": {"recipe": "mix/recipe.json"}, "license": "MIT"})
    config = DatasetConfig.model_validate(dataset_settings(pack))
    found = [given.model_dump(exclude_defaults=True) for given in config.sources]
    base = {"type": "file", "optional": True, "license": "MIT"}
    assert found == [
        {**base, "path": str(tmp_path / "mix/a"), "exclude": ("log.md",)},
        {**base, **source, "path": str(tmp_path / "mix/b"), "exclude": ("x", "log.md")},
        {**base, "path": str(tmp_path / "mix/c"), "license": "CC0-1.0", "exclude": ("**",), "reason": "old"},
    ]
    assert dataset_settings(recipe)["sources"][0].get("license") is None


@pytest.mark.parametrize("name", ["tiny_dataset_pack.json", "tiny_recipe.json"])
def test_the_examples_name_files_that_are_there(name: str) -> None:
    config = DatasetConfig.model_validate(dataset_settings(EXAMPLES / name))
    assert all(Path(source.path).exists() for source in config.sources if source.type == "file")


@pytest.mark.parametrize(
    ("content", "code", "message"),
    [
        (None, Code.FILE_UNREADABLE, "cannot read the dataset pack .*: No such file"),
        (b"\xff", Code.FILE_UNREADABLE, "not UTF-8"),
        (b"{", Code.NOT_YAML, r"pack\.json: .*not valid YAML"),
        (b"[]", Code.NOT_YAML, r"pack\.json: "),
        (b'{"corpus": "none.txt"}', Code.CORPUS_MISSING, r"corpus\.input: there is no file or folder"),
        (b'{"corpus": {"recipe": "none.json"}}', Code.CORPUS_MISSING, r"corpus\.recipe: there is no"),
        (
            b'{"corpus": {"recipe": "pack.json"}}',
            Code.INVALID_VALUE,
            "is a dataset pack; expected a corpus recipe",
        ),
        (b'{"corpus": "~nobody-of-this-name/a"}', Code.CORPUS_MISSING, r"there is no file .*~nobody"),
        (b'{"corpus": "a", "corpus": "b"}', Code.NOT_YAML, r"pack\.json: .*'corpus' is given twice"),
        (b"[]", Code.NOT_YAML, r"pack\.json: a dataset pack or recipe is a mapping"),
        (b'{"corpus": "pack.json", "chat": "c", "eval": "e"}', Code.CORPUS_MISSING, r"chat: there is no"),
        (
            b'{"corpus": "pack.json", "external": {"arc": "a"}}',
            Code.CORPUS_MISSING,
            r"external\.arc: there is no",
        ),
        (
            b'{"corpus": "pack.json", "evla": "x"}',
            Code.UNKNOWN_KEY,
            r"pack\.json: unknown key 'evla'.*'eval'",
        ),
    ],
)
def test_a_bad_pack_is_named_with_its_key(
    tmp_path: Path, content: bytes | None, code: Code, message: str
) -> None:
    path = tmp_path / "pack.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SpecError, match=message) as caught:
        dataset_settings(path)
    assert caught.value.code is code
