"""Personal data that has a form: e-mail and public IP addresses, phone, card and bank account numbers.

Precision comes first: numbers of arithmetic, code, versions, dates and tables must stay as they are. So what a check
sum or a number plan can confirm is confirmed (Luhn, ISO 7064 mod 97, phonenumbers), phone numbers count only in their
international form or written as in North America, card numbers only in groups or near a word that says so, and
addresses of private networks and documentation are nobody's. Names and postal addresses are not looked for.
"""

import re
from collections import Counter
from collections.abc import Iterator
from enum import StrEnum
from functools import cache
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Any, Final

from picochat_contract.errors import Code, ContractError


class PersonalData(StrEnum):
    EMAIL = "email"
    IP = "ip"
    PHONE = "phone"
    CARD = "card"
    IBAN = "iban"

    @property
    def mask(self) -> str:
        return f"<{self.name}>"


Span = tuple[int, int, PersonalData]
CARD_WORDS: Final = re.compile(
    r"\b(?:card|credit|debit|visa|master\s?card|amex|american express|discover|maestro|ccn|pan)\b", re.I
)
CARD_WORD_DISTANCE: Final = 48  # characters before an ungrouped number in which such a word counts
_IBAN_LENGTHS: Final = {
    country: int(length)
    for length, countries in (
        ("15", "NO"),
        ("16", "BE"),
        ("18", "DK FI FO GL NL SD"),
        ("19", "MK SI"),
        ("20", "AT BA EE KZ LT LU XK"),
        ("21", "CH HR LI LV"),
        ("22", "BG BH CR DE GB GE IE ME RS VA"),
        ("23", "AE IL IQ TL"),
        ("24", "AD CZ ES MD PK RO SA SE SK TN VG"),
        ("25", "LY PT ST"),
        ("26", "IS TR"),
        ("27", "BI DJ FR GR IT MC MR SM"),
        ("28", "AL AZ BY CY DO GT HU LB NI PL SV"),
        ("29", "BR EG PS QA UA"),
        ("30", "JO KW MU"),
        ("31", "MT SC"),
        ("33", "RU"),
    )
    for country in countries.split()
}
"""Characters of an IBAN by country (ISO 13616 registry)."""

_EMAIL = re.compile(
    r"(?<![\w.+/@-])[A-Za-z0-9][\w.+-]{0,63}@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}"
    r"[A-Za-z]{2,18}(?![\w@-])",
    re.ASCII,
)
_IPV4 = re.compile(r"(?<![\w.+-])\d{1,3}(?:\.\d{1,3}){3}(?![\w-]|\.\d)", re.ASCII)
_IPV6 = re.compile(r"(?<![\w:.])[23][0-9A-Fa-f]{3}:[0-9A-Fa-f:]{3,34}(?![\w:])", re.ASCII)
_OBJECT_ARCS: Final = ("0.", "1.", "2.")
_VERSION = re.compile(r"(?:\bv|version|release|build|section|chapter|rev\.?)[\s:=]*$", re.I)
_PLUS_PHONE = re.compile(r"(?<![\w)\]+=*/^-])\+[1-9](?:[ ./-]?\(?\d\)?){6,14}(?![\w%]|[.,]\d)", re.ASCII)
_NANP_PHONE = re.compile(
    r"(?<![\w.+=*/^(-])(?:\([2-9]\d\d\) ?|[2-9]\d\d([-.]))[2-9]\d\d[-.]\d{4}(?![\w%(]|[-.,+*/=^]\d| ?[-+*/=^])",
    re.ASCII,
)
_CARD = re.compile(
    r"(?<![\w.,+*/=-])(?:\d{4}([ -])\d{4}\1\d{4}\1\d{4}|3\d{3}([ -])\d{6}\2\d{5}|\d{13,19})(?![\w%]|[ -]\d|[.,]\d)",
    re.ASCII,
)
_DIGIT_BEFORE = re.compile(r"\d +$", re.ASCII)
_NUMBER_BEFORE = re.compile(r"\d[ ,;|\t+*/=-]{1,3}$", re.ASCII)
_ISSUERS = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|3[47]\d{13}"
    r"|6(?:011|5\d\d|4[4-9]\d)\d{12}|35(?:2[89]|[3-8]\d)\d{12}|3(?:0[0-5]|[68]\d)\d{11}",
    re.ASCII,
)
"""Visa, Mastercard, American Express, Discover, JCB, Diners: first digits and length."""
_IBAN = re.compile(r"(?<![\w-])[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![\w-])", re.ASCII)
_SHAPES: Final = bytes.maketrans(
    b"123456789BCDEFGHIJKLMNOPQRSTUVWXYZbcdefghijklmnopqrstuvwxyz", b"0" * 9 + b"A" * 25 + b"a" * 25
)
"""Any digit is 0, any capital A, any small letter a."""
LONGEST_BEFORE: Final = 65
_ANCHORS: Final[dict[PersonalData, tuple[tuple[re.Pattern[bytes], re.Pattern[str] | None], ...]]] = {
    # each begins with a literal, which `re` looks for without its engine; the second finds the beginning before it
    PersonalData.EMAIL: ((re.compile(rb"@"), re.compile(r"[\w.+-]+\Z", re.ASCII)),),
    PersonalData.IP: (
        (re.compile(rb"\.0{1,3}\.0{1,3}\.0"), re.compile(r"\d+\Z", re.ASCII)),
        (re.compile(rb":[0aA]{0,4}:"), re.compile(r"[0-9A-Fa-f]{4}\Z", re.ASCII)),
    ),
    PersonalData.PHONE: (
        (re.compile(rb"\+0"), None),
        (re.compile(rb"000[-.]0000"), re.compile(r"(?:\(\d{3}\) ?|\d{3}[-.])\Z", re.ASCII)),
    ),
    PersonalData.CARD: (
        (re.compile(rb"0000[ -]0000[ -]0000"), None),
        (re.compile(rb"0000[ -]000000[ -]"), None),
        (re.compile(rb"0000000000000"), None),
    ),
    PersonalData.IBAN: ((re.compile(rb"AA00"), None),),
}


def check_phone_library() -> None:
    """Raise `missing_dependency` where phone numbers cannot be confirmed."""
    _phonenumbers()


def find_personal_data(text: str) -> list[Span]:
    """What was found as (start, end, kind), in the order of the text, without overlaps."""
    # one byte per character, so that places in it are places in the text
    shape = text.encode("latin-1", "replace").translate(_SHAPES)
    finders = (_emails, _ibans, _cards, _ips, _phones)
    spans: list[Span] = []
    for start, end, kind in sorted(span for finder in finders for span in finder(text, shape)):
        if not spans or start >= spans[-1][1]:
            spans.append((start, end, kind))
    return spans


def mask_personal_data(text: str) -> tuple[str, Counter[PersonalData]]:
    """`text` with `<EMAIL>`, `<IP>`, `<PHONE>`, `<CARD>` and `<IBAN>` in the places of what was found."""
    parts, last = [], 0
    spans = find_personal_data(text)
    for start, end, kind in spans:
        parts += [text[last:start], kind.mask]
        last = end
    return "".join(parts) + text[last:], Counter(kind for _, _, kind in spans)


def is_luhn(digits: str) -> bool:
    """The check sum of card numbers (ISO/IEC 7812-1)."""
    doubled = sum(sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (doubled + sum(map(int, digits[-1::-2]))) % 10 == 0


def is_iban(text: str) -> bool:
    """An IBAN without spaces: a country's length and ISO 7064 mod 97 = 1."""
    if _IBAN_LENGTHS.get(text[:2]) != len(text):
        return False
    return int("".join(str(int(character, 36)) for character in text[4:] + text[:4])) % 97 == 1


def _starts(kind: PersonalData, text: str, shape: bytes) -> Iterator[int]:
    """Places where something of this kind may begin: most texts have none, and these are found ten times quicker."""
    for anchor, before in _ANCHORS[kind]:
        for match in anchor.finditer(shape):
            if before is None:
                yield match.start()
            elif found := before.search(text, max(0, match.start() - LONGEST_BEFORE), match.start()):
                yield found.start()


def _candidates(
    kind: PersonalData, pattern: re.Pattern[str], text: str, shape: bytes
) -> Iterator[re.Match[str]]:
    for start in _starts(kind, text, shape):
        if match := pattern.match(text, start):
            yield match


def _emails(text: str, shape: bytes) -> Iterator[Span]:
    for match in _candidates(PersonalData.EMAIL, _EMAIL, text, shape):
        yield (*match.span(), PersonalData.EMAIL)


def _ibans(text: str, shape: bytes) -> Iterator[Span]:
    for match in _candidates(PersonalData.IBAN, _IBAN, text, shape):
        length = _IBAN_LENGTHS.get(match[0][:2], 0)
        if is_iban(match[0].replace(" ", "")[:length]):
            end = next(end for end in range(len(match[0]) + 1) if end - match[0].count(" ", 0, end) == length)
            if end == len(match[0]) or match[0][end] == " ":
                yield match.start(), match.start() + end, PersonalData.IBAN


def _cards(text: str, shape: bytes) -> Iterator[Span]:
    for match in _candidates(PersonalData.CARD, _CARD, text, shape):
        digits = re.sub(r"\D", "", match[0])
        before = text[max(0, match.start() - CARD_WORD_DISTANCE) : match.start()]
        if not _ISSUERS.fullmatch(digits) or not is_luhn(digits) or _NUMBER_BEFORE.search(before):
            continue
        if digits != match[0] or CARD_WORDS.search(before):
            yield (*match.span(), PersonalData.CARD)


def _ips(text: str, shape: bytes) -> Iterator[Span]:
    for match in _candidates(PersonalData.IP, _IPV4, text, shape):
        # 1.2.3.4 is a section or a version at least as often as an address; 2.5.29.14 is an object identifier
        long_parts = sum(len(part) > 1 for part in match[0].split("."))
        if long_parts < 2 or match[0][:2] in _OBJECT_ARCS or not _is_public(match[0], IPv4Address):
            continue
        if not _VERSION.search(text, max(0, match.start() - 16), match.start()):
            yield (*match.span(), PersonalData.IP)
    for match in _candidates(PersonalData.IP, _IPV6, text, shape):
        if match[0].count(":") > 1 and _is_public(match[0], IPv6Address):
            yield (*match.span(), PersonalData.IP)


def _is_public(text: str, kind: type[IPv4Address | IPv6Address]) -> bool:
    try:
        return kind(text).is_global
    except AddressValueError:
        return False


def _phones(text: str, shape: bytes) -> Iterator[Span]:
    for pattern, region in ((_PLUS_PHONE, None), (_NANP_PHONE, "US")):
        for match in _candidates(PersonalData.PHONE, pattern, text, shape):
            is_sum = region is None and _DIGIT_BEFORE.search(text, max(0, match.start() - 4), match.start())
            if not is_sum and _is_phone(match[0], region):
                yield (*match.span(), PersonalData.PHONE)


def _is_phone(text: str, region: str | None) -> bool:
    library = _phonenumbers()
    try:
        return bool(library.is_valid_number(library.parse(text, region)))
    except library.NumberParseException:
        return False


@cache
def _phonenumbers() -> Any:
    try:
        import phonenumbers  # optional, and slow to load
    except ImportError as error:
        raise ContractError(
            Code.MISSING_DEPENDENCY,
            "cleaning.pii needs phonenumbers: pip install 'picochat[filters]'",
            param="dataset.cleaning.pii",
        ) from error
    return phonenumbers
