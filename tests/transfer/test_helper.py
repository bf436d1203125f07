import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch_file

from clp_jax.checkpoint.tensors import LazyTensor
from clp_jax.errors import UserError
from clp_jax.transfer.helper import find_tables, open_helper
from clp_jax.transfer.stage import transfer_model

TABLE = "transformer.wte.weight"
KINDS = {
    "albert": "AlbertForMaskedLM",
    "bart": "BartForConditionalGeneration",
    "bert": "BertForMaskedLM",
    "bloom": "BloomForCausalLM",
    "ctrl": "CTRLLMHeadModel",
    "gemma3_text": "Gemma3ForCausalLM",
    "gpt_neox": "GPTNeoXForCausalLM",
    "mbart": "MBartForConditionalGeneration",
    "mistral": "MistralForCausalLM",
    "modernbert": "ModernBertForMaskedLM",
    "mt5": "MT5ForConditionalGeneration",
    "opt": "OPTForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "xlm-roberta": "XLMRobertaModel",
    "xlnet": "XLNetLMHeadModel",
}


def tensors(**shapes):
    return {
        name.replace("__", "."): LazyTensor.of(np.zeros(shape, np.float32))
        for name, shape in shapes.items()
    }


@pytest.mark.parametrize("kind", KINDS)
def test_the_table_is_the_one_that_transformers_names(kind):
    config = transformers.CONFIG_MAPPING[kind]()
    with torch.device("meta"):
        model = getattr(transformers, KINDS[kind])(config)
    stored = {
        name: LazyTensor(tuple(value.shape), np.dtype(np.float32), lambda rows: np.empty(0))
        for name, value in model.state_dict().items()
    }
    table, *_ = find_tables(stored, {"vocab_size": config.vocab_size}, 300, "m")
    assert model.get_parameter(table) is model.get_input_embeddings().weight


def tables(config=None, **shapes):
    """The tables of a model with tensors of these shapes and a tokenizer of 300 ids."""
    stored = {
        name.replace("__", "."): LazyTensor.of(np.zeros(shape, np.float32))
        for name, shape in shapes.items()
    }
    return find_tables(stored, config or {}, 300, "m")


def test_where_no_name_is_known_the_shape_decides():
    assert tables(rows=(310, 4)) == ["rows"]
    assert tables(rows=(310, 4), other=(4, 310), bias=(310,)) == ["rows"]
    assert tables(rows=(999, 4), other=(310, 4), config={"vocab_size": 999}) == ["rows"]
    assert tables(rows=(310, 4), lm_head__weight=(310, 4)) == ["rows", "lm_head.weight"]
    tied = {"tie_word_embeddings": True}
    assert tables(rows=(310, 4), lm_head__weight=(310, 4), config=tied) == ["rows"]
    named = tables(model__shared__weight=(310, 4), encoder__embed_tokens__weight=(310, 4))
    assert named == ["model.shared.weight"]


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"a": (310, 4), "b": (320, 4)}, "but found a and b: keep one table, as embed_tokens"),
        ({"a": (9, 4), "b": (4, 9)}, "but found none: keep one"),
        ({"a": (310,)}, "but found none: keep one"),
        ({"wte__weight": (310, 4, 1)}, r"m: wte.weight is float32 of shape \(310, 4, 1\), but"),
    ],
)
def test_no_table_or_two_are_an_error(shapes, message):
    with pytest.raises(UserError, match=message):
        tables(**shapes)


def test_only_the_table_of_a_helper_must_be_of_floats(helper):
    file = helper / "model.safetensors"
    stored = {name: torch.from_numpy(value) for name, value in load_file(file).items()}
    eight_bits = {name: value.to(torch.float8_e4m3fn) for name, value in stored.items()}
    save_torch_file(eight_bits | {TABLE: stored[TABLE]}, file)
    opened = open_helper(helper)
    np.testing.assert_array_equal(opened.tensors[TABLE].read(), stored[TABLE])
    assert opened.tables == [TABLE]
    save_torch_file(eight_bits, file)
    with pytest.raises(
        UserError, match=rf"{TABLE} is float8_e4m3fn of .* one of bfloat16, float16"
    ):
        open_helper(helper)


def test_a_folder_of_a_tokenizer_and_one_table_is_a_helper(pair, helper, tmp_path):
    transfer_model(*pair, tmp_path / "model", method="clp")
    file = helper / "model.safetensors"
    save_file({"rows": load_file(file)[TABLE]}, file)
    (helper / "config.json").unlink()
    manifest = transfer_model(pair[0], helper, tmp_path / "table", method="clp")
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("model", "table"))
    np.testing.assert_array_equal(one[TABLE], other[TABLE])
    assert manifest["tables"][TABLE]["helper_table"] == "rows"
    save_file({"rows": one[TABLE][:20]}, file)
    with pytest.raises(UserError, match=r"helper: rows has 20 rows, .* ids up to 20"):
        open_helper(helper)
    (helper / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"has no tokenizer: tokenizer[.]json is missing"):
        open_helper(helper)
