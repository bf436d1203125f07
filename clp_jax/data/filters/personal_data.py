"""Masks for e-mail addresses, phone numbers and IBANs."""

import re

from datatrove.pipeline.formatters.base import BaseFormatter

_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?:[A-Z0-9]{11,30}|(?: [A-Z0-9]{4}){2,7}(?: [A-Z0-9]{1,3})?)\b")
_EMAIL = re.compile(r"(?<![\w.+%-])[\w.+%-]{1,64}@(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24}\b")
# The country codes of ITU-T E.164: 1, 7, two digits, and three digits with other beginnings.
_COUNTRY = (
    r"(?:1|7|2[07]|3[0-469]|4[013-9]|5[1-8]|6[0-6]|8[1246]|9[0-58]|(?:2[1-689]|3[578]|42|5[09]|6[7-9]"
    r"|8[05789]|9[679])\d)"
)
# An international number, a national one with a mark or a space after its area code and five more
# digits, or a German mobile number: no date, decimal, reference, time or ISBN looks like these.
_PHONE = re.compile(
    rf"""(?<! [\w.,:/+-] ) (?<! \d[ ] )
    (?: (?P<international> (?: \+ {_COUNTRY} | 00 {_COUNTRY} [ /-] )
        [ ./-]? (?: \(\d{{1,6}}\) [ /-]? )? \d (?: [ ./-]{{0,2}} \d ){{5,11}} )
      | \( 0[1-9](?:[ ]?\d){{1,4}} \) [ ]? [1-9] (?: [ -]? \d ){{4,9}}
      | (?P<marked> 0[1-9](?:[ ]?\d){{1,4}} [ ]? [/–-] [ ]? [1-9] (?: [ -]? \d ){{4,9}} )
      | (?P<spaced> 0[1-9]\d{{1,4}} [ ] [1-9] (?: [ -]? \d ){{4,9}} )
      | 01[5-7]\d{{8,9}}
    )
    (?! \d | [-.,/:]\d | [ ]?% )""",
    re.VERBOSE,
)
# +1.000.000, +2 500 000, +250000: amounts. A phone number in groups of three has nine digits after
# its country code (+420 123 456 789), one in North America or Russia ten.
_GROUPS_OF_THREE = re.compile(r"\+\d{1,3}(?:([ .])\d{3})(?:\1\d{3})*")
_ROUND = re.compile(r"0{3}$|0{4}")
_MOBILE = re.compile(r"01[5-7]\d ")
_BEFORE = 40
_CALL = re.compile(
    r"\b(?:t[eé]l|fon|phone|fax|mobi|handy|ruf|cell|gsm|call|móvil|portable|тел|факс|моб)|"
    r"[☎✆📞📱]|電話|电话|전화"
)
_FILE = re.compile(
    r"(?:\b(?:az|akten\w*|gz|\w*zeichen|reg|register\w*|drs|drucksache|konto|kunden?\w*|"
    r"rechnung\w*|bestell\w*|artikel\w*|art|ref|vorgang\w*|case|file|docket|invoice|order|exp|"
    r"expediente|dossier|prot\w*|fascicolo|sygn|akt|\w*szám|дело|num\w*|núm\w*|nr|no|"
    r"serien\w*|serial|patent\w*|isbn|issn|ean|pin|id)|№|n°|nº)\W*$"
)


class PersonalData(BaseFormatter):
    """Replace personal data by `[iban]`, `[email]` and `[phone]`, and count the masks.

    Phone numbers are recognised in their international form and with the leading 0 of national
    numbers in Germany and most of Europe; IBANs by their form and check digits (ISO 13616). An
    amount with a plus sign is not a phone number, nor are digits after the word for a file, an
    invoice or a number; digits separated only by a space are one only after a word for a telephone.
    datatrove's `PIIFormatter` has none of these rules, and its masks depend on earlier documents.
    """

    name = "personal-data"

    def format(self, text: str) -> str:
        """The masked text."""
        counts = dict.fromkeys(("[iban]", "[email]", "[phone]"), 0)

        def mask(name: str, kept: str = "") -> str:
            counts[name] += 1
            return name + kept

        def mask_iban(match: re.Match[str]) -> str:
            iban, rest = match[0], ""
            while not _is_iban(iban) and " " in iban:
                iban, _, last = iban.rpartition(" ")
                rest = f" {last}{rest}"
            return mask("[iban]", rest) if _is_iban(iban) else match[0]

        text = _IBAN.sub(mask_iban, text)
        if "@" in text:
            text = _EMAIL.sub(lambda _: mask("[email]"), text)
        text = _PHONE.sub(lambda match: mask("[phone]") if _is_phone(match) else match[0], text)
        for name, count in counts.items():
            if count:
                self.stat_update(name, value=count)
        return text


def _is_iban(text: str) -> bool:
    """Whether the number spelled by the text (A is 10, Z is 35) is 1 modulo 97."""
    compact = text.replace(" ", "")
    digits = "".join(str(int(c, 36)) for c in compact[4:] + compact[:4])
    return len(compact) >= 15 and int(digits) % 97 == 1


def _is_phone(match: re.Match[str]) -> bool:
    """Whether digits of the right form are a phone number, given the text before them."""
    if match["international"]:
        return _is_international(match["international"])
    before = match.string[max(0, match.start() - _BEFORE) : match.start()].lower()
    if _CALL.search(before):
        return True
    if match["spaced"]:
        return _MOBILE.match(match["spaced"]) is not None
    return not (match["marked"] and _FILE.search(before))


def _is_international(number: str) -> bool:
    code = re.match(rf"(?:\+|00)({_COUNTRY})", number)
    assert code
    national = re.sub(r"\D", "", number[code.end() :])
    if number.startswith("00") or "(" in number:
        return True
    if national.startswith("00") or (code[1] in "17" and len(national) != 10):
        return False
    if _GROUPS_OF_THREE.fullmatch(number):
        return len(national) >= 9 and not _ROUND.search(national)
    return len(national) >= 7 or not number[1:].isdigit()
