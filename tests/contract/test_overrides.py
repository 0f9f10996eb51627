import pytest
from picochat_contract.errors import SpecError
from picochat_contract.overrides import with_setting, with_value


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("base.learning_rate=1e-3", {"base": {"learning_rate": "1e-3"}}),
        ("a.b=[1, 2]", {"a": {"b": [1, 2]}}),
        ("a=", {"a": None}),
        ("a=b=c", {"a": "b=c"}),
    ],
)
def test_a_setting_is_read_as_yaml(setting: str, expected: dict[str, object]) -> None:
    assert with_setting({}, setting) == expected


@pytest.mark.parametrize("setting", ["base.max_steps", "=1", "a..b=1", "base.seed=[1"])
def test_a_setting_that_is_none_is_refused(setting: str) -> None:
    with pytest.raises(SpecError, match="--set"):
        with_setting({}, setting)


def test_sections_are_made_on_the_way_and_the_given_mapping_stays() -> None:
    raw = {"base": {"seed": 1}}
    assert with_value(raw, "base.model.n_layer", 2) == {"base": {"seed": 1, "model": {"n_layer": 2}}}
    assert raw == {"base": {"seed": 1}}


def test_a_value_is_no_section() -> None:
    with pytest.raises(SpecError, match="seed is a value here, not a section"):
        with_value({"base": {"seed": 1}}, "base.seed.x", 1)
