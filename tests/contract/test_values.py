"""Digests, fingerprints, intervals, artifact paths: values that both sides of a process boundary must agree on."""

import math
import random

import pytest
from picochat_contract.canonical import canonical_json, digest_of, sha256_hex
from picochat_contract.configs import Resources
from picochat_contract.data_configs import TokenizerConfig
from picochat_contract.errors import Code, ContractError
from picochat_contract.layout import EVIDENCE_PATHS, Kind, check_artifact_path, kind_of
from picochat_contract.manifest import fingerprint
from picochat_contract.stages import STAGES, StageName
from picochat_contract.stats import wilson_interval
from picochat_contract.version import STAGE_CODE


def test_key_order_does_not_change_a_digest() -> None:
    assert digest_of({"a": 1, "b": [2, {"c": "\u00e9"}]}) == digest_of({"b": [2, {"c": "\u00e9"}], "a": 1})


def test_nan_has_no_canonical_form() -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        canonical_json({"x": math.nan})


def test_text_is_hashed_as_utf8() -> None:
    assert sha256_hex("\u00e9") == sha256_hex(b"\xc3\xa9")


def test_a_fingerprint_changes_with_stage_config_inputs_and_code(monkeypatch: pytest.MonkeyPatch) -> None:
    config, inputs, on = TokenizerConfig(), {"corpus.txt": sha256_hex("text")}, Resources()
    first = fingerprint(StageName.TOKENIZER, config, inputs, on)
    others = [
        fingerprint(StageName.DATASET, config, inputs, on),
        fingerprint(StageName.TOKENIZER, TokenizerConfig(vocab_size=999), inputs, on),
        fingerprint(StageName.TOKENIZER, config, {"corpus.txt": sha256_hex("text ")}, on),
        fingerprint(StageName.TOKENIZER, config, {}, on),
    ]
    monkeypatch.setitem(STAGE_CODE, "tokenizer", STAGE_CODE["tokenizer"] + 1)
    others.append(fingerprint(StageName.TOKENIZER, config, inputs, on))
    assert len({first, *others}) == 6


@pytest.mark.parametrize(("stage", "same"), [(StageName.BASE, False), (StageName.EVAL, True)])
def test_more_training_processes_are_another_training(stage: StageName, same: bool) -> None:
    config = STAGES[stage].config()
    one, two = (fingerprint(stage, config, {}, Resources(nproc_per_node=n)) for n in (1, 2))
    assert (one == two) is same


def test_every_stage_has_a_code_version() -> None:
    assert set(STAGE_CODE) == {stage.value for stage in StageName}


@pytest.mark.parametrize(
    ("passed", "total", "low", "high"),
    [
        (0, 0, 0.0, 1.0),
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (5, 10, 0.2366, 0.7634),
        (81, 263, 0.2553, 0.3662),
    ],
)
def test_wilson_intervals_have_their_published_values(
    passed: int, total: int, low: float, high: float
) -> None:
    assert wilson_interval(passed, total) == pytest.approx((low, high), abs=5e-5)


def test_wilson_intervals_hold_the_true_rate_as_often_as_they_say() -> None:
    rng = random.Random(1)
    covered = 0
    for _ in range(2_000):
        passed = sum(rng.random() < 0.3 for _ in range(40))
        low, high = wilson_interval(passed, 40)
        covered += low <= 0.3 <= high
    assert covered / 2_000 == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize("total", [1, 7, 100, 10_000])
def test_wilson_intervals_hold_the_rate_itself(total: int) -> None:
    for passed in range(0, total + 1, max(1, total // 50)):
        low, high = wilson_interval(passed, total)
        assert 0 <= low <= passed / total <= high <= 1


@pytest.mark.parametrize(
    "path",
    ["../x", "a/../b", "/etc/passwd", "a//b", "", ".", "a/.hidden", "a\\b", "a b", "x" * 600, "a/\u00e9"],
)
def test_paths_out_of_the_run_folder_are_refused(path: str) -> None:
    with pytest.raises(ContractError) as caught:
        check_artifact_path(path)
    assert caught.value.code is Code.BAD_ARTIFACT_PATH


@pytest.mark.parametrize("path", [*EVIDENCE_PATHS.values(), "a", "base/best_checkpoint/model.safetensors"])
def test_run_folder_names_are_accepted(path: str) -> None:
    assert check_artifact_path(path) == path


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("corpus.txt", Kind.DATA),
        ("tokenizer.json", Kind.TOKENIZER),
        ("sft/checkpoint/config.json", Kind.CHECKPOINT),
        ("base/kept/step-000500/config.json", Kind.CHECKPOINT),
        ("eval/eval_report.json", Kind.EVIDENCE),
        ("eval/report.md", Kind.REPORT),
        ("base/sample.txt", Kind.SAMPLE),
        ("stages/base/log.txt", Kind.LOG),
    ],
)
def test_a_files_kind_follows_from_its_name(path: str, kind: Kind) -> None:
    assert kind_of(path) is kind
