"""Damaged and odd settings: each is read, or refused in one sentence."""

import random
from functools import partial
from pathlib import Path

import pytest

from clp_jax.config import ChainConfig, PrepareConfig, RunConfig, TransferConfig
from clp_jax.errors import UserError
from clp_jax.settings import parse_yaml

CONFIGS = Path(__file__).parent.parent / "configs"
KINDS = {"chain": ChainConfig, "corpus": PrepareConfig}
ODD = (
    "[", "]", "{", "}", "@home", "%x", "\t", "*a", "&a [*a]", "? [a]", "!!python/name:os.system",
    "|", ">-", "---", "...", "<<: {a: 1}", "# x", "''", '"', "'", "\x00", "\x1b[31m", "\ufeff", "\u2028",
    "nan", ".nan", "inf", "-.inf", "1e400", "-1", "0", "1.5", "2147483648", "9" * 5000, "1_000",
    "0x1f", "no", "~", "null", "None", "true", "12:00:00", "2024-99-99", "20241126", "a: b", "- a", "[[a]]",
    "{layers: 0.1", "[" * 2000, "gs://b/x", "hf://", "../..", "x" * 5000, "ü", "[{path: a}, a]",
)  # fmt: skip


def kind_of(file):
    return KINDS.get(file.stem.split("-")[0], RunConfig)


def damaged(text, rng):
    """The text, cut, doubled, or with something odd in it, in one to three places."""
    for _ in range(rng.randint(1, 3)):
        place, length = rng.randrange(len(text) + 1), rng.randint(1, 40)
        lines = text.split("\n")
        line = rng.randrange(len(lines))
        match rng.randrange(5):
            case 0:
                text = text[:place] + text[place + length :]
            case 1:
                text = text[:place] + rng.choice(ODD) + text[place:]
            case 2:
                text = "\n".join([*lines[:line], lines[line], *lines[line:]])
            case 3:
                head, colon, _ = lines[line].partition(": ")
                lines[line] = f"{head}{colon}{rng.choice(ODD)}"
                text = "\n".join(lines)
            case _:
                text = text[:place]
    return text


def refusal(read):
    """The sentence in which it was refused, if it was."""
    try:
        read()
    except UserError as error:
        return str(error)
    return None


def refusals(reads):
    """How many were refused, each in one short sentence."""
    told = [*filter(None, map(refusal, reads))]
    assert all(len(sentence.splitlines()) == 1 and len(sentence) < 4000 for sentence in told)
    return len(told)


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.yaml")), ids=lambda file: file.stem)
def test_a_damaged_configuration_is_read_or_refused(file, tmp_path):
    rng = random.Random(file.stem)
    lines = file.read_text("utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.startswith("#"))
    count = 0
    for _ in range(60):
        content = damaged(text, rng).encode("utf-8")
        if rng.random() < 0.1:
            content = content.replace(b"e", b"\xff", 1)
        (tmp_path / "damaged.yaml").write_bytes(content)
        count += refusals([lambda: kind_of(file).from_yaml(tmp_path / "damaged.yaml")])
    assert 20 < count < 60


@pytest.mark.parametrize("config", [RunConfig, PrepareConfig])
def test_every_flag_takes_or_refuses_what_is_odd(config):
    file = CONFIGS / "tiny.yaml" if config is RunConfig else None
    rng = random.Random(config.__name__)
    flags = [
        f"--{section}.{key}"
        for section, field in config.model_fields.items()
        for key in getattr(field.annotation, "model_fields", ())
    ]
    cases = [[flag, value] for flag in flags for value in rng.sample(ODD, 8)]
    count = refusals(partial(config.from_yaml, file, case) for case in cases)
    assert len(cases) / 2 < count < len(cases)


def test_every_option_of_a_transfer_takes_or_refuses_what_is_odd():
    odd = [
        *ODD,
        None,
        True,
        -1,
        0,
        2**31,
        10**100,
        float("nan"),
        float("inf"),
        [],
        {},
        [None],
        b"x",
    ]
    cases = [{key: value} for key in TransferConfig.model_fields for value in odd]
    count = refusals(partial(TransferConfig.from_dict, case) for case in cases)
    assert len(cases) > 1000
    assert len(cases) / 2 < count < len(cases)


def test_every_scalar_is_text():
    assert parse_yaml("{a: no, b: 1.5, c: [null, 'null', 12:00:00, 2024-01-01], d: , e: ''}") == {
        "a": "no", "b": "1.5", "c": [None, "null", "12:00:00", "2024-01-01"], "d": None, "e": "",
    }  # fmt: skip
