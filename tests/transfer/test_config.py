from collections.abc import Sequence
from typing import get_args, get_type_hints

import pytest

from clp_jax.errors import UserError
from clp_jax.faults import RENAMED
from clp_jax.limits import Method
from clp_jax.transfer.config import CONSTANTS, TransferConfig, TransferOptions
from clp_jax.transfer.methods import METHODS


def test_methods_of_the_configuration_are_those_that_exist():
    assert get_args(Method) == ("auto", *METHODS)


def test_the_keys_of_constants_are_those_that_methods_take():
    taken = {name: entry.constants for name, entry in METHODS.items()}
    assert {key: set(methods) for key, methods in CONSTANTS.items()} == {
        key: {name for name in METHODS if key in taken[name]}
        for key in {key for constants in taken.values() for key in constants}
    }
    config = TransferConfig(strength=0.5, atoms=3)
    assert config.constants_of("ridge") == {"strength": 0.5}
    assert config.constants_of("clp") == {}


def test_defaults():
    config = TransferConfig()
    assert config.method == "auto"
    assert (config.source_weight, config.match_spread, config.seed) == (None, None, 0)
    assert config.given == {}
    assert TransferConfig(method="clp", source_weight=0, match_spread=False).given == {
        "method": "clp", "source_weight": 0, "match_spread": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    "keys",
    [
        {"method": "clp", "no_fallback": True},
        {"method": "ridge", "source_weight": 0.5, "calibrate": True, "data": ["x"]},
        {"method": "clp", "extend": True, "source_weight": 1},
        {"extend": True, "data": ["x"]},
        {"method": "ridge", "match_spread": True, "spread_shrinkage": 1, "by_reliability": True},
        {"method": "ridge-residual", "strength": 0, "neighbours": 5, "temperature": 0.5},
        {"atoms": 8, "count_exponent": 1, "data": ["x"]},
        {"source_vectors": "a", "target_vectors": "b", "dictionary": "c"},
    ],
)
def test_options_that_fit_together(keys):
    config = TransferConfig.from_dict(keys)
    assert TransferConfig.from_dict(config.given) == config


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        (
            {"source_weight": 1},
            "source_weight would be ignored, because the method auto chooses for itself: leave it "
            "out, or change that",
        ),
        ({"match_spread": False}, "match_spread would be ignored, because the method auto"),
        ({"calibrate": True, "data": ["x"]}, "calibrate would be ignored, because the method auto"),
        ({"by_reliability": True}, "by_reliability would be ignored, because the method auto"),
        (
            {"method": "ridge", "spread_shrinkage": 1},
            "spread_shrinkage would be ignored, because match_spread is off",
        ),
        ({"method": "ridge", "extend": True, "by_reliability": True}, "extend keeps the source"),
        (
            {"method": "ridge", "no_fallback": True},
            "no_fallback would be ignored, because the method is ridge, not clp",
        ),
        (
            {"method": "ridge", "calibrate": True, "text_field": "body", "count_exponent": 0.1},
            "text_field and count_exponent and calibrate would be ignored, because data is empty: "
            "leave them out",
        ),
        ({"rank_steps": 2}, "rank_steps would be ignored, because data is empty"),
        (
            {"method": "ridge", "rank_steps": 2, "data": ["x"]},
            "rank_steps would be ignored, because the method is ridge, not auto",
        ),
        ({"method": "ridge", "source_weight": 1.5}, "source_weight: .*less than or equal to 1"),
        (
            {"method": "ridge", "extend": True, "source_weight": 0.5},
            "extend keeps the source's rows",
        ),
        (
            {"method": "ridge", "extend": True, "calibrate": True, "data": ["x"]},
            "extend keeps the source's rows",
        ),
        (
            {"method": "clp", "neighbours": 5},
            "neighbours .*, because the method is clp, not clp-topk or ridge-residual or wechsel",
        ),
        ({"method": "clp", "token_vectors": "a"}, "token_vectors .* is clp, not focus"),
        ({"method": "clp", "dictionary": "a"}, "dictionary .* is clp, not wechsel"),
        ({"dictionary": "a"}, "dictionary would be ignored, because source_vectors is empty"),
        ({"method": "omp", "atoms": 0}, "atoms: .*greater than 0"),
        ({"temperature": 0}, "temperature: .*greater than 0"),
        ({"count_exponent": 2}, "count_exponent: .*less than or equal to 1"),
        ({"source_vectors": "a"}, "source_vectors and target_vectors need each other"),
        ({"pad_to_multiple_of": 0}, "pad_to_multiple_of: .*greater than 0"),
        ({"metod": "clp"}, "unknown key metod"),
        ({"method": "magic"}, "method: Input should be 'auto', "),
        ({"dtype": "int8"}, "dtype: Input should be 'bfloat16'"),
        ({"data": "text.txt"}, "data: must be a list, such as"),
        ({"seed": 2**31}, "seed: .*less than or equal to 2147483647"),
        ({"source_weight": float("nan"), "method": "clp"}, "source_weight: .*finite number"),
        ({"pad_to_multiple_of": 10**12}, "pad_to_multiple_of: .*less than or equal to 65536"),
        ({"token_vectors": "gs://b/x"}, "token_vectors: gs://b/x is an address"),
    ],
)
def test_options_that_do_not_fit_together(keys, sentence):
    with pytest.raises(UserError, match=f"transfer: .*{sentence}"):
        TransferConfig.from_dict(keys, origin="transfer")


def test_settings_are_compared_as_json_has_them():
    assert TransferConfig(data=("a", "b")).given == {"data": ["a", "b"]}


def test_options_are_the_keys_of_the_configuration():
    hints = get_type_hints(TransferConfig, include_extras=True)
    wanted = {key: hints[key] for key in TransferConfig.model_fields}
    wanted["data"] = Sequence[get_args(wanted["data"])[0]]  # Python callers may give a list.
    assert get_type_hints(TransferOptions, include_extras=True) == wanted
    assert TransferOptions.__required_keys__ == frozenset()


@pytest.mark.parametrize("old", ["copy_share", "match_norms", "strict"])
def test_an_old_name_is_refused_with_the_new_one(old):
    with pytest.raises(UserError, match=f"unknown key {old}, which is now called {RENAMED[old]}"):
        TransferConfig.from_dict({old: 1})
