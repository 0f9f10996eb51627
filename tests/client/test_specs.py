import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
from picochat_client import Client
from picochat_client.specs import located_files, read_spec
from picochat_contract.data_configs import CORPUS_SUFFIXES
from picochat_contract.errors import Code, SpecError
from picochat_contract.spec import check_uploadable, parse_mapping

from .fake_server import FakeServer


def write_spec(folder: Path, text: str) -> Path:
    path = folder / "spec.yaml"
    path.write_text(text)
    return path


def sources(prepared: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = prepared["dataset"]["sources"]
    return found


def test_a_spec_without_files_is_sent_as_it_was_written(
    client: Client, server: FakeServer, tmp_path: Path
) -> None:
    prepared = client.prepare_spec(write_spec(tmp_path, "name: x\nscale: demo\nbase: {max_steps: 3}\n"))
    assert prepared == {"name": "x", "scale": "demo", "base": {"max_steps": 3}}
    assert server.requests == []


def test_an_empty_spec_is_the_default_run(client: Client, tmp_path: Path) -> None:
    assert client.prepare_spec(write_spec(tmp_path, "# nothing\n")) == {}


def test_files_are_uploaded_and_named_by_digest(client: Client, server: FakeServer, tmp_path: Path) -> None:
    (tmp_path / "a b.txt").write_text("corpus")
    (tmp_path / "chat.jsonl").write_text("{}")
    spec = write_spec(
        tmp_path,
        """
        dataset:
          sources: [{type: pydoc}, {type: file, path: "a b.txt", label: mine}]
          chat: {type: file, path: chat.jsonl}
          min_score: 10
        """,
    )
    prepared = client.prepare_spec(spec)
    check_uploadable(parse_mapping(prepared))
    digest = hashlib.sha256(b"corpus").hexdigest()
    assert sources(prepared)[0] == {"type": "pydoc"}
    assert sources(prepared)[1] == {"type": "artifact", "digest": digest, "name": "a_b.txt", "label": "mine"}
    assert prepared["dataset"]["chat"]["name"] == "chat.jsonl"
    assert prepared["dataset"]["min_score"] == 10
    assert server.blobs[digest] == b"corpus"


def test_a_folder_means_its_supported_files_in_order(
    client: Client, server: FakeServer, tmp_path: Path
) -> None:
    for name in (
        "b.txt",
        "a/z.md",
        ".git/x.txt",
        "a/.hidden.txt",
        "skip.bin",
        *(f"n{s}" for s in CORPUS_SUFFIXES),
    ):
        file = tmp_path / "docs" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    prepared = client.prepare_spec(write_spec(tmp_path, "dataset: {sources: [{type: file, path: docs}]}"))
    names = [source["name"] for source in sources(prepared)]
    assert names == ["a_z.md", "b.txt", *sorted(f"n{suffix}" for suffix in CORPUS_SUFFIXES)]
    assert len(server.blobs) == len(names)


def test_relative_paths_start_at_the_spec_then_at_the_working_directory(
    client: Client, server: FakeServer, tmp_path: Path
) -> None:
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs" / "near.txt").write_text("near")
    (tmp_path / "far.txt").write_text("far")
    text = "dataset: {sources: [{type: file, path: near.txt}, {type: file, path: far.txt}]}"
    client.prepare_spec(write_spec(tmp_path / "specs", text))
    assert sorted(server.blobs.values()) == [b"far", b"near"]


def test_settings_are_applied_below_the_file_and_read_as_yaml(client: Client, tmp_path: Path) -> None:
    spec = write_spec(tmp_path, "scale: smoke\nbase: {max_steps: 3, seed: 1}\n")
    prepared = client.prepare_spec(spec, ["base.max_steps=7", "gate.profile=none", "report.title=null"])
    assert prepared["base"] == {"max_steps": 7, "seed": 1}
    assert prepared["gate"] == {"profile": "none"}
    assert prepared["report"] == {"title": None}


@pytest.mark.parametrize(
    ("text", "settings", "code", "message"),
    [
        ("bse: {}", [], Code.UNKNOWN_KEY, "did you mean 'base'"),
        ("base: {max_steps: many}", [], Code.INVALID_VALUE, r"base\.max_steps"),
        ("base: {model: {n_embd: 65, n_head: 2}}", [], Code.INVALID_SHAPE, "try n_embd=66"),
        ("base: [", [], Code.NOT_YAML, "line 1"),
        ("- a\n- b\n", [], Code.NOT_YAML, "list"),
        ("", ["base.max_stps=3"], Code.UNKNOWN_KEY, "did you mean 'max_steps'"),
        ("", ["base.max_steps"], Code.INVALID_VALUE, "expected key=value"),
        ("", ["=3"], Code.INVALID_VALUE, "expected key=value"),
        ("", ["base.max_steps=[1"], Code.NOT_YAML, "not valid YAML"),
        ("base: {grad_clip: .inf}", [], Code.INVALID_VALUE, "finite number"),
        ("report: {title: !!binary aGVsbG8=}", [], Code.INVALID_VALUE, "JSON cannot carry"),
        ("dataset: {sources: [{type: file, path: none.txt}]}", [], Code.CORPUS_MISSING, "looked for"),
        ("dataset: {chat: {type: file, path: none.jsonl}}", [], Code.CORPUS_MISSING, r"dataset\.chat"),
        ("dataset: {sources: [{type: file, path: empty}]}", [], Code.CORPUS_MISSING, "holds no"),
        ("dataset: {eval: {type: file, path: empty}}", [], Code.FILE_UNREADABLE, "is a folder"),
        ("dataset: {sources: [{type: file, path: x.bin}]}", [], Code.FILE_UNREADABLE, "should be one of"),
        (
            "dataset: {external: {arc: {type: file, path: none.x}}}",
            [],
            Code.CORPUS_MISSING,
            r"dataset\.external\.arc",
        ),
        (
            "dataset: {preferences: {type: file, path: none.x}}",
            [],
            Code.CORPUS_MISSING,
            r"dataset\.preferences",
        ),
        ("dataset: {pack: none.json}", [], Code.CORPUS_MISSING, r"dataset\.pack: there is no file"),
        ("dataset: {pack: [a]}", [], Code.INVALID_VALUE, r"dataset\.pack: expected the path"),
    ],
)
def test_a_bad_spec_is_refused_before_anything_is_sent(
    client: Client,
    server: FakeServer,
    tmp_path: Path,
    text: str,
    settings: list[str],
    code: Code,
    message: str,
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.bin").write_text("")
    with pytest.raises(SpecError, match=message) as caught:
        client.prepare_spec(write_spec(tmp_path, text), settings)
    assert caught.value.code is code
    assert server.requests == []


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_a_spec_that_cannot_be_read_is_named(client: Client, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "spec.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SpecError, match=r"spec\.yaml") as caught:
        client.prepare_spec(path)
    assert caught.value.code is Code.FILE_UNREADABLE


def test_a_source_that_may_not_be_read_is_file_unreadable(client: Client, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("x")
    (tmp_path / "secret.txt").chmod(0)
    if os.access(tmp_path / "secret.txt", os.R_OK):  # root may read everything
        (tmp_path / "secret.txt").unlink()
        (tmp_path / "secret.txt").symlink_to("/proc/self/mem")
    with pytest.raises(SpecError, match="cannot read") as caught:
        client.prepare_spec(write_spec(tmp_path, "dataset: {sources: [{type: file, path: secret.txt}]}"))
    assert caught.value.code is Code.FILE_UNREADABLE


def test_what_is_said_about_a_source_goes_with_its_uploads(client: Client, tmp_path: Path) -> None:
    for name in ("a.jsonl.gz", "old/b.jsonl", "c.png"):
        (tmp_path / "docs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "docs" / name).write_text(name)
    (tmp_path / "docs/d.txt").symlink_to(tmp_path / "away.txt")
    options = "label: l, license: MIT, weight: 2, text_field: body, max_documents: 5, exclude: [old]"
    spec = write_spec(tmp_path, f"dataset: {{sources: [{{type: file, path: docs, {options}}}]}}")
    read, *left_out = sources(client.prepare_spec(spec))
    said = {"label": "l", "license": "MIT", "weight": 2, "max_documents": 5}
    assert read.items() >= {**said, "name": "a.jsonl.gz", "text_field": "body", "group": "0 docs"}.items()
    assert left_out == [
        {**said, "type": "left_out", "path": "d.txt", "reason": "link_outside_folder"},
        {**said, "type": "left_out", "path": "old/", "reason": "recipe_excluded"},
    ]


def test_uploads_of_a_folder_without_limits_are_sources_of_their_own(client: Client, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/a.txt").write_text("text")
    spec = write_spec(tmp_path, "dataset: {sources: [{type: file, path: docs}]}")
    assert "group" not in sources(client.prepare_spec(spec))[0]


def test_of_many_excluded_files_the_first_hundred_are_listed(client: Client, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    for number in range(103):
        (tmp_path / f"docs/{number:03d}.txt").write_text("text")
    spec = write_spec(
        tmp_path, "dataset: {sources: [{type: file, path: docs, include: ['10*.txt'], exclude: ['101*']}]}"
    )
    found = [source["type"] for source in sources(client.prepare_spec(spec))]
    assert (found.count("artifact"), found.count("left_out")) == (2, 100)


def test_preferences_and_external_benchmarks_are_uploaded(
    client: Client, server: FakeServer, tmp_path: Path
) -> None:
    (tmp_path / "p.jsonl.zst").write_text("p")
    (tmp_path / "mmlu.csv").write_text("m")
    text = """
        dataset:
          preferences: {type: file, path: p.jsonl.zst}
          external: {mmlu: {type: file, path: mmlu.csv}, arc: {type: dataset, name: arc}}
    """
    local = located_files(read_spec(write_spec(tmp_path, text)))["dataset"]
    assert local["preferences"] == {"type": "file", "path": str(tmp_path / "p.jsonl.zst")}
    assert local["external"]["mmlu"]["path"] == str(tmp_path / "mmlu.csv")
    prepared = client.prepare_spec(tmp_path / "spec.yaml")["dataset"]
    assert prepared["preferences"]["name"] == "p.jsonl.zst"
    assert prepared["external"]["mmlu"]["name"] == "mmlu.csv"
    assert prepared["external"]["arc"] == {"type": "dataset", "name": "arc"}
    assert sorted(server.blobs.values()) == [b"m", b"p"]


def test_a_pack_fills_in_what_the_spec_leaves_out(client: Client, tmp_path: Path) -> None:
    for name in ("c.txt", "chat.jsonl", "eval.jsonl", "own.jsonl"):
        (tmp_path / name).write_text(name)
    recipe = '{"sources": ["c.txt", "gone.txt", {"path": "eval.jsonl", "include": false}]}'
    (tmp_path / "recipe.json").write_text(recipe)
    pack = '{"corpus": {"recipe": "recipe.json"}, "chat": "chat.jsonl", "eval": "eval.jsonl"}'
    (tmp_path / "pack.json").write_text(pack)
    text = "dataset: {pack: pack.json, min_score: 9, eval: {type: file, path: own.jsonl}}"
    spec = write_spec(tmp_path, text)
    local = located_files(read_spec(spec))["dataset"]
    assert "pack" not in local
    assert local["chat"]["path"] == str(tmp_path / "chat.jsonl")
    assert local["eval"]["path"] == str(tmp_path / "own.jsonl")
    assert [Path(source["path"]).name for source in local["sources"]] == ["c.txt", "gone.txt", "eval.jsonl"]
    prepared = client.prepare_spec(spec)
    check_uploadable(parse_mapping(prepared))
    assert prepared["dataset"].keys() == {"sources", "chat", "eval", "min_score"}
    assert prepared["dataset"]["eval"]["name"] == "own.jsonl"
    assert [(s["type"], s.get("reason")) for s in sources(prepared)] == [
        ("artifact", None),
        ("left_out", "missing_source"),
        ("left_out", "recipe_excluded"),
    ]


def test_no_pack_is_the_same_as_none(client: Client, tmp_path: Path) -> None:
    spec = write_spec(tmp_path, "dataset: {min_score: 3}")
    assert client.prepare_spec(spec, ["dataset.pack=null"]) == {"dataset": {"min_score": 3}}


@pytest.mark.parametrize("name", ["-dash.txt", ".dot.txt", "h\u00e9.txt", f"{'n' * 240}.txt"])
def test_any_file_name_becomes_one_that_an_artifact_may_have(
    client: Client, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_text("x")
    text = f"dataset: {{sources: [{{type: file, path: {name!r}}}]}}"
    prepared = client.prepare_spec(write_spec(tmp_path, text))
    parse_mapping(prepared)
    assert sources(prepared)[0]["name"].endswith(".txt")
