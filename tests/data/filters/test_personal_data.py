"""Masks for personal data: what is personal goes, what looks like it stays."""

import pytest

from clp_jax.data.filters.personal_data import PersonalData


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Tel. +49 30 123456", "Tel. [phone]"),
        ("Tel.: +49 (0)30 1234-567.", "Tel.: [phone]."),
        ("+49(0)30/1234567", "[phone]"),
        ("0049 171 1234567", "[phone]"),
        ("+4930123456", "[phone]"),
        ("+33 1 23 45 67 89, +1 (555) 123-4567", "[phone], [phone]"),
        ("(030) 123 45 67", "[phone]"),
        ("(02 28) 4 01 21 34", "[phone]"),
        ("02 21/12 34 56", "[phone]"),
        ("089 / 12 34 56", "[phone]"),
        ("Fax 06221-542345 oder 0171 1234567", "Fax [phone] oder [phone]"),
        ("mobil 01711234567", "mobil [phone]"),
        ("+420 123 456 789, +48 601 234 567", "[phone], [phone]"),
        ("+1 212 555 0123, +7 (495) 123-45-67, +36 1 234 5678", "[phone], [phone], [phone]"),
        (
            "Telefon-Nr. 0621/123456, Rufnummer 0621 123456",
            "Telefon-Nr. [phone], Rufnummer [phone]",
        ),
        ("<max.muster+x@mail.uni-x.de>", "<[email]>"),
        ("müller@bücher.de.", "[email]."),
        ("IBAN DE89 3704 0044 0532 0130 00 BIC", "IBAN [iban] BIC"),
        ("DE89370400440532013000", "[iban]"),
        ("AT61 1904 3002 3457 3201 BAWA", "[iban] BAWA"),
        ("GB82 WEST 1234 5698 7654 32, FR14 2004 1010 0505 0001 3M02 606", "[iban], [iban]"),
    ],
)
def test_masks(follow, text, masked):
    left, counts = follow(PersonalData(), text)
    assert left == [masked]
    kinds = ("[iban]", "[email]", "[phone]")
    found = {kind: masked.count(kind) for kind in kinds if kind in masked}
    assert {kind: counts[kind] for kind in kinds if kind in counts} == found


@pytest.mark.parametrize(
    "text",
    [
        "",
        "am 01.02.2003 um 09:00 Uhr, von 0800-1200 Uhr, 2012-03-04 12:30:45",
        "ISBN 978-3-16-148410-0, 3-499-22486-1, 0-306-40615-2 und 0306406152, EAN 04012345678901",
        "§ 12 Abs. 3 Nr. 4 BGB, Drs. 16/12345, Az. 2 BvR 1234/05, BGBl. I S. 1234",
        "0,5 und 0.123456 und 0,75 %, 1 234 567,89 Euro, 10 000 000",
        "01067 Dresden, 2010/2011, 010-020, 01/2003, 123456789",
        "192.168.100.200, 0100 0110 0111 1000 1001, 5 +49 300 200 100",
        "+1.000.000 Euro, +2 500 000 Einwohner, +3.500.000 Ft, +1,234,567 votes, +12.500",
        "+1 000 000 habitants, +7 500 000 рублей, +30 500 000 человек, +49 000 000, +33500000",
        "+250000, +1000000, +2500000 fő, +49000000, +50 000 000 de euros, +30.000.000.000",
        "Az. 0123/45678, Aktenzeichen: 02/123456, Drucksache 010/12345, GZ 0815-12345",
        "Kundennummer 0123-456789, Art.-Nr. 0123/456789, exp. núm. 0245/123456, № 0123-45678",
        "Case No. 0412-98765, ügyszám: 0123/45678, n° 0123-456789, sygn. akt 0123/45678",
        "0123 456789 345\n0345 678 910 112\n0712 345678",
        "DE12 3456 7890 1234 5678 90",  # wrong check digits
        "@anna, user@localhost, a @ b.de",
    ],
)
def test_leaves_other_numbers(follow, text):
    left, counts = follow(PersonalData(), text)
    assert left == [text]
    assert counts == {"total": 1}


def test_iban_examples_of_the_registry(follow):
    """One of each length, from the public examples of ISO 13616's registry."""
    ibans = [
        "NO9386011117947",
        "BE68539007547034",
        "NL91ABNA0417164300",
        "CH9300762011623852957",
        "SE4550000000058398257466",
        "PL61109010140000071219812874",
        "MT84MALT011000012345MTLCAST001S",
    ]
    spaced = [" ".join(iban[i : i + 4] for i in range(0, len(iban), 4)) for iban in ibans]
    left, counts = follow(PersonalData(), "\n".join(ibans + spaced))
    assert left == ["\n".join(["[iban]"] * 14)]
    assert counts["[iban]"] == 14


def test_each_document_by_itself(follow):
    assert follow(PersonalData(), "a@b.de", "c@d.de")[0] == ["[email]", "[email]"]
