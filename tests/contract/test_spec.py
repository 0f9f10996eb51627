"""Run specs: every wrong one is named by key, with the nearest right word."""

import json
from typing import Any

import pytest
from picochat_contract.data_configs import TokenizerConfig
from picochat_contract.errors import Code, SpecError
from picochat_contract.overrides import with_setting
from picochat_contract.scales import SCALES
from picochat_contract.spec import (
    RunSpec,
    check_claimable,
    check_uploadable,
    expand,
    json_schema,
    parse_mapping,
    read_mapping,
    stage_needs,
)
from picochat_contract.stages import STAGES, StageName, reads


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("name: [", Code.NOT_YAML, "not valid YAML"),
        ("- a\n- b", Code.NOT_YAML, "this is a list"),
        ("name: a\nname: b", Code.NOT_YAML, "at line 2, column 1: the key 'name' is given twice"),
        ("base: {seed: 1, max_steps: 2, seed: 3}", Code.NOT_YAML, "the key 'seed' is given twice"),
        ('{"name": "a", "name": "b"}', Code.NOT_YAML, "the key 'name' is given twice"),
        ("nmae: x", Code.UNKNOWN_KEY, "did you mean 'name'?"),
        ("dataset: {sft_row: 50}", Code.UNKNOWN_KEY, "did you mean 'sft_rows'?"),
        ("base: {model: {n_layers: 2}}", Code.UNKNOWN_KEY, "did you mean 'n_layer'?"),
        ("dataset: {sources: [{type: file, pth: x}]}", Code.UNKNOWN_KEY, "did you mean 'path'?"),
        ("scale: demoo", Code.INVALID_VALUE, "did you mean 'demo'?"),
        ("name: 'a b'", Code.INVALID_VALUE, "name:"),
        ("base: {max_steps: 0}", Code.INVALID_VALUE, "base.max_steps: "),
        ("base: {learning_rate: .nan}", Code.INVALID_VALUE, "base.learning_rate: "),
        ("gate: {profile: strict}", Code.INVALID_VALUE, "gate.profile: "),
        ("until: deploy", Code.INVALID_VALUE, "until: "),
        ("dataset: {sources: []}", Code.INVALID_VALUE, "dataset.sources: "),
        (
            "dataset: {external: {../arc: {type: file, path: a}}}",
            Code.INVALID_VALUE,
            "dataset.external: '../arc': expected a name of letters",
        ),
        ("scale: [demo]", Code.INVALID_VALUE, "unknown scale ['demo']"),
        ("x: " + "[" * 5000, Code.NOT_YAML, "nested too deeply"),
        ("base: {max_minutes: .inf}", Code.INVALID_VALUE, "base.max_minutes: "),
        ("base: {early_stop_min_delta: .nan}", Code.INVALID_VALUE, "base.early_stop_min_delta: "),
        ("base: {max_steps: 2147483648}", Code.INVALID_VALUE, "base.max_steps: "),
        (f"base: {{device_batch_size: 1{'0' * 400}}}", Code.INVALID_VALUE, "base.device_batch_size: "),
        ("base: {grad_accum_steps: 1048577}", Code.INVALID_VALUE, "base.grad_accum_steps: "),
        ("sft: {device_batch_size: 1048577}", Code.INVALID_VALUE, "sft.device_batch_size: "),
        ("base: {seed: 9223372036854775808}", Code.INVALID_VALUE, "base.seed: "),
        ("eval: {seed: 9223372036854775808}", Code.INVALID_VALUE, "eval.seed: "),
        ("base: {model: {n_embd: 1000000}}", Code.INVALID_VALUE, "base.model.n_embd: "),
        ("{until: gate, gate: {profile: none}}", Code.INVALID_VALUE, "no gate is asked for"),
        ("base: {model: {n_embd: 100, n_head: 3}}", Code.INVALID_SHAPE, "try n_embd=102"),
        ("base: {model: {n_head: 4, n_kv_head: 3}}", Code.INVALID_SHAPE, "multiple of n_kv_head"),
        ("base: {model: {n_embd: 18, n_head: 6}}", Code.INVALID_SHAPE, "must be even"),
    ],
)
def test_a_wrong_spec_has_its_own_code_and_says_what_to_do(text: str, code: Code, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_mapping(read_mapping(text))
    assert caught.value.code is code
    assert words in caught.value.message


def test_an_empty_spec_is_all_defaults() -> None:
    assert parse_mapping(read_mapping("")) == RunSpec()


def test_a_merged_key_may_be_given_again() -> None:
    raw = read_mapping("base: &b {seed: 1}\nsft:\n  <<: *b\n  seed: 2\n")
    assert raw == {"base": {"seed": 1}, "sft": {"seed": 2}}


def test_json_is_read_like_yaml() -> None:
    assert parse_mapping(read_mapping(json.dumps({"name": "x", "until": "base"}))) == parse_mapping(
        read_mapping("name: x\nuntil: base")
    )


@pytest.mark.parametrize("scale", SCALES)
def test_every_scale_is_a_valid_spec(scale: str) -> None:
    assert parse_mapping({"scale": scale}).scale == scale


def test_own_values_win_over_the_scale() -> None:
    spec = parse_mapping({"scale": "smoke", "base": {"model": {"n_layer": 2}}})
    assert (spec.base.model.n_layer, spec.base.model.n_embd) == (
        2,
        SCALES["smoke"]["base"]["model"]["n_embd"],
    )


@pytest.mark.parametrize("key", ["sources", "chat", "eval"])
def test_file_paths_never_come_over_http(key: str) -> None:
    file = {"type": "file", "path": "/etc/passwd"}
    spec = parse_mapping({"dataset": {key: [file] if key == "sources" else file}})
    with pytest.raises(SpecError) as caught:
        check_uploadable(spec)
    assert caught.value.code is Code.SOURCE_NOT_UPLOADED


def test_a_run_on_several_machines_is_for_no_worker() -> None:
    resources = {"nnodes": 2, "nproc_per_node": 8, "rdzv_endpoint": "gpu-1:29500"}
    with pytest.raises(SpecError, match="a worker claims a stage for one machine") as caught:
        check_claimable(parse_mapping({"resources": resources}))
    assert caught.value.param == "resources.nnodes"
    check_claimable(parse_mapping({"resources": {**resources, "nnodes": 1}}))


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "", "a b"])
def test_artifact_names_are_plain_file_names(name: str) -> None:
    source = {"type": "artifact", "digest": "0" * 64, "name": name}
    with pytest.raises(SpecError):
        parse_mapping({"dataset": {"sources": [source]}})


def test_until_leaves_out_what_it_does_not_need() -> None:
    assert set(expand(parse_mapping({"until": "base"}))) == {
        StageName.DATASET,
        StageName.HONESTY,
        StageName.PREFLIGHT,
        StageName.TOKENIZER,
        StageName.BASE,
    }
    assert set(expand(RunSpec())) == set(StageName)


def test_a_run_that_ends_with_preflight_asks_about_the_whole_run() -> None:
    configs = expand(parse_mapping({"until": "preflight"}))
    assert list(configs) == [StageName.DATASET, StageName.HONESTY, StageName.PREFLIGHT]
    plan = getattr(configs[StageName.PREFLIGHT], "plan", None)
    assert plan is not None and set(plan.stages) == {stage.value for stage in StageName}


def test_without_a_gate_there_is_no_verdict_to_report() -> None:
    names = set(expand(parse_mapping({"gate": {"profile": "none"}, "until": "eval"})))
    assert not names & {StageName.GATE, StageName.REPORT}


def test_stages_wait_only_for_stages_of_their_run() -> None:
    spec = parse_mapping({"gate": {"profile": "none"}})
    present = expand(spec)
    for name in present:
        assert set(stage_needs(spec, name)) <= set(present)


def test_every_input_is_written_by_a_stage_before() -> None:
    order = list(STAGES)
    for name, stage in STAGES.items():
        assert all(order.index(need) < order.index(name) for need in stage.needs)


def test_folders_and_files_are_told_apart_as_inputs() -> None:
    assert reads(StageName.SFT, "base/best_checkpoint/model.safetensors")
    assert reads(StageName.GATE, "corpus_manifest.json")
    assert not reads(StageName.SFT, "base/checkpoint/model.safetensors")
    assert not reads(StageName.TOKENIZER, "corpus.txt.bak")


def test_configs_are_frozen() -> None:
    config: Any = TokenizerConfig()
    with pytest.raises(ValueError, match="frozen"):
        config.vocab_size = 1


def test_the_schema_describes_every_key() -> None:
    schema = json_schema()
    assert set(schema["properties"]) == set(RunSpec.model_fields)
    assert "$schema" in schema


@pytest.mark.parametrize(
    ("text", "expected"), [("off", "off"), ("on", "on"), ("no", "off"), ("auto", "auto")]
)
def test_compile_is_understood_though_yaml_reads_on_and_off_as_truth_values(text: str, expected: str) -> None:
    spec = parse_mapping(read_mapping(f"base: {{compile: {text}}}\nsft: {{compile: {text}}}"))
    assert (spec.base.compile, spec.sft.compile) == (expected, expected)
    assert parse_mapping(with_setting({}, f"base.compile={text}")).base.compile == expected
