import json
import pickle
import random
import shutil

import numpy as np
import pytest
import tokenizers
from tokenizers import processors
from transformers import PreTrainedTokenizerFast

from clp_jax.data.corpus.store import Corpus, write_corpus
from clp_jax.errors import UserError
from clp_jax.tokenizer import Tokenizer, long, read_tokenizer

WORDS = [
    "Fluss",
    "Stadt",
    "liegt",
    "am",
    "u\u0308ber",
    "Größe",
    "1989",
    "東京",
    "größer",
    "😀",
    "ﬁn",
]
GAPS = [" ", " ", " ", "  ", "\n", "\u00a0", ", ", "", " - "]


def some_text(characters, seed=0):
    rng = random.Random(seed)
    parts = (rng.choice(WORDS) + rng.choice(GAPS) for _ in range(characters))
    return "".join(parts)[:characters]


def whole(folder, text):
    """The ids of the library, of the file, of the text as one."""
    return reference(folder).encode(text, add_special_tokens=False).ids


def reference(folder):
    return tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))


@pytest.fixture
def tokenizer(folder):
    return read_tokenizer(folder, "it")


def test_ids_are_those_of_the_file_as_it_is_written(folder, tokenizer):
    for text in ("", " ", some_text(500), "  Im Jahr 1989 kamen u\u0308ber 100000 Menschen. "):
        assert tokenizer.encode(text) == whole(folder, text)
    texts = [some_text(n, n) for n in range(0, 200, 7)]
    for ids, text in zip(tokenizer.encode_batch(texts), texts, strict=True):
        assert ids.dtype == np.uint16
        assert ids.tolist() == whole(folder, text)


@pytest.mark.parametrize("seed", range(3))
def test_a_long_text_has_the_ids_of_the_text_as_one(folder, tokenizer, monkeypatch, seed):
    sizes = {"LONG": 2000, "_LONGEST": 8000, "_OVERLAP": 200}
    for name, size in sizes.items():
        monkeypatch.setattr(long, name, size)
    text = some_text(30_000, seed)
    ids = long.encode_long(tokenizer.backend, text)
    assert ids.tolist() == whole(folder, text)


def test_texts_longer_than_a_part_are_encoded_in_parts(folder_of):
    folder = folder_of("byte_fallback")
    text = some_text(3 * long.LONG)
    assert read_tokenizer(folder, "it").encode(text) == whole(folder, text)


def test_parts_without_a_common_token_are_one_part(folder_of, monkeypatch):
    """Ten thousand dots: where a part begins decides how they are paired."""
    monkeypatch.setattr(long, "LONG", 1000)
    monkeypatch.setattr(long, "_LONGEST", 100_000)
    monkeypatch.setattr(long, "_OVERLAP", 100)
    model = tokenizers.models.BPE({".": 0, "..": 1, "...": 2}, [(".", "."), ("..", ".")])
    backend = tokenizers.Tokenizer(model)
    text = "." * 10_001
    expected = backend.encode(text).ids
    assert long.encode_long(backend, text).tolist() == expected


def test_a_document_is_what_opens_it_its_text_and_its_end(folder_of):
    text = "Die Stadt liegt am Fluss."
    for kind, opening in (("byte_level", []), ("byte_fallback", [1]), ("unigram", [])):
        tokenizer = read_tokenizer(folder_of(kind), kind)
        ids = tokenizer.encode(text)
        assert tokenizer.encode_context(text) == [*opening, *ids]
        assert tokenizer.encode_documents([text])[0].tolist() == [*opening, *ids, tokenizer.eos]


def test_a_text_begins_as_transformers_begins_it(folder_of, tmp_path):
    """As in Llama 3: one post-processor moves the offsets, another puts bos before the text."""
    folder = shutil.copytree(folder_of("byte_level"), tmp_path / "it")
    backend = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    bos = backend.token_to_id("<s>")
    backend.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", bos)]),
        ]
    )
    backend.save(str(folder / "tokenizer.json"))
    ours, text = read_tokenizer(folder, "it"), "Die Stadt liegt am Fluss."
    (folder / "tokenizer_config.json").unlink()
    theirs = PreTrainedTokenizerFast.from_pretrained(folder)(text).input_ids
    assert theirs[0] == bos
    assert ours.encode_context(text) == theirs
    assert ours.encode_documents([text])[0].tolist() == [*theirs, ours.eos]
    write_corpus([text], ours, tmp_path / "corpus")
    stored = Corpus.open(tmp_path / "corpus").tokens().tolist()
    assert stored == [ours.eos, *theirs, ours.eos]
    assert json.loads((tmp_path / "corpus" / "manifest.json").read_text())["opening_ids"] == [bos]


def test_only_a_prompt_may_spell_special_tokens(folder_of):
    tokenizer = read_tokenizer(folder_of("byte_fallback"), "it")
    assert tokenizer.encode_context("<s>Fluss</s>")[0] == tokenizer.bos
    assert tokenizer.encode_context("<s>Fluss</s>").count(tokenizer.bos) == 1
    assert tokenizer.encode_context("<s>Fluss</s>")[-1] == tokenizer.eos
    assert not {tokenizer.bos, tokenizer.eos} & {*tokenizer.encode("<s>Fluss</s>")}


def test_text_round_trips(folder, tokenizer):
    text = "Die Stadt liegt am Fluss."
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == reference(folder).decode(ids)


def test_the_space_between_prompt_and_what_follows_is_kept(folder, tokenizer):
    text = "Die Stadt liegt am Fluss"
    ids = tokenizer.encode(text)
    decoded = reference(folder).decode(ids)
    for cut in range(1, len(ids)):
        before = reference(folder).decode(ids[:cut])
        assert before + tokenizer.decode_after(ids[:cut], ids[cut:]) == decoded


def test_added_words_are_spelled_as_they_were_added(folder_of):
    tokenizer = read_tokenizer(folder_of("byte_level"), "it")
    ids = tokenizer.encode("Der Fluss wird größer.")
    assert tokenizer.vocabulary["größer"] in ids
    assert "wird größer" in tokenizer.decode(ids)


def test_special_tokens_are_left_out_where_that_is_asked(folder_of):
    tokenizer = read_tokenizer(folder_of("byte_fallback"), "it")
    ids = [*tokenizer.encode("Fluss"), tokenizer.eos]
    assert tokenizer.decode(ids) == "Fluss</s>"
    assert tokenizer.decode(ids, skip_special=True) == "Fluss"


def test_bytes_that_become_unknown_tokens_are_counted(folder_of):
    tokenizer = read_tokenizer(folder_of("unigram"), "it")
    assert tokenizer.unknown_bytes("Die Stadt liegt am Fluss.") == 0
    assert tokenizer.unknown_bytes("Die ᚠᚢᚦ Stadt") == len("ᚠᚢᚦ".encode())
    pieced = read_tokenizer(folder_of("wordpiece"), "it")
    assert pieced.unknown_bytes("die Stadtᚠ") == len("Stadtᚠ".encode())
    assert read_tokenizer(folder_of("byte_level"), "it").unknown_bytes("ᚠᚢᚦ") == 0


def test_a_tokenizer_in_memory_is_the_one_of_its_file(folder, tokenizer):
    fast = PreTrainedTokenizerFast(tokenizer_object=reference(folder), model_max_length=77)
    fast.backend_tokenizer.enable_truncation(3)
    fast.backend_tokenizer.enable_padding(length=50)
    ours = Tokenizer.of(fast)
    text = some_text(300)
    assert ours.encode(text) == tokenizer.encode(text)
    assert ours.opening == tokenizer.opening
    assert ours.max_length == 77
    assert Tokenizer.of(ours) is ours


def test_other_processes_get_the_same_tokenizer(tokenizer):
    text = some_text(300)
    tokenizer.encode(text)
    assert pickle.loads(pickle.dumps(tokenizer)).encode(text) == tokenizer.encode(text)


def test_ids_without_a_row_are_refused(tokenizer):
    tokenizer.check_rows(tokenizer.rows, "The model")
    with pytest.raises(UserError, match=r"The model has \d+ rows, but its tokenizer has ids up to"):
        tokenizer.check_rows(tokenizer.rows - 1, "The model")


def test_a_corpus_needs_an_end_of_text(folder):
    bare = Tokenizer.from_backend("bare", reference(folder), {"eos": "<|not there|>"})
    with pytest.raises(UserError, match="bare has no end-of-text token"):
        bare.encode_documents(["Fluss"])


@pytest.mark.parametrize(
    ("single", "ids", "opening"),
    [
        ([], [1], ()),
        ([{"SpecialToken": {"id": "<s>", "type_id": 0}}], [1], ()),
        ([{"Sequence": {"id": "A", "type_id": 0}}] * 2, [1], ()),
        (["mark", {"Sequence": {"id": "A", "type_id": 0}}], [1], (1,)),
        (["mark", {"Sequence": {"id": "A", "type_id": 0}}], [10**6], None),
    ],
)
def test_odd_templates_open_no_text_and_unknown_ids_are_refused(folder_of, single, ids, opening):
    state = json.loads((folder_of("byte_fallback") / "tokenizer.json").read_text())
    mark = {"SpecialToken": {"id": "<s>", "type_id": 0}}
    state["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [mark if part == "mark" else part for part in single],
        "pair": [],
        "special_tokens": {"<s>": {"id": "<s>", "ids": ids, "tokens": ["<s>"]}},
    }
    backend = tokenizers.Tokenizer.from_str(json.dumps(state))
    if opening is None:
        with pytest.raises(UserError, match="puts the id 1000000 before a text, but no token has"):
            Tokenizer.from_backend("odd", backend, {})
    else:
        assert Tokenizer.from_backend("odd", backend, {}).opening == opening


def test_two_tokens_with_the_same_id_are_refused():
    model = tokenizers.models.BPE({"a": 0, "b": 1, "ab": 2, "abb": 0}, [("a", "b"), ("ab", "b")])
    with pytest.raises(UserError, match="The tokenizer in m gives the same id to several tokens"):
        Tokenizer.from_backend("m", tokenizers.Tokenizer(model), {})
