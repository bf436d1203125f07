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


@pytest.mark.parametrize(
    ("kind", "values", "sentence"),
    [
        ("llama", {"num_key_value_heads": 5}, "32 attention heads are not a multiple of the 5"),
        ("llama", {"head_dim": 7}, "even rotary dimension, but got `head_dim`=7"),
        ("llama", {"head_dim": 3}, "head_dim is 3, but rotary embeddings need an even one"),
        ("qwen2", {"head_dim": "4"}, "head_dim is '4', but must be an integer from 1"),
        ("qwen2", {"head_dim": 4.0}, "head_dim is 4.0, but must be an integer from 1"),
        # `transformers` would make a list with an entry for each layer.
        ("qwen2", {"num_hidden_layers": 10**12}, "num_hidden_layers is 10+, but must be"),
        ("llama", {"rms_norm_eps": 0.0}, "rms_norm_eps is 0.0, but must be a number from"),
        ("mistral", {"sliding_window": 0}, "sliding_window is 0, but must be an integer from 1"),
        ("llama", {"hidden_act": "mish"}, "activation function 'mish' is not supported"),
        ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5 is not supported"),
        ("llama", {"rope_theta": "big"}, "rope_theta .* is 'big', but must exceed 1"),
        ("llama", {"rope_theta": 1e300}, r"rope_theta .* is 1e\+300, but must exceed"),
        ("llama", {"rope_theta": 10**400}, "rope_theta .* is 10+, but must exceed 1"),
        ("llama", {"rope_parameters": [1]}, r"rope_parameters is \[1\], but must be an object"),
        ("gemma3_text", {"rope_scaling": 8}, "rope_scaling is 8, but must be an object"),
        ("llama", {"rope_parameters": {"rope_type": []}}, r"rope_type \[\] is not supported"),
        ("gemma2", {"rope_parameters": {"full_attention": None}}, "rope_theta .* is None"),
        ("llama", {"rope_scaling": {"type": "linear", "factor": -2.0}}, "factor .* is -2.0"),
        ("llama", {"rope_scaling": {"rope_type": "su", "factor": 2.0}}, "rope_type 'su' is not"),
        (
            "llama",
            {"rope_scaling": {"rope_type": "longrope", "factor": 2.0, "long_factor": [1.0],
                              "short_factor": [1.0]}},
            "rope_type 'longrope' is not supported; choose one of default, linear",
        ),
        ("llama", {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "low_freq_factor"),
        ("qwen2", {"layer_types": ["full_attention"]}, "layer"),
        (
            "qwen3",
            {"num_hidden_layers": 1, "layer_types": ["chunked_attention"]},
            "layer_types chunked_attention is not supported",
        ),
        ("smollm3", {"no_rope_layers": [1, 0]}, "a list has fewer entries than there are"),
        ("smollm3", {"no_rope_layer_interval": 0}, "no_rope_layer_interval is 0, but must be an"),
        ("gemma3_text", {"sliding_window": None}, "attention, but there is no sliding_window"),
        (
            "qwen2",
            {"num_hidden_layers": 1, "layer_types": ["sliding_attention"], "sliding_window": 8},
            "layer_types has sliding_attention, but there is no sliding_window, or it is off",
        ),
        ("gemma3_text", {"sliding_window_pattern": 0}, "sliding_window_pattern is 0, but must be"),
        ("gemma2", {"query_pre_attn_scalar": 0}, "query_pre_attn_scalar is 0, but must be a"),
        ("gemma2", {"query_pre_attn_scalar": -4}, "query_pre_attn_scalar is -4, but must be a"),
        *(
            (kind, {f"{part}_logit_softcapping": cap}, f"{part}_logit_softcapping is {cap}, but")
            for kind in ("gemma2", "gemma3_text")
            for part in ("attn", "final")
            for cap in (0.0, -30.0, float("nan"), float("inf"))
        ),
        ("llama", {"is_causal": False}, "is_causal=False is not supported"),
        ("qwen3", {"per_layer_config": {"0": {"head_dim": 8}}}, "per_layer_config=.* is not"),
        ("mixtral", {"num_local_experts": 8}, "num_local_experts is 8, .*use a dense model"),
        (
            "gemma3",
            {"text_config": {"model_type": "gemma3_text"}},
            r"model_type gemma3 is multimodal: save its text model \(gemma3_text\)",
        ),
        ("gemma2", {"text_config": 0}, r"model_type gemma2 is multimodal: save its text model"),
        *(
            ("llama", {"quantization_config": {"quant_method": method}}, rf"quantised \({method}\)")
            for method in ("gptq", "awq", "bitsandbytes", "fp8")
        ),
        ("t5", {}, "model_type t5 is not supported; choose one of gpt2, bloom, llama"),
    ],
)  # fmt: skip
def test_what_changes_the_numbers_is_honoured_or_refused_by_name(kind, values, sentence):
    read = {"model_type": kind} | values
    with pytest.raises(UserError, match=rf"^m/config\.json: .*{sentence}") as error:
        read_decoder_config(read, "m/config.json")
    assert "\n" not in str(error.value)


def test_old_names_of_rotary_embeddings_are_understood_and_what_was_read_is_kept():
    scaling = {"type": "linear", "factor": 4.0}
    values = {"model_type": "llama", "rope_theta": 500.0, "rope_scaling": scaling}
    config = read_decoder_config(values)
    assert scaling == {"type": "linear", "factor": 4.0}
    assert config.rope.frequencies[1] == pytest.approx(500 ** (-2 / 128) / 4)


def test_old_names_of_gemma3_are_understood():
    old = {"rope_theta": 500.0, "rope_local_base_freq": 100.0, "sliding_window_pattern": 3}
    config = read_decoder_config({"model_type": "gemma3_text", "num_hidden_layers": 6, **old})
    assert [kind.window is None for kind in config.layer_kinds] == [False, False, True] * 2
    assert config.global_rope.frequencies[1] == pytest.approx(500 ** (-2 / 256))
    assert config.local_rope.frequencies[1] == pytest.approx(100 ** (-2 / 256))


def test_windows_and_rotary_embeddings_are_those_of_each_layer():
    def kinds(kind, **values):
        config = read_decoder_config({"model_type": kind, "num_hidden_layers": 4} | values)
        return [(layer.window, layer.rope is not None) for layer in config.layer_kinds]

    assert kinds("llama", sliding_window=8) == [(None, True)] * 4
    assert kinds("mistral", sliding_window=8) == [(8, True)] * 4
    assert kinds("mistral", sliding_window=None) == [(None, True)] * 4
    assert kinds("qwen2", sliding_window=8) == [(None, True)] * 4
    windows = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 3}
    assert kinds("qwen3", **windows) == [(None, True)] * 3 + [(8, True)]
    assert kinds("smollm3") == [(None, True)] * 3 + [(None, False)]
    assert kinds("smollm3", no_rope_layers=[0, 1, 0, 1]) == [(None, False), (None, True)] * 2


def test_layers_are_scanned_in_as_few_programs_as_their_kinds_allow():
    def segments(kinds):
        types = [{"S": "sliding_attention", "F": "full_attention"}[kind] for kind in kinds]
        values = {"num_hidden_layers": len(types), "layer_types": types, "sliding_window": 8}
        config = read_decoder_config({"model_type": "gemma3_text"} | values)
        found = [
            ("".join("FS"[kind.window == 8] for kind in period), times)
            for period, times in config.segments()
        ]
        assert "".join(period * times for period, times in found) == kinds
        return found

    assert segments("F") == [("F", 1)]
    assert segments("F" * 5) == [("F", 5)]
    assert segments("F" * 5 + "S" * 3) == [("F", 5), ("S", 3)]
    assert segments("SSF" * 4) == [("SSF", 4)]
    assert segments("SSSSSF" * 4 + "SS") == [("SSSSSF", 4), ("S", 2)]
    assert segments("SFFS") == [("S", 1), ("F", 2), ("S", 1)]


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_no_two_rows_of_a_weight_table_claim_one_tensor(kind):
    config = read_decoder_config({"model_type": kind, "tie_word_embeddings": False})
    rows = weight_table(config)
    assert len({row.name for row in rows}) == len({row.path for row in rows}) == len(rows)
