"""`picochat data init-pack|benchmark-pack|task-pack|slice-pack|stage-pack|skills-corpus|security-pack`."""

import json
from pathlib import Path

import pytest
from picochat_client.packs import dataset_settings
from picochat_client.program import main
from picochat_trainer.tuning.inspect import inspect_file
from picochat_trainer.tuning.rows import read_chat, read_eval

Printed = pytest.CaptureFixture[str]
PLACES = ("Arnau", "Belvec", "Corsin", "Drumol", "Esk", "Fallen", "Gorum", "Halvik")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.txt"
    path.write_text(
        "\n\n".join(
            f"The harbour of {place} was built in {1650 + 7 * n} by workers from the northern valleys. In autumn the "
            f"fishermen of {place} repair {30 + n} wooden boats beside the old customs house. A narrow railway carries "
            f"herring and timber from {place} to the markets inland, and the ledger of the tides stays in its drawer."
            for n, place in enumerate(PLACES)
        )
    )
    return path


@pytest.fixture
def pack(corpus: Path, tmp_path: Path, capsys: Printed) -> Path:
    assert (
        main(["data", "init-pack", "--corpus", str(corpus), "--out", str(tmp_path), "--name", "harbours"])
        == 0
    )
    capsys.readouterr()
    return tmp_path / "dataset_pack.json"


def small(command: str, pack: Path, *more: str) -> list[str]:
    return ["data", command, "--pack", str(pack), "--sft-rows", "64", "--eval-rows", "24", *more]


def test_init_pack_names_the_corpus_and_refuses_to_overwrite(
    corpus: Path, pack: Path, capsys: Printed
) -> None:
    assert json.loads(pack.read_text()) == {"name": "harbours", "corpus": {"input": "corpus.txt"}}
    arguments = ["data", "init-pack", "--corpus", str(corpus), "--out", str(pack)]
    assert main(arguments) == 64
    assert "error [exists]" in capsys.readouterr().err
    assert main([*arguments, "--force", "--license", "MIT", "--description", "Tides."]) == 0
    assert f"replaced {pack}" in capsys.readouterr().out
    assert json.loads(pack.read_text())["license"] == "MIT"


def test_init_pack_makes_starters_and_names_them(corpus: Path, tmp_path: Path, capsys: Printed) -> None:
    arguments = ["data", "init-pack", "--corpus", str(corpus), "--out", str(tmp_path / "new"), "--starters"]
    assert main(arguments) == 0
    assert "chat: 20 rows" in capsys.readouterr().out
    settings = dataset_settings(tmp_path / "new/dataset_pack.json")
    assert settings.keys() == {"sources", "chat", "eval", "preferences"}
    assert len(read_eval(tmp_path / "new/eval_starter.jsonl")) == 24


def test_init_pack_takes_a_recipe_and_refuses_what_is_not_there(
    corpus: Path, tmp_path: Path, capsys: Printed
) -> None:
    recipe = tmp_path / "mix.json"
    recipe.write_text(json.dumps({"sources": [corpus.name]}))
    out = tmp_path / "packs" / "a.json"
    assert main(["data", "init-pack", "--corpus", str(recipe), "--out", str(out)]) == 0
    assert json.loads(out.read_text())["corpus"] == {"recipe": "../mix.json"}
    assert main(["data", "init-pack", "--corpus", str(out), "--out", str(tmp_path / "b")]) == 64
    assert "is a dataset pack itself" in capsys.readouterr().err
    assert main(["data", "init-pack", "--corpus", "nowhere", "--out", str(tmp_path / "b")]) == 64
    assert "error [corpus_missing]" in capsys.readouterr().err


def test_benchmark_pack_writes_ready_rows_and_promotes_them(pack: Path, capsys: Printed) -> None:
    assert main(small("benchmark-pack", pack)) == 0
    shown = capsys.readouterr().out
    assert "SFT rows ready\neval items ready\nhonesty ready" in shown
    assert json.loads(pack.read_text())["chat"] == "chat_benchmark.jsonl"
    assert len(read_chat(pack.with_name("chat_benchmark.jsonl"))) == 64
    assert inspect_file(pack.with_name("eval_benchmark.jsonl")).status == "ready"
    page = pack.with_name("benchmark_tuning_pack.md").read_text()
    assert "| release skills | MIT | 48 | 18 |" in page
    assert "- honesty ready" in page
    assert "| sft_vs_eval | clean | 24 | 0 |" in page
    assert main(small("benchmark-pack", pack)) == 64
    assert "error [exists]" in capsys.readouterr().err
    assert main(small("benchmark-pack", pack, "--force")) == 0
    assert "replaced" in capsys.readouterr().out


def test_benchmark_pack_leaves_the_pack_alone_where_asked_to(pack: Path, tmp_path: Path) -> None:
    before = pack.read_text()
    more = ["--no-promote", "--chat-out", str(tmp_path / "c.jsonl"), "--eval-out", str(tmp_path / "e.jsonl")]
    assert main(small("benchmark-pack", pack, "--profile", "behavior", *more)) == 0
    assert pack.read_text() == before
    assert {row.skill for row in read_chat(tmp_path / "c.jsonl")} == {"identity", "refusal"}


def test_rows_over_the_budget_are_left_out(pack: Path) -> None:
    assert main(small("benchmark-pack", pack, "--max-row-chars", "150")) == 0
    rows = read_chat(pack.with_name("chat_benchmark.jsonl"))
    about = [row for row in rows if row.provenance == "own corpus"]
    assert len(rows) == 64
    assert all(len(row.user) + len(row.assistant) <= 150 for row in about)


def test_auto_says_in_the_report_why_it_is_offline(pack: Path) -> None:
    copies = [f"{name}=/nowhere" for name in ("smoltalk", "mmlu", "gsm8k", "arc")]
    more = [part for copy in copies for part in ("--local-copy", copy)]
    assert main(small("benchmark-pack", pack, "--source", "auto", *more)) == 0
    page = pack.with_name("benchmark_tuning_pack.md").read_text()
    assert "- note: no rows of the hub, offline rows instead: cannot open" in page


def test_an_unknown_local_copy_is_refused(pack: Path, capsys: Printed) -> None:
    assert main(small("benchmark-pack", pack, "--local-copy", "piqa=/tmp")) == 64
    assert "expected NAME=VALUE with a name of smoltalk" in capsys.readouterr().err


def test_a_leak_into_the_preferences_blocks_the_writing(pack: Path, tmp_path: Path, capsys: Printed) -> None:
    assert main(small("benchmark-pack", pack)) == 0
    asked = read_eval(pack.with_name("eval_benchmark.jsonl"))[0].user
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text(json.dumps({"prompt": asked, "chosen": "One.", "rejected": "Two."}) + "\n")
    pack.write_text(json.dumps({"corpus": "corpus.txt", "preferences": "pairs.jsonl"}))
    out = ["--chat-out", str(tmp_path / "c.jsonl"), "--eval-out", str(tmp_path / "e.jsonl"), "--force"]
    capsys.readouterr()
    assert main(small("benchmark-pack", pack, *out)) == 2
    shown = capsys.readouterr().out
    assert "nothing was written" in shown
    assert "is also the prompt of preferences:1" in shown
    assert not (tmp_path / "c.jsonl").exists()
    assert "chat" not in json.loads(pack.read_text())


def test_task_pack_tags_rows_and_weighs_components(pack: Path, tmp_path: Path) -> None:
    assert main(small("task-pack", pack, "--out-dir", str(tmp_path / "mix"))) == 0
    rows = read_chat(tmp_path / "mix/chat_mixture_capability.jsonl")
    assert {row.mixture_profile for row in rows} == {"capability"}
    assert {row.answer_style for row in rows} == {"scratchpad"}
    page = (tmp_path / "mix/task_mixture_capability.md").read_text()
    assert "| weak_skills | 0.72 | 46 | 17 |" in page
    assert "| release_behavior | 0.28 | 18 | 7 |" in page
    assert json.loads(pack.read_text())["eval"] == "mix/eval_mixture_capability.jsonl"


def test_slices_and_stages_of_a_task_pack(pack: Path, tmp_path: Path, capsys: Printed) -> None:
    assert main(small("task-pack", pack, "--profile", "release_skills")) == 0
    arguments = ["data", "slice-pack", "--pack", str(pack), "--out-dir", str(tmp_path / "part")]
    assert main(arguments) == 64
    assert "give --include-categories" in capsys.readouterr().err
    arguments += [
        "--include-categories",
        "bench_math_*, identity_*",
        "--exclude-categories",
        "bench_math_l4_*",
    ]
    assert main(arguments) == 0
    assert {row.skill for row in read_chat(tmp_path / "part/chat.jsonl")} == {"math", "identity"}
    assert main(arguments) == 64
    assert "error [exists]" in capsys.readouterr().err
    stages = ["data", "stage-pack", "--pack", str(pack), "--out-dir", str(tmp_path / "stages")]
    assert main([*stages, "--stages", "l1_*+l2_*,refusal"]) == 0
    folders = sorted(path.name for path in (tmp_path / "stages").iterdir())
    assert folders == ["01_l1___l2", "02_refusal"]
    assert dataset_settings(tmp_path / "stages/02_refusal/dataset_pack.json")["chat"]["path"].endswith(
        "chat.jsonl"
    )


def test_skills_corpus_writes_drills_report_and_recipe(corpus: Path, tmp_path: Path, capsys: Printed) -> None:
    sizes = ["--math-rows", "80", "--spelling-rows", "40", "--choice-rows", "20"]
    arguments = ["data", "skills-corpus", "--out", str(tmp_path / "skills.txt"), *sizes]
    assert main([*arguments, "--base-corpus", str(corpus)]) == 64
    mix = ["--base-corpus", str(corpus), "--recipe-out", str(tmp_path / "mix.json"), "--skills-weight", "2"]
    assert main([*arguments, *mix]) == 0
    assert "0 of 2,000 eval items are in the drills" in capsys.readouterr().out
    assert "- math drills: 80" in (tmp_path / "skills.md").read_text()
    assert [Path(s["path"]).name for s in dataset_settings(tmp_path / "mix.json")["sources"]] == [
        "corpus.txt",
        "skills_documents",
    ]
    assert main(arguments) == 64
    assert "error [exists]" in capsys.readouterr().err


def test_security_pack_is_ready_and_complete(tmp_path: Path, capsys: Printed) -> None:
    out = tmp_path / "security"
    assert main(["data", "security-pack", "--out-dir", str(out)]) == 0
    assert "24 of 500 eval items" in capsys.readouterr().out
    report = json.loads((out / "security_pack_report.json").read_text())
    assert (report["chat_status"], report["eval_status"], report["honesty"]["status"]) == ("ready",) * 3
    assert sum(report["eval_rules"].values()) >= report["num_eval"]
    settings = dataset_settings(out / "dataset_pack.json")
    assert settings["sources"][0]["license"] == "MIT"
    assert settings.keys() == {"sources", "chat", "eval", "preferences"}
    assert main(["data", "security-pack", "--out-dir", str(out)]) == 64
    assert main(["data", "security-pack", "--out-dir", str(out), "--force", "--preference-rows", "0"]) == 0
    assert "preferences" not in dataset_settings(out / "dataset_pack.json")


def test_security_pack_wants_a_corpus_that_is_not_its_rows(tmp_path: Path, capsys: Printed) -> None:
    arguments = ["data", "security-pack", "--out-dir", str(tmp_path / "out"), "--seed-dir", str(tmp_path)]
    assert main(arguments) == 64
    assert "give --corpus" in capsys.readouterr().err
