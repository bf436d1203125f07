import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from clp_jax.tokenizer import Tokenizer as AnyKind
from clp_jax.vocabulary import read_vocabulary
from clp_jax.vocabulary.parts import parts_of


def parts(model):
    tokenizer = AnyKind.of(PreTrainedTokenizerFast(tokenizer_object=Tokenizer(model)))
    vocabulary = read_vocabulary(tokenizer)
    found = parts_of(tokenizer, vocabulary)
    return {
        vocabulary.names[id]: [vocabulary.names[part] for part in both]
        for id, both in found.items()
    }


NAMES = ["<unk>", "a", "b", "c", "ab", "bc", "abc", "d"]
IDS = {name: id for id, name in enumerate(NAMES)}


def test_a_token_of_bpe_has_the_parts_of_its_first_merge():
    """The longest beginning of abc is ab, but it was made of a and bc."""
    merges = [("a", "b"), ("b", "c"), ("a", "bc"), ("ab", "c")]
    assert parts(models.BPE(IDS, merges)) == {
        "ab": ["a", "b"], "bc": ["b", "c"], "abc": ["a", "bc"],
    }  # fmt: skip


@pytest.mark.parametrize(
    "model",
    [
        models.WordLevel(IDS, unk_token="<unk>"),
        models.Unigram([(name, -1.0) for name in NAMES], unk_id=0),
    ],
    ids=["words", "unigram"],
)
def test_of_other_models_the_longest_beginning_and_the_rest(model):
    assert {name: both for name, both in parts(model).items() if name != "<unk>"} == {
        "ab": ["a", "b"], "bc": ["b", "c"], "abc": ["ab", "c"],
    }  # fmt: skip


def test_the_merges_of_a_trained_tokenizer_spell_its_tokens(tiny_tokenizer):
    tokenizer = AnyKind.of(PreTrainedTokenizerFast.from_pretrained(tiny_tokenizer))
    vocabulary = read_vocabulary(tokenizer)
    found = parts_of(tokenizer, vocabulary)
    assert found
    for id, both in found.items():
        spelled = b"".join(vocabulary.tokens[part].bytes for part in both)
        assert spelled == vocabulary.tokens[id].bytes
