"""Personal data is found in the forms that it is written in, and numbers that are none stay as they are."""

import random
import sys
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from picochat_contract.errors import Code, ContractError
from picochat_trainer.data.cleaning import personal_data
from picochat_trainer.data.cleaning.personal_data import (
    PersonalData,
    check_phone_library,
    find_personal_data,
    is_iban,
    is_luhn,
    mask_personal_data,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Write to jane.doe+lists@mail.example.co.uk, please.", "Write to <EMAIL>, please."),
        ("call +44 20 7946 0958 now", "call <PHONE> now"),
        ("+12125550123", "<PHONE>"),
        ("(212) 555-0123 or 415-555-2671.", "<PHONE> or <PHONE>."),
        ("tel:+49 30 901820", "tel:<PHONE>"),
        ("my card 4111111111111111 please", "my card <CARD> please"),
        ("4111 1111 1111 1111", "<CARD>"),
        ("3782-822463-10005", "<CARD>"),
        ("IBAN DE89 3704 0044 0532 0130 00 and", "IBAN <IBAN> and"),
        ("GB29NWBK60161331926819", "<IBAN>"),
        ("host 93.184.216.34, up", "host <IP>, up"),
        ("2001:4860:4860::8888 answers", "<IP> answers"),
        ("\u00e9 \u6771 a.b@example.org \U0001f600 +12125550123", "\u00e9 \u6771 <EMAIL> \U0001f600 <PHONE>"),
    ],
)
def test_each_kind_is_masked(text: str, expected: str) -> None:
    assert mask_personal_data(text)[0] == expected


@pytest.mark.parametrize(
    "text",
    [
        "12 + 34 = 46 and 4111111111111111 + 1 = 4111111111111112",
        "x = 4111111111111111 - y",
        "my card 4111111111111112 please",  # the check sum is wrong
        "4111 1111 1111 1112",
        "card sales 2024, 4111111111111111",  # a column of numbers
        "12 4111 1111 1111 1111",
        "1234 5678 9012 3456 7890 in a table",
        "the sum 20 +442079460958 is large",
        "version 10.14.12.3 and section 1.2.3.4",
        "OBJECT 2.5.29.14, 1.3.101.112",
        "127.0.0.1 192.168.10.20 10.12.13.14 999.999.999.999",
        "std::vector<a::b> at 12:30:45, dead::beef",
        "555-123-4567-890 and 212-555-0123 - 7",
        "2024-11-20T10:11:12+01:00",
        "DE89 3704 0044 0532 0130 01",  # wrong check digits
        "AB12CDEF34567890",
        "@decorator\ndef f(a): return a@b",
        "user@localhost",
        "0x4111111111111111 1e10 3.14159265358979",
    ],
)
def test_numbers_and_code_stay_as_they_are(text: str) -> None:
    assert mask_personal_data(text) == (text, Counter())


def plain_numbers(rng: random.Random) -> str:
    """A line as arithmetic drills, logs, tables and code have them."""
    a, b = (rng.randrange(10 ** rng.randrange(1, 18)) for _ in range(2))
    four = [str(rng.randrange(1_000, 10_000)) for _ in range(5)]
    return rng.choice(
        [
            f"{a} + {b} = {a + b}",
            f"{a}-{b}={a - b}",
            f"{a} * {b} = {a * b}",
            f"{a:,} and {b:,}, {a / 7:.6f}",
            f"rows[{a}] = 0x{b:x}; return {a} +{b}",
            " ".join(four),
            "\t".join(four[:4]) + f"\t{a}",
            f"v{a % 30}.{b % 99}.{a % 12}.{b % 17}",
            f"2024-{a % 12 + 1:02d}-{b % 28 + 1:02d} {a % 24:02d}:{b % 60:02d}:00.{a % 10**6:06d}",
            f"({a % 1000}) {b % 10**6} {a % 100}%",
            f"{a % 900 + 100}-{b % 900 + 100}={a % 900 - b % 900}",
            f"sha {a:016x}{b:016x} {a % 10**12:012d}",
        ]
    )


def test_of_many_lines_of_plain_numbers_none_is_masked() -> None:
    rng = random.Random(11)
    lines = [plain_numbers(rng) for _ in range(20_000)]
    assert [line for line in lines if find_personal_data(line)] == []


def test_spans_do_not_overlap_and_are_counted_by_kind() -> None:
    text = "a@example.org b@example.org +12125550123"
    spans = find_personal_data(text)
    assert all(one[1] <= two[0] for one, two in pairwise(spans))
    assert mask_personal_data(text)[1] == {PersonalData.EMAIL: 2, PersonalData.PHONE: 1}


def test_the_check_sums() -> None:
    assert is_luhn("4539578763621486")
    assert not is_luhn("4539578763621487")
    assert is_iban("FR1420041010050500013M02606")
    assert not is_iban("FR1420041010050500013M0260")  # a character short
    assert not is_iban("FR1520041010050500013M02606")


def test_without_the_library_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    modules: dict[str, Any] = {"phonenumbers": None}
    monkeypatch.setitem(sys.modules, "phonenumbers", modules["phonenumbers"])
    personal_data._phonenumbers.cache_clear()
    with pytest.raises(ContractError, match=r"picochat\[filters\]") as caught:
        check_phone_library()
    assert caught.value.code is Code.MISSING_DEPENDENCY
