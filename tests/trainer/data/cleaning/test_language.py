"""The language filter: right on plain sentences, unsure without letters, clear about what it cannot know."""

import sys

import pytest
from picochat_contract.errors import Code, ContractError
from picochat_trainer.data.cleaning import language
from picochat_trainer.data.cleaning.language import check_languages, language_of


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("The committee met on Tuesday and agreed on a new plan for the harbour.", "en"),
        ("Der Ausschuss traf sich am Dienstag und einigte sich auf einen neuen Plan.", "de"),
        ("Le comit\u00e9 s'est r\u00e9uni mardi et a adopt\u00e9 un nouveau plan pour le port.", "fr"),
        ("\u6771\u4eac\u306f\u65e5\u672c\u306e\u9996\u90fd\u3067\u3059\u3002", "ja"),
    ],
)
def test_plain_sentences_are_recognised(text: str, code: str) -> None:
    found, probability = language_of(text)
    assert found == code
    assert probability > 0.5


def test_numbers_are_of_no_sure_language() -> None:
    assert language_of("12 + 34 = 46")[1] < 0.5


def test_a_long_text_is_judged_by_its_beginning_and_middle() -> None:
    german = "Der Ausschuss traf sich am Dienstag und einigte sich auf einen neuen Plan. " * 200
    assert language_of("x " * 50 + german)[0] == "de"


def test_an_unknown_code_is_refused() -> None:
    with pytest.raises(ContractError, match="tlh cannot be recognised") as caught:
        check_languages(["en", "tlh"])
    assert caught.value.code is Code.INVALID_VALUE


def test_without_the_library_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    language._identifier.cache_clear()
    with pytest.raises(ContractError, match=r"picochat\[filters\]"):
        check_languages(["en"])
    language._identifier.cache_clear()
