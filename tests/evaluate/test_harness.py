import copy
import json
import sys
from dataclasses import replace

import jax
import numpy as np
import pytest
import tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from clp_jax.checkpoint.hf import load_model
from clp_jax.checkpoint.hub import load_tokenizer
from clp_jax.data.corpus.store import Corpus
from clp_jax.errors import UserError
from clp_jax.evaluate.perplexity import measure_perplexity
from clp_jax.mesh import make_mesh

pytest.importorskip("lm_eval")
from lm_eval.api.instance import Instance

from clp_jax.evaluate import likelihoods
from clp_jax.evaluate.harness import JaxLM

PAIRS = [
    ("Der Hund läuft über", " die Straße"),
    ("Der Hund läuft über", " die"),
    ("Der Hund läuft über ", "die Straße, und die Katze sieht ihm zu."),
    ("Antwort:", " Nein"),
    ("Antwort:", " Ja"),
    ("", "Es regnet."),
    ("Am Abend liest sie ein Buch.\n\n", "Es regnet"),
    ("<|endoftext|>Am Abend", " liest sie"),
    ("Zwölf Boxkämpfer jagen Viktor quer. " * 20, "Es regnet am Abend."),
    ("ü" * 400, " Nein"),
    ("Der Hund läuft, und die Katze sieht ihm zu. " * 4, "Es regnet am Abend."),
    ("Der Hund läuft, und die Katze sieht ihm zu. " * 4, "Nein, sie liest."),
    ("Der Hund läuft, und die Katze sieht ihm zu. " * 4, "Nein"),
    ("Antwort:", " Ja"),
]


def requests(kind, arguments):
    return [
        Instance(request_type=kind, doc={}, arguments=argument, idx=i)
        for i, argument in enumerate(arguments)
    ]


@pytest.fixture(scope="module")
def ours(model_folder, tokenizer):
    return JaxLM(load_model(model_folder), tokenizer, batch_size=1)


@pytest.fixture(scope="module")
def theirs(model_folder):
    pytest.importorskip("torch")
    from lm_eval.models.huggingface import HFLM

    return HFLM(str(model_folder), device="cpu", dtype="float32", batch_size=4)


TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
"""Of conversations."""


@pytest.mark.parametrize("place", ["a file", "the settings", "one of several"])
def test_a_conversation_is_spelled_as_by_transformers(place, model_folder, tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    if place == "a file":
        (tmp_path / "chat_template.jinja").write_text(TEMPLATE)
    else:
        several = [{"name": "other", "template": "?"}, {"name": "default", "template": TEMPLATE}]
        settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
        settings["chat_template"] = TEMPLATE if place == "the settings" else several
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    model = JaxLM(load_model(model_folder), load_tokenizer(tmp_path))
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    asked = [{"role": "user", "content": "Wer sitzt?"}]
    answered = [*asked, {"role": "assistant", "content": "Die"}]
    for history, prompt in ((asked, True), (answered, False)):
        expected = theirs.apply_chat_template(
            history,
            tokenize=False,
            add_generation_prompt=prompt,
            continue_final_message=not prompt,
        )
        assert model.apply_chat_template(history, add_generation_prompt=prompt) == expected
    assert model.tok_encode(expected)[:2].count(tokenizer.bos_token_id) == 1
    assert model.chat_template(True) == TEMPLATE


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        (None, "has no chat template: leave out"),
        ("{% for m in messages %}", r"cannot spell a question \(.*\): leave out"),
        ("{{ raise_exception('No users here.') }}", r"question \(No users here\.\): leave out"),
        ("{{ 1 + 'a' }}", r"question \(unsupported operand .*\): leave out"),
    ],
)
def test_a_conversation_that_cannot_be_spelled_is_reported(ours, template, sentence):
    model = copy.copy(ours)
    model.tokenizer = replace(ours.tokenizer, chat_template=template)
    with pytest.raises(UserError, match=sentence):
        model.apply_chat_template([{"role": "user", "content": "Wer?"}])


def test_log_likelihoods_equal_those_of_the_hf_model(ours, theirs):
    asked = requests("loglikelihood", PAIRS)
    our_answers = ours.loglikelihood(asked, disable_tqdm=True)
    their_answers = theirs.loglikelihood(asked, disable_tqdm=True)
    np.testing.assert_allclose(
        [value for value, _ in our_answers],
        [value for value, _ in their_answers],
        rtol=0,
        atol=1e-4,
    )
    assert [greedy for _, greedy in our_answers] == [greedy for _, greedy in their_answers]


def test_a_greedy_continuation_is_distinguished_from_another(ours, theirs, tokenizer):
    context = "Am Abend"
    text = ours.generate_until(
        requests("generate_until", [(context, {"max_gen_toks": 1})]), disable_tqdm=True
    )[0]
    asked = requests("loglikelihood", [(context, text), (context, text + " Nein")])
    greedy = [flag for _, flag in ours.loglikelihood(asked, disable_tqdm=True)]
    assert greedy == [True, False]
    assert greedy == [flag for _, flag in theirs.loglikelihood(asked, disable_tqdm=True)]


def test_rolling_log_likelihoods_equal_those_of_the_hf_model(ours, theirs, texts):
    documents = [*texts, " ".join(texts * 4), ""]
    asked = requests("loglikelihood_rolling", [(text,) for text in documents])
    np.testing.assert_allclose(
        ours.loglikelihood_rolling(asked, disable_tqdm=True),
        theirs.loglikelihood_rolling(asked, disable_tqdm=True),
        rtol=1e-6,
        atol=1e-4,
    )
    [empty] = ours.loglikelihood_rolling(asked[-1:], disable_tqdm=True)
    assert isinstance(empty, float)


def test_perplexity_counts_what_the_harness_counts_and_the_end_of_the_text(
    ours, theirs, texts, tokenizer
):
    text = texts[0]
    (rolling,) = theirs.loglikelihood_rolling(
        requests("loglikelihood_rolling", [(text,)]), disable_tqdm=True
    )
    ids = tokenizer.encode(text)
    end = [(None, [tokenizer.eos_token_id, *ids], [tokenizer.eos_token_id])]
    ((ending, _),) = theirs._loglikelihood_tokens(end, disable_tqdm=True)
    figures = measure_perplexity(
        ours.model, Corpus.from_documents([text], tokenizer), sequence_length=128, batch_size=1
    )
    assert figures.tokens == len(ids) + 1
    assert figures.nll == pytest.approx(-rolling - ending, rel=1e-5)


@pytest.mark.parametrize("until", [[], ["e"], "r"])
def test_generations_equal_those_of_the_hf_model(ours, theirs, texts, until):
    arguments = [(text, {"until": until, "max_gen_toks": 12}) for text in (texts[1], texts[0] * 20)]
    for argument in arguments:  # one by one: the hf model pads its batches
        asked = requests("generate_until", [argument])
        assert ours.generate_until(asked, disable_tqdm=True) == theirs.generate_until(
            asked, disable_tqdm=True
        )


def test_equal_on_a_mesh(ours, model_folder, tokenizer):
    mesh = make_mesh(1, 2, 2, devices=jax.devices()[:4])
    spread = JaxLM(load_model(model_folder, mesh=mesh), tokenizer, batch_size=1, mesh=mesh)
    asked = requests("loglikelihood", PAIRS[:4] + PAIRS[-4:])
    np.testing.assert_allclose(
        [value for value, _ in spread.loglikelihood(asked, disable_tqdm=True)],
        [value for value, _ in ours.loglikelihood(asked, disable_tqdm=True)],
        rtol=0,
        atol=1e-4,
    )


def test_a_model_without_a_longest_position_equals_the_hf_model(tmp_path, tokenizer):
    torch = pytest.importorskip("torch")
    from lm_eval.models.huggingface import HFLM
    from transformers import BloomConfig, BloomForCausalLM

    torch.manual_seed(0)
    config = BloomConfig(vocab_size=len(tokenizer), hidden_size=32, n_layer=1, n_head=4)
    BloomForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    ours = JaxLM(load_model(tmp_path), tokenizer)
    theirs = HFLM(str(tmp_path), device="cpu", dtype="float32")
    assert ours.max_length == theirs.max_length
    asked = requests("loglikelihood", PAIRS[:4])
    np.testing.assert_allclose(
        [value for value, _ in ours.loglikelihood(asked, disable_tqdm=True)],
        [value for value, _ in theirs.loglikelihood(asked, disable_tqdm=True)],
        rtol=0,
        atol=1e-4,
    )


def test_few_programs_are_compiled(model_folder, tokenizer, texts):
    """One for each padded length and one for the last batch; other questions add none."""
    model = JaxLM(load_model(model_folder), tokenizer, batch_size=1)
    programs = likelihoods._score_rows._cache_size
    words = " ".join(texts).split()
    contexts = [" ".join(words[:n]) for n in range(1, len(words))]
    lengths = {len(tokenizer.encode(context)) for context in contexts}
    padded = {likelihoods.padded_length(length, model.max_length) for length in lengths}
    assert len(lengths) > 3 * len(padded)
    before = programs()
    for answer in (" Ja", " Nein"):
        pairs = [(context, answer) for context in contexts]
        model.loglikelihood(requests("loglikelihood", pairs), disable_tqdm=True)
        assert programs() - before <= len(padded) + 1


@pytest.mark.parametrize(
    ("template", "opening"), [("$A <|endoftext|>", 0), ("<|endoftext|> $A", 1)]
)
def test_special_tokens_of_a_tokenizers_own_come_before_a_text_only(
    ours, tokenizer, template, opening
):
    """What it puts behind a text is dropped; what it puts before one stands there once."""
    marked = tokenizers.Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    eos = tokenizer.eos_token_id
    marked.post_processor = TemplateProcessing(
        single=template, special_tokens=[("<|endoftext|>", eos)]
    )
    own = JaxLM(
        ours.model,
        PreTrainedTokenizerFast(tokenizer_object=marked, eos_token="<|endoftext|>"),
        batch_size=1,
    )
    prefix = "<|endoftext|>" * opening
    pairs = [(f"{prefix}Antwort:", " Ja"), (f"{prefix}Der Hund läuft über", " die Straße")]
    bare = [(context.removeprefix(prefix), continuation) for context, continuation in pairs]
    assert own.loglikelihood(requests("loglikelihood", bare), disable_tqdm=True) == (
        ours.loglikelihood(requests("loglikelihood", pairs), disable_tqdm=True)
    )
    rolling = requests("loglikelihood_rolling", [("Es regnet am Abend.",)])
    assert own.loglikelihood_rolling(rolling, disable_tqdm=True) == (
        ours.loglikelihood_rolling(rolling, disable_tqdm=True)
    )


def test_a_token_over_the_end_of_a_context_ends_no_run(model_folder):
    """The continuation is encoded alone where one token holds it and the context's end."""
    backend = tokenizers.Tokenizer(
        tokenizers.models.BPE({"a": 0, ":": 1, "b": 2, ":b": 3, "!": 4}, [(":", "b")])
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="!")
    model = JaxLM(load_model(model_folder), fast)
    assert model._encode_pair("a:", "b") == ([0, 1], [2])
    assert model._encode_pair("a", ":b") == ([0], [3])
    assert model._encode_pair(" ", "b") == ([4], [2])
    scores = model.loglikelihood(requests("loglikelihood", [("a:", "b")]), disable_tqdm=True)
    assert scores[0][0] < 0


def test_generation_ends_at_the_stop(ours, monkeypatch):
    context = "Am Abend"
    whole = ours.generate_until(
        requests("generate_until", [(context, {"max_gen_toks": 40})]), disable_tqdm=True
    )[0]
    sizes = []
    decode = ours.tokenizer.decode_after
    monkeypatch.setattr(
        type(ours.tokenizer),
        "decode_after",
        lambda self, context, ids, **options: (
            sizes.append(len(ids)) or decode(context, ids, **options)
        ),
    )
    asked = requests("generate_until", [(context, {"max_gen_toks": 40, "until": [whole[:1]]})])
    assert ours.generate_until(asked, disable_tqdm=True) == [""]
    assert max(sizes) <= 2


def test_ids_without_a_row_are_refused(ours, tokenizer):
    larger = copy.deepcopy(tokenizer)
    larger.add_tokens(["Kraftfahrzeughaftpflicht"])
    with pytest.raises(UserError, match="The model has 397 rows, but its tokenizer has ids up to"):
        JaxLM(ours.model, larger)


def test_what_cannot_be_scored_is_refused(ours):
    with pytest.raises(UserError, match="cannot be scored"):
        ours.loglikelihood(requests("loglikelihood", [("Am Abend", "ü" * 400)]))


def test_nothing_is_certain(ours):
    asked = requests("loglikelihood", [("Am Abend", "")])
    assert ours.loglikelihood(asked, disable_tqdm=True) == [(0.0, True)]


def test_without_the_harness_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval.api.instance", None)
    monkeypatch.delitem(sys.modules, "clp_jax.evaluate.harness")
    with pytest.raises(UserError, match=r"pip install clp-jax\[eval\]"):
        import clp_jax.evaluate.harness  # noqa: F401
