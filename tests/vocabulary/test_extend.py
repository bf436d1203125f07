import json
import shutil

import pytest
import zstandard
from tokenizers import AddedToken, ByteLevelBPETokenizer, Tokenizer, models
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from clp_jax.errors import UserError
from clp_jax.vocabulary.extend import extend_tokenizer

ENGLISH = ["The cat sleeps on the warm roof.", "The houses stand near the river."] * 20
GERMAN = ["Die Häuser stehen am Fluss.", "Die Katze schläft auf dem warmen Dach."] * 20


def write_tokenizer(folder, texts, special, size=340):
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(texts, vocab_size=size, special_tokens=special[:1], min_frequency=1)
    bpe.add_special_tokens(special[1:])
    bpe.add_tokens([AddedToken("Gartenzaun", normalized=False)] if texts is GERMAN else [])
    PreTrainedTokenizerFast(
        tokenizer_object=bpe._tokenizer, eos_token=special[0], pad_token=special[-1]
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """An English tokenizer whose padding token is not in the vocabulary of its model."""
    return write_tokenizer(tmp_path_factory.mktemp("source"), ENGLISH, ["<|endoftext|>", "<pad>"])


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    return write_tokenizer(tmp_path_factory.mktemp("target"), GERMAN, ["</s>", "<mask>"])


@pytest.fixture(scope="module")
def extended(source, target, tmp_path_factory):
    out = tmp_path_factory.mktemp("extended") / "out"
    return extend_tokenizer(source, target, out), out


@pytest.fixture(scope="module")
def real(shared_data, tmp_path_factory):
    """GPT-2's tokenizer with the tokens of a German one: source, target, extended, extension."""
    out = tmp_path_factory.mktemp("real") / "out"
    names = [shared_data / "tokenizers" / name for name in ("gpt2", "de_bpe50k_focus")]
    extension = extend_tokenizer(*names, out)
    return *map(AutoTokenizer.from_pretrained, [*names, out]), extension


def heldout(shared_data, language):
    with zstandard.open(shared_data / "corpora" / language / "heldout.jsonl.zst", "rt") as lines:
        return [json.loads(line)["text"] for line in lines]


def encode(tokenizer, texts):
    return tokenizer(texts, add_special_tokens=False)["input_ids"]


def test_source_tokens_keep_their_ids_and_new_ones_follow(source, target, extended):
    (new_ids, target_ids), out = extended
    old, german, both = map(AutoTokenizer.from_pretrained, (source, target, out))
    vocabulary = both.get_vocab()
    assert vocabulary.items() >= old.get_vocab().items()
    assert len(set(vocabulary.values())) == len(vocabulary) == len(old) + len(new_ids)
    assert new_ids.tolist() == list(range(len(old), len(vocabulary)))
    assert target_ids.tolist() == sorted(target_ids.tolist())
    tokens = both.convert_ids_to_tokens(new_ids.tolist())
    assert tokens == german.convert_ids_to_tokens(target_ids.tolist())
    ordinary = german.get_vocab().keys() - {"</s>", "<mask>", "Gartenzaun"}
    assert set(tokens) == ordinary - old.get_vocab().keys()
    assert (both.eos_token, both.pad_token) == ("<|endoftext|>", "<pad>")
    assert both("a<pad>")["input_ids"] == old("a<pad>")["input_ids"]


@pytest.mark.parametrize("model_type", [None, "gpt2", "bloom"])
def test_autotokenizer_gives_what_was_saved(extended, tmp_path, model_type):
    folder = tmp_path / "model"
    shutil.copytree(extended[1], folder)
    if model_type:
        (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    loaded = AutoTokenizer.from_pretrained(folder)
    saved = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert json.loads(loaded.backend_tokenizer.to_str())["model"]["ignore_merges"]
    for text in [*ENGLISH[:2], *GERMAN[:2], "Hochhäuser \n\t🙂", "Grün<|endoftext|>"]:
        ids = loaded(text)["input_ids"]
        assert ids == saved.encode(text).ids
        assert loaded.decode(ids) == text
    again = tmp_path / "again"
    loaded.save_pretrained(again)
    assert AutoTokenizer.from_pretrained(again)(GERMAN)["input_ids"] == loaded(GERMAN)["input_ids"]


@pytest.mark.slow
def test_every_new_token_is_reachable(real):
    *_, both, (new_ids, _) = real
    model = both.backend_tokenizer.model
    tokens = both.convert_ids_to_tokens(new_ids.tolist())
    assert len(tokens) == 38_906
    for token, id in zip(tokens, new_ids.tolist(), strict=True):
        assert [piece.id for piece in model.tokenize(token)] == [id]


@pytest.mark.slow
def test_english_is_cut_nearly_as_before(real, shared_data):
    english, _, both, (new_ids, _) = real
    words, changed = 0, 0
    for text in heldout(shared_data, "en")[:60]:
        for word, _ in english.backend_tokenizer.pre_tokenizer.pre_tokenize_str(text):
            before = [piece.id for piece in english.backend_tokenizer.model.tokenize(word)]
            after = [piece.id for piece in both.backend_tokenizer.model.tokenize(word)]
            words += 1
            changed += before != after
            assert before == after or (len(before) > 1 and max(after) >= new_ids[0])
    assert words > 10_000
    assert changed / words < 0.01


@pytest.mark.slow
def test_german_is_nearly_as_short_as_with_its_own_tokenizer(real, shared_data):
    english, german, both, _ = real
    texts = heldout(shared_data, "de")[:60]
    before, best, after = (
        sum(map(len, encode(tokenizer, texts))) for tokenizer in (english, german, both)
    )
    assert best < after < 1.05 * best < 0.7 * before
    assert [both.decode(ids) for ids in encode(both, texts)] == texts


@pytest.mark.slow
def test_special_tokens_that_only_the_class_names_are_kept(shared_data, target, tmp_path):
    """GPT-2's published tokenizer_config.json names no special token."""
    shutil.copytree(shared_data / "tokenizers" / "gpt2", tmp_path / "gpt2")
    (tmp_path / "gpt2" / "tokenizer_config.json").unlink()
    (tmp_path / "gpt2" / "config.json").write_text('{"model_type": "gpt2"}')
    extend_tokenizer(tmp_path / "gpt2", target, tmp_path / "out")
    assert AutoTokenizer.from_pretrained(tmp_path / "out").eos_token == "<|endoftext|>"


def test_a_tokenizer_with_itself_gets_nothing_new(source, tmp_path):
    extension = extend_tokenizer(source, source, tmp_path / "out")
    assert extension.new_ids.tolist() == extension.target_ids.tolist() == []
    before, after = map(AutoTokenizer.from_pretrained, (source, tmp_path / "out"))
    assert after(GERMAN)["input_ids"] == before(GERMAN)["input_ids"]


def test_other_tokenizers_are_refused(source, tmp_path):
    unigram, out = tmp_path / "unigram", tmp_path / "out"
    tokenizer = Tokenizer(models.Unigram([("</s>", 0.0), ("a", -1.0)]))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>").save_pretrained(unigram)
    for pair in [(source, unigram), (unigram, source)]:
        with pytest.raises(UserError, match="unigram has no byte-level BPE tokenizer"):
            extend_tokenizer(*pair, out)
    assert [*tmp_path.iterdir()] == [unigram]


def test_an_existing_folder_is_kept(source, target, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        extend_tokenizer(source, target, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]
