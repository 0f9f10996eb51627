"""Dataset packs and corpus recipes as values."""

from typing import Any

import pytest
from picochat_contract.data_configs import split_suffix
from picochat_contract.errors import Code, SpecError
from picochat_contract.packs import CorpusRecipe, DatasetPack, PackCorpus, parse_dataset_file


def test_a_corpus_may_be_a_path_or_an_object() -> None:
    for corpus in ("c.txt", {"input": "c.txt"}):
        pack = parse_dataset_file({"corpus": corpus, "chat_input": "a.jsonl", "eval": "b.jsonl"})
        assert isinstance(pack, DatasetPack)
        assert (pack.corpus, pack.chat, pack.eval) == (PackCorpus(input="c.txt"), "a.jsonl", "b.jsonl")


def test_a_source_of_a_recipe_may_be_a_path_or_an_object() -> None:
    recipe = parse_dataset_file({"sources": ["a.txt", {"path": "b", "include": ["*.md"], "weight": 0.5}]})
    assert isinstance(recipe, CorpusRecipe)
    assert [(s.path, s.include, s.weight) for s in recipe.sources] == [
        ("a.txt", True, 1.0),
        ("b", ("*.md",), 0.5),
    ]


@pytest.mark.parametrize(
    ("raw", "code", "message"),
    [
        (
            {"corpus": {"input": "a", "recipe": "b"}},
            Code.INVALID_VALUE,
            "corpus: give exactly one of input and",
        ),
        ({"corpus": {}}, Code.INVALID_VALUE, "corpus: give exactly one"),
        (
            {"corpus": "a", "chat": "x", "chat_input": "y"},
            Code.INVALID_VALUE,
            "chat and chat_input are one key",
        ),
        ({"corpus": "a", "chat": "x"}, Code.INVALID_VALUE, "gives chat but no eval"),
        ({"corpus": "a", "eval": "x"}, Code.INVALID_VALUE, "gives eval but no chat"),
        (
            {"corpus": "a", "licence": "MIT"},
            Code.UNKNOWN_KEY,
            "unknown key 'licence'; did you mean 'license'",
        ),
        ({"corpus": {"imput": "a"}}, Code.UNKNOWN_KEY, r"unknown key 'corpus\.imput'; did you mean 'input'"),
        ({"corpus": 3}, Code.INVALID_VALUE, "corpus: "),
        (
            {"corpse": "a"},
            Code.INVALID_VALUE,
            "expected the key corpus .* or sources .*; its keys are: corpse",
        ),
        ({}, Code.INVALID_VALUE, "its keys are: none"),
        ({"sources": []}, Code.INVALID_VALUE, "sources"),
        ({"sources": "a.txt"}, Code.INVALID_VALUE, "sources"),
        (
            {"sources": [{"path": "a", "wieght": 2}]},
            Code.UNKNOWN_KEY,
            r"'sources\.0\.wieght'; did you mean 'weight'",
        ),
        ({"sources": [{"path": "a", "weight": 0}]}, Code.INVALID_VALUE, r"sources\.0\.weight"),
        (
            {"sources": [{"path": "a", "include": "*.md"}]},
            Code.INVALID_VALUE,
            r"sources\.0\.include: expected true, false or a list of globs; got '\*\.md'",
        ),
        (
            {"sources": [{"path": "a", "exclude": ["x", "[z-a].md"]}]},
            Code.INVALID_VALUE,
            r"sources\.0\.exclude\.1: '\[z-a\]\.md' is no glob: bad character range z-a",
        ),
        ({"sources": ["a"], "exclude": ["[z-a]"]}, Code.INVALID_VALUE, r"exclude\.0: '\[z-a\]' is no glob"),
        (
            {"corpus": "a", "external": {"../x": "b"}},
            Code.INVALID_VALUE,
            r"external: '\.\./x': expected a name of letters",
        ),
    ],
)
def test_what_is_wrong_is_named_by_its_key(raw: dict[str, Any], code: Code, message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        parse_dataset_file(raw)
    assert caught.value.code is code


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.TXT", (".txt", "")),
        ("v1.2.jsonl.GZ", (".jsonl", ".gz")),
        ("a.tar.zst", (".tar", ".zst")),
        ("notes.gz", (".gz", "")),
        ("notes", ("", "")),
    ],
)
def test_a_file_name_says_kind_and_compression(name: str, expected: tuple[str, str]) -> None:
    assert split_suffix(name) == expected
