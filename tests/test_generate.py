import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from flax import nnx

from clp_jax import generate
from clp_jax.checkpoint.hf import load_model
from clp_jax.checkpoint.hub import load_tokenizer
from clp_jax.errors import UserError
from clp_jax.generate import generate_batch, generate_text, generate_texts, generate_tokens
from clp_jax.models import Cache


@pytest.mark.parametrize("tiny_model", ["gpt2", "bloom"], indirect=True)
def test_greedy_tokens_are_those_of_transformers(tiny_model):
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    prompt = [5, 17, 250, 3, 99]
    expected = theirs.generate(
        torch.tensor([prompt]), max_new_tokens=20, do_sample=False, eos_token_id=None,
        pad_token_id=0,
    )  # fmt: skip
    ours = generate_tokens(load_model(tiny_model), np.array(prompt), max_new_tokens=20)
    assert ours == expected[0, len(prompt) :].tolist()


def test_suppressed_tokens_are_never_generated(tiny_model):
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    prompt = [5, 17, 250]
    free = generate_tokens(load_model(tiny_model), np.array(prompt), max_new_tokens=8)
    expected = theirs.generate(
        torch.tensor([prompt]), max_new_tokens=8, do_sample=False, eos_token_id=None,
        pad_token_id=0, suppress_tokens=free,
    )  # fmt: skip
    ours = generate_tokens(
        load_model(tiny_model), np.array(prompt), max_new_tokens=8, suppress=free
    )
    assert ours == expected[0, len(prompt) :].tolist()
    assert not set(ours) & set(free)


def test_a_stop_token_ends_the_text(tiny_model):
    model = load_model(tiny_model)
    free = generate_tokens(model, np.array([5, 17]), max_new_tokens=10)
    stopped = generate_tokens(model, np.array([5, 17]), max_new_tokens=10, stop={free[0]})
    assert stopped == []


def test_sampling_depends_on_the_seed_alone(tiny_model):
    model = load_model(tiny_model)

    def sample(seed):
        return generate_tokens(model, np.array([5]), max_new_tokens=12, temperature=1.0, seed=seed)

    assert sample(1) == sample(1) != sample(2)


def test_logits_do_not_depend_on_the_padding_of_the_prompt(tiny_model):
    model = load_model(tiny_model)
    prompt = np.arange(1, 7)
    best = int(jnp.argmax(model(jnp.asarray(prompt)[None])[0, -1]))
    assert generate_tokens(model, prompt, max_new_tokens=1) == [best]


def test_prompts_of_different_lengths_are_continued_together(tiny_model):
    """Each as alone, until its own end, and with its own random numbers."""
    model = load_model(tiny_model)
    prompts = [np.arange(1, 4), np.arange(2, 30), np.array([7])]
    alone = [generate_tokens(model, prompt, max_new_tokens=20) for prompt in prompts]
    assert generate_batch(model, prompts, max_new_tokens=20) == alone
    stop = alone[0][5]
    cut = [generate_tokens(model, prompt, max_new_tokens=20, stop={stop}) for prompt in prompts]
    assert generate_batch(model, prompts, max_new_tokens=20, stop={stop}) == cut
    ended = generate_batch(
        model,
        prompts,
        max_new_tokens=20,
        ended=lambda prompt, tokens: prompt == 1 and len(tokens) >= 4,
    )
    assert ended == [alone[0], alone[1][:4], alone[2]]
    sampled = generate_batch(model, [prompts[0]] * 3, max_new_tokens=12, temperature=1.0)
    assert len({*map(tuple, sampled)}) == 3
    assert generate_tokens(model, prompts[0], max_new_tokens=12, temperature=1.0) == sampled[0]


@pytest.mark.parametrize("tiny_model", ["gpt2"], indirect=True)
def test_mistakes(tiny_model):
    model = load_model(tiny_model)
    with pytest.raises(UserError, match="The prompt is empty"):
        generate_tokens(model, np.array([], np.int32), max_new_tokens=1)
    with pytest.raises(UserError, match="10 tokens and 60 new ones exceed the model's 64"):
        generate_tokens(model, np.arange(10), max_new_tokens=60)


@pytest.mark.parametrize("tiny_model", ["gpt2"], indirect=True)
def test_ids_without_a_row_are_refused(tiny_model):
    model = load_model(tiny_model)
    for prompt in ([5, 300], [-1]):
        with pytest.raises(UserError, match="but the model has 300 rows"):
            generate_tokens(model, np.array(prompt), max_new_tokens=1)


@pytest.mark.parametrize("tiny_model", ["bloom"], indirect=True)
def test_few_programs_serve_many_lengths(tiny_model):
    model = load_model(tiny_model)
    before = generate._begin._cache_size() + generate._continue._cache_size()
    for length in (3, 9, 17, 25, 33, 41, 49):
        generate_tokens(model, np.arange(length), max_new_tokens=length % 7 + 2)
    assert generate._begin._cache_size() + generate._continue._cache_size() - before <= 2


@pytest.mark.parametrize("tiny_model", ["bloom"], indirect=True)
def test_the_cache_is_updated_in_place(tiny_model):
    """Beside its inputs a step needs less memory than half of the cache."""
    model = load_model(tiny_model)
    graphdef, params = nnx.split(model)
    cache = Cache.empty(model, 1 << 14, jnp.array([3]))._replace(used=jnp.int32(5))
    choice = generate._Choice(0.0, 0, np.ones(300, bool), np.zeros(300, bool))
    token, done = np.array([5], np.int32), np.array([False])
    compiled = generate._continue.lower(graphdef, params, cache, token, done, 9, choice).compile()
    memory = compiled.memory_analysis()
    size = cache.key.nbytes + cache.value.nbytes
    assert memory.alias_size_in_bytes >= size
    assert memory.temp_size_in_bytes < 1.6 * size / model.config.num_layers


def test_no_more_is_generated_than_is_asked(tiny_model):
    model = load_model(tiny_model)
    asked = []

    def ended(tokens):
        asked.append(len(tokens))
        return len(tokens) >= 4

    tokens = generate_tokens(model, np.array([5, 17]), max_new_tokens=30, ended=ended)
    assert asked == [1, 2, 4]
    assert tokens == generate_tokens(model, np.array([5, 17]), max_new_tokens=4)


def test_text_is_computed_in_float32_on_cpus_or_as_asked(tiny_model):
    exact, by_default, rough = (
        generate_text(tiny_model, "Die", max_new_tokens=5, temperature=0, dtype=dtype)
        for dtype in ("float32", None, "bfloat16")
    )
    assert exact == by_default
    assert rough.startswith("Die")
    with pytest.raises(UserError, match="compute in float32 or bfloat16"):
        generate_text(tiny_model, "Die", dtype="int8")


def test_text_begins_with_its_prompt(tiny_model):
    text = generate_text(tiny_model, "Die Katze", max_new_tokens=5, seed=3)
    assert text.startswith("Die Katze")
    greedy = {"max_new_tokens": 5, "temperature": 0.0, "seed": 0}
    prompts = ["Die Katze", ""]
    alone = [generate_text(tiny_model, prompt, **greedy) for prompt in prompts]
    assert generate_texts(tiny_model, prompts, **greedy) == alone


def test_a_models_own_settings_say_what_is_suppressed(tiny_model, tmp_path):
    model = shutil.copytree(tiny_model, tmp_path / "model")
    (model / "generation_config.json").write_text(
        json.dumps({"suppress_tokens": [id for id in range(300) if id != 7]})
    )
    seven = load_tokenizer(model).decode([7])
    assert generate_text(model, "Die", max_new_tokens=3) == f"Die{seven * 3}"


@pytest.mark.parametrize("tiny_model", ["gpt2"], indirect=True)
@pytest.mark.parametrize("ends", [7, [3, 7]])
def test_a_models_own_settings_say_where_a_text_ends(tiny_model, tmp_path, ends):
    model = shutil.copytree(tiny_model, tmp_path / "model")
    settings = {"suppress_tokens": [id for id in range(300) if id != 7], "eos_token_id": ends}
    (model / "generation_config.json").write_text(json.dumps(settings))
    assert generate_text(model, "Die", max_new_tokens=3) == "Die"
    (model / "generation_config.json").write_text(json.dumps({"eos_token_id": "</s>"}))
    with pytest.raises(UserError, match="eos_token_id is '</s>', but must name token ids"):
        generate_text(model, "Die")
