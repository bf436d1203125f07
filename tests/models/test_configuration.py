import pytest

from clp_jax.errors import UserError
from clp_jax.models import ARCHITECTURES, read_decoder_config, weight_table

SIZES = {"gpt2": "n_embd", "bloom": "hidden_size"}
DROPOUT = {"gpt2": "resid_pdrop", "bloom": "hidden_dropout"}


@pytest.mark.parametrize("kind", SIZES)
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("vocab_size", "50257"),
        ("vocab_size", -1),
        ("vocab_size", 10**30),
        ("n_layer", None),
        ("n_layer", True),
        ("n_layer", 2.0),
        ("n_layer", [2]),
        ("n_layer", 0),
        ("n_layer", 10**9),
        ("n_head", 0),
        ("size", -4),
        ("size", {}),
        ("layer_norm_epsilon", 0.0),
        ("layer_norm_epsilon", -1.0),
        ("layer_norm_epsilon", "1e-05"),
        ("layer_norm_epsilon", float("nan")),
        ("initializer_range", 0),
        ("initializer_range", float("inf")),
        ("dropout", 7),
        ("dropout", 1.0),
        ("tie_word_embeddings", None),
        ("eos_token_id", "a"),
    ],
)
def test_an_invalid_value_is_reported_with_its_file_and_key(kind, key, value):
    key = {"size": SIZES[kind], "dropout": DROPOUT[kind]}.get(key, key)
    with pytest.raises(UserError, match=rf"^m/config\.json: .*{key}.*") as error:
        read_decoder_config({"model_type": kind, key: value}, "m/config.json")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", SIZES)
def test_unused_keys_are_not_checked(kind):
    other = {"num_labels": 10**9, "dtype": 5, "task_specific_params": None, "id2label": []}
    read_decoder_config({"model_type": kind, **other})


def test_old_names_are_understood():
    old = {"n_embed": 64, "num_attention_heads": 4, "num_hidden_layers": 3, "seq_length": 2048}
    config = read_decoder_config({"model_type": "bloom", **old})
    assert (config.hidden_size, config.num_heads, config.num_layers) == (64, 4, 3)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_no_two_rows_of_a_weight_table_claim_one_tensor(kind):
    config = read_decoder_config({"model_type": kind, "tie_word_embeddings": False})
    rows = weight_table(config)
    assert len({row.name for row in rows}) == len({row.path for row in rows}) == len(rows)
