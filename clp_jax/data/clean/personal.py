"""Masks for e-mail addresses, phone numbers and IBANs."""

import re

from datatrove.pipeline.formatters.base import BaseFormatter

_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?:[A-Z0-9]{11,30}|(?: [A-Z0-9]{4}){2,7}(?: [A-Z0-9]{1,3})?)\b")
_EMAIL = re.compile(r"(?<![\w.+%-])[\w.+%-]{1,64}@(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24}\b")
# With the code of a country, or with the 0 of a national number, a separator after the area code
# and at least five more digits: no date, decimal number, reference, time or ISBN is written so.
_PHONE = re.compile(
    r"""(?<![\w.,:/+-]) (?:
        (?: \+ [1-9]\d{0,2} | 00 [1-9]\d{0,2} [ /-] )
        [ ./-]? (?: \(0?\d{0,5}\) [ /-]? )? \d (?: [ ./-]{0,2} \d ){5,11}
      | (?: \(0[1-9]\d{1,4}\) [ ]? | 0[1-9]\d{1,4} (?: [ ]? [/–-] [ ]? | [ ] ) )
        [1-9]\d (?: [ -]? \d ){3,8}
    ) (?! \d | [-.,/:]\d | [ ]?% )""",
    re.VERBOSE,
)


class PersonalData(BaseFormatter):
    """Put `[iban]`, `[email]` and `[phone]` in the place of personal data, and count them.

    Phone numbers are found in their international form and with the 0 that national numbers have
    in Germany and most of Europe; IBANs by their form and check digits (ISO 13616). datatrove's
    `PIIFormatter` knows neither, and its masks depend on the documents before.
    """

    name = "personal-data"

    def format(self, text: str) -> str:
        """The text with its masks."""
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
        text = _PHONE.sub(lambda _: mask("[phone]"), text)
        for name, count in counts.items():
            if count:
                self.stat_update(name, value=count)
        return text


def _is_iban(text: str) -> bool:
    """Whether the number that the text spells (A is 10, Z is 35) is 1 modulo 97."""
    compact = text.replace(" ", "")
    digits = "".join(str(int(c, 36)) for c in compact[4:] + compact[:4])
    return len(compact) >= 15 and int(digits) % 97 == 1
