"""Drills for base training: nothing of the eval side is in them, by key, by text and by the contamination engine."""

import random
import re
from itertools import islice
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from picochat_client.packs import dataset_settings
from picochat_contract.errors import Code, ContractError
from picochat_trainer.data.normalize import normal_form
from picochat_trainer.tuning.packs import drills as drills_module
from picochat_trainer.tuning.packs.drills import DRILLS, Drill, take_drills
from picochat_trainer.tuning.packs.skills_corpus import (
    DrillDocument,
    drill_documents,
    eval_items_to_look_for,
    find_items,
    write_recipe,
    write_shards,
)
from picochat_trainer.tuning.release_skills import generate_eval, generate_sft
from picochat_trainer.tuning.skills import arithmetic, choice, spelling
from picochat_trainer.tuning.skills.question import Side, side_of

NUM = 3_000


@pytest.fixture(scope="module")
def drills() -> dict[str, list[Drill]]:
    return {skill: take_drills(skill, NUM, seed=5) for skill in DRILLS}


def test_drills_are_as_many_as_asked_for_and_all_different(drills: dict[str, list[Drill]]) -> None:
    assert all(len({drill.text for drill in found}) == NUM for found in drills.values())


def test_no_number_pair_of_the_eval_is_shown_in_any_order(drills: dict[str, list[Drill]]) -> None:
    for drill in drills["math"]:
        assert all(side_of(pair) is Side.SFT for pair in drill.keys)
        for a, sign, b, result in re.findall(r"(\d+) ([-+*]) (\d+) = (\d+)", drill.text):
            first, second = sorted((int(b), int(result)) if sign == "-" else (int(a), int(b)))
            assert side_of(f"{first},{second}") is Side.SFT, drill.text


def test_every_number_of_a_drill_without_a_working_is_of_its_pair(drills: dict[str, list[Drill]]) -> None:
    single = [drill for drill in drills["math"] if len(drill.keys) == 1]
    assert len(single) > NUM / 3
    for drill in single:
        first, second = map(int, drill.keys[0].split(","))
        numbers = set(map(int, re.findall(r"\d+", drill.text)))
        assert numbers <= {first, second, first + second, first * second}


def test_sums_are_right(drills: dict[str, list[Drill]]) -> None:
    found = [
        part for drill in drills["math"] for part in re.findall(r"(\d+) ([-+*]) (\d+) = (\d+)", drill.text)
    ]
    assert len(found) > NUM / 2
    for a, sign, b, result in found:
        assert {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b)}[sign] == int(result)


def test_no_word_of_the_eval_nor_its_reverse_is_shown(drills: dict[str, list[Drill]]) -> None:
    asked = {word for _, word in islice(spelling.words(Side.EVAL, random.Random(0)), 4_000)}
    shown = {drill.keys[0] for drill in drills["spelling"]}
    assert len(shown) == NUM
    assert not shown & asked
    assert not {word[::-1] for word in shown} & asked
    spaced = {" ".join(word) for word in asked}
    pieces = {piece for drill in drills["spelling"] for piece in re.findall(r"\b\w(?: \w)+\b", drill.text)}
    assert not pieces & spaced


def test_no_fact_or_compared_number_of_the_eval_is_shown(drills: dict[str, list[Drill]]) -> None:
    facts = {
        f"{relation.name} {thing}" for relation in choice.RELATIONS for thing in relation.facts[Side.EVAL]
    }
    numbers = {f"choice {number}" for number in choice.numbers_of(Side.EVAL)}
    shown = {key for drill in drills["choice"] for key in drill.keys}
    assert len(shown) > 200
    assert not shown & (facts | numbers)


def pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\\{\w+\\\}", r"[\\w ]+?", re.escape(template)))


def test_no_template_of_the_eval_is_used(drills: dict[str, list[Drill]]) -> None:
    templates = [
        *(t for table in arithmetic.TEMPLATES.values() for t in table[Side.EVAL]),
        *(t for table in spelling.TEMPLATES.values() for t in table[Side.EVAL]),
        *(t for relation in choice.RELATIONS for t in relation.templates[Side.EVAL]),
        *(text for _, text in choice.NUMBER_TEMPLATES[Side.EVAL]),
    ]
    text = "\n".join(drill.text for found in drills.values() for drill in found)
    assert [template for template in templates if pattern(template).search(text)] == []


def test_no_drill_is_the_prompt_of_a_chat_row(drills: dict[str, list[Drill]]) -> None:
    prompts = {normal_form(row.user) for row in generate_sft(2_000, seed=5)}
    texts = [normal_form(drill.text) for found in drills.values() for drill in found]
    assert not prompts & set(texts)


def test_the_engine_finds_no_eval_item_in_the_documents() -> None:
    documents = drill_documents({"math": NUM, "spelling": NUM, "choice": 500}, seed=5)
    pair = find_items(documents, eval_items_to_look_for(5))
    assert pair.num_places > 300
    assert pair.risk in ("clean", "low")
    assert [item.text for item in pair.contaminated] == []


def test_the_engine_would_find_one() -> None:
    item = generate_eval(60, seed=5, shares={"choice": 1.0})[0]
    leaked = DrillDocument(label="leak", text=f"Some lines.\n{item.user}\nAnswer: {item.correct_choice}")
    documents = [*drill_documents({"math": 100}, seed=5), leaked]
    pair = find_items(documents, [item])
    assert [found.key for found in pair.contaminated] == ["eval:1"]


def test_documents_hold_several_drills_of_one_skill() -> None:
    documents = drill_documents({"math": 40, "choice": 20}, seed=1)
    assert sorted(document.label for document in documents) == ["choice drills"] * 2 + ["math drills"] * 3
    assert max(document.text.count("\n") for document in documents if "math" in document.label) == 15
    assert drill_documents({"math": 40, "choice": 20}, seed=1) == documents


def test_more_drills_than_there_are_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    few = [Drill(text=f"{n} + 0 = {n}", keys=()) for n in (1, 2, 2)]
    monkeypatch.setattr(drills_module, "DRILLS", {"math": lambda _: iter(few)})
    with pytest.raises(
        ContractError, match="only 2 different math drills, 3 are wanted; lower --math-rows"
    ) as caught:
        take_drills("math", 3, seed=1)
    assert caught.value.code is Code.INVALID_VALUE


def test_shards_replace_those_before_and_hold_a_record_per_document(tmp_path: Path) -> None:
    folder = tmp_path / "documents"
    documents = drill_documents({"math": 80}, seed=1)
    assert write_shards(documents, folder, 1) == 5
    assert write_shards(documents, folder, 2) == 3
    assert sorted(path.name for path in tmp_path.rglob("*.parquet")) == [
        f"shard-00000{n}.parquet" for n in range(3)
    ]
    rows = pq.read_table(folder / "shard-000001.parquet").to_pylist()
    assert [row["row"] for row in rows] == [2, 3]
    assert rows[0]["text"] == documents[2].text


def test_a_recipe_mixes_text_or_another_recipe_with_the_drills(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base/a.txt").write_text("text")
    (tmp_path / "base/mix.json").write_text('{"sources": [{"path": "a.txt", "weight": 2}]}')
    write_shards(drill_documents({"math": 20}, seed=1), tmp_path / "drills", 10)
    for base in (tmp_path / "base/a.txt", tmp_path / "base/mix.json"):
        write_recipe(tmp_path / "out/recipe.json", base, tmp_path / "drills", 3.0)
        sources = dataset_settings(tmp_path / "out/recipe.json")["sources"]
        assert [Path(source["path"]).name for source in sources] == ["a.txt", "drills"]
        assert all(Path(source["path"]).exists() for source in sources)
        assert sources[1]["weight"] == 3.0
    assert sources[0]["weight"] == 2
