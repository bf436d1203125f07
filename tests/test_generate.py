import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from clp_jax.checkpoint.hf import load_model
from clp_jax.checkpoint.hub import load_tokenizer
from clp_jax.errors import UserError
from clp_jax.generate import generate_text, generate_tokens


def test_greedy_tokens_are_those_of_transformers(tiny_model):
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    prompt = [5, 17, 250, 3, 99]
    expected = theirs.generate(
        torch.tensor([prompt]), max_new_tokens=20, do_sample=False, eos_token_id=None,
        pad_token_id=0,
    )  # fmt: skip
    ours = generate_tokens(load_model(tiny_model), np.array(prompt), max_new_tokens=20)
    assert ours == expected[0, len(prompt) :].tolist()


def test_suppressed_tokens_are_never_said(tiny_model):
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


@pytest.mark.parametrize("tiny_model", ["gpt2"], indirect=True)
def test_mistakes(tiny_model):
    model = load_model(tiny_model)
    with pytest.raises(UserError, match="The prompt is empty"):
        generate_tokens(model, np.array([], np.int32), max_new_tokens=1)
    with pytest.raises(UserError, match="10 tokens and 60 new ones are more than the model's 64"):
        generate_tokens(model, np.arange(10), max_new_tokens=60)


def test_text_begins_with_its_prompt(tiny_model):
    text = generate_text(tiny_model, "Die Katze", max_new_tokens=5, seed=3)
    assert text.startswith("Die Katze")
    assert generate_text(tiny_model, "", max_new_tokens=2) is not None


def test_a_models_own_settings_say_what_is_suppressed(tiny_model, tmp_path):
    model = shutil.copytree(tiny_model, tmp_path / "model")
    (model / "generation_config.json").write_text(
        json.dumps({"suppress_tokens": [id for id in range(300) if id != 7]})
    )
    seven = load_tokenizer(model).decode([7])
    assert generate_text(model, "Die", max_new_tokens=3) == f"Die{seven * 3}"
