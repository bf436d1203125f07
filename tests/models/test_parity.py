"""The ladder: logits, gradients, one AdamW step, export and reload equal PyTorch's transformers."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
import transformers
from flax import nnx

from clp_jax.checkpoint.hf import load_model, model_tensors, save_model
from clp_jax.checkpoint.tensors import open_tensors
from clp_jax.config import OptimizerSection
from clp_jax.generate import generate_tokens
from clp_jax.loss import next_token_loss
from clp_jax.mesh import make_mesh
from clp_jax.train.optimizer import make_optimizer

from ..marks import slow

RELATIVE = 1e-4

NO_DROPOUT = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
MODERN = {
    "hidden_size": 48,
    "intermediate_size": 72,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
BASES = {
    "gpt2": {"n_embd": 48, "n_layer": 3, "n_head": 4, "n_positions": 40, **NO_DROPOUT},
    "bloom": {"hidden_size": 48, "n_layer": 3, "n_head": 6},
    "gemma2": {**MODERN, "head_dim": 12},
    "gemma3_text": {**MODERN, "head_dim": 12},
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "olmo2", "smollm3"), MODERN),
}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 500.0, "factor": 4.0, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0, "original_max_position_embeddings": 16}  # fmt: skip
CONFIGS = {
    "gpt2": ("gpt2", {}),
    "gpt2-odd": (
        "gpt2",
        {
            "n_embd": 33,
            "n_head": 3,
            "n_inner": 71,
            "vocab_size": 77,
            "tie_word_embeddings": False,
            "layer_norm_epsilon": 1e-2,
            "activation_function": "gelu",
        },
    ),
    "gpt2-scaled-by-layer": ("gpt2", {"scale_attn_by_inverse_layer_idx": True, "n_head": 1}),
    "gpt2-unscaled": ("gpt2", {"scale_attn_weights": False, "activation_function": "relu"}),
    "bloom": ("bloom", {}),
    "bloom-odd": (
        "bloom",
        {"hidden_size": 35, "n_head": 5, "vocab_size": 77, "tie_word_embeddings": False},
    ),
    "bloom-residual-after-norm": (
        "bloom",
        {
            "apply_residual_connection_post_layernorm": True,
            "layer_norm_epsilon": 1e-2,
            "n_head": 8,
        },
    ),
    "llama": (
        "llama",
        {"rope_parameters": LLAMA3, "num_attention_heads": 4, "tie_word_embeddings": False},
    ),
    "llama-odd": (
        "llama",
        {
            "hidden_size": 35,
            "num_attention_heads": 5,
            "num_key_value_heads": 1,
            "head_dim": 6,
            "intermediate_size": 71,
            "vocab_size": 77,
            "attention_bias": True,
            "mlp_bias": True,
            "hidden_act": "gelu",
            "rms_norm_eps": 1e-2,
        },
    ),
    "mistral": ("mistral", {"sliding_window": 7, "num_key_value_heads": 3, "head_dim": 10}),
    "qwen2": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
    ),
    "qwen3": ("qwen3", {"head_dim": 14, "tie_word_embeddings": False}),
    "olmo2": ("olmo2", {"tie_word_embeddings": False}),
    "gemma2": (
        "gemma2",
        {
            "num_hidden_layers": 4,
            "sliding_window": 6,
            "query_pre_attn_scalar": 20,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 3.0,
            "attention_bias": True,
        },
    ),
    # Two periods of three layers, and one layer more.
    "gemma3": (
        "gemma3_text",
        {
            "num_hidden_layers": 7,
            "num_key_value_heads": 1,
            "head_dim": 10,
            "sliding_window": 5,
            "layer_types": [
                *(["sliding_attention"] * 2 + ["full_attention"]) * 2,
                "sliding_attention",
            ],
            "tie_word_embeddings": False,
        },
    ),
    "smollm3": (
        "smollm3",
        {
            "num_hidden_layers": 5,
            "no_rope_layer_interval": 2,
            "use_sliding_window": True,
            "sliding_window": 9,
        },
    ),
}


VARIANTS = {
    "gpt2-odd",
    "gpt2-scaled-by-layer",
    "gpt2-unscaled",
    "bloom-odd",
    "bloom-residual-after-norm",
    "llama-odd",
}
"""Of these architectures, other configurations are tested without ``--all``."""


@pytest.fixture(
    scope="module",
    params=[slow(name) if name in VARIANTS else name for name in CONFIGS],
    ids=str,
)
def case(request, tmp_path_factory):
    """A random PyTorch model, its folder, and a batch of tokens."""
    kind, changes = CONFIGS[request.param]
    tokens = {"vocab_size": 101, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}
    tied = {"tie_word_embeddings": True}
    config = transformers.AutoConfig.for_model(kind, **(tokens | tied | BASES[kind] | changes))
    generator = torch.manual_seed(len(request.param))
    theirs = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    with torch.no_grad():
        for parameter in theirs.parameters():  # biases and scales are not left at 0 and 1
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    folder = tmp_path_factory.mktemp(request.param)
    theirs.save_pretrained(folder)
    tokens = torch.randint(0, 77, (2, 33), generator=generator)
    return theirs.eval(), folder, tokens


def error(ours, theirs) -> float:
    theirs = theirs.detach().numpy()
    return float(np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max())


def compute(model, tokens):
    """Structure, parameters, logits, loss and gradients of our model on the batch."""
    graphdef, params = nnx.split(model)
    params = nnx.to_pure_dict(params)

    @jax.jit
    @partial(jax.value_and_grad, has_aux=True)
    def loss_of(params, tokens):
        model = nnx.merge(graphdef, params)
        hidden, head = model.hidden_states(tokens, remat="full"), model.output_embedding()
        softcap = model.config.final_softcap
        mask = jnp.ones(tokens[:, 1:].shape, bool)
        total, sums = next_token_loss(
            hidden[:, :-1], head, tokens[:, 1:], mask, chunk=7, softcap=softcap
        )
        return total / sums.tokens, model.logits(hidden)

    (loss, logits), gradients = loss_of(params, jnp.asarray(tokens.numpy()))
    return graphdef, params, logits, loss, gradients


@pytest.fixture(scope="module")
def computed(case):
    """What `compute` returns, on one device."""
    _, folder, tokens = case
    return compute(load_model(folder), tokens)


def test_logits(case, computed):
    theirs, _, tokens = case
    logits = computed[2]
    assert logits.dtype == jnp.float32
    assert error(logits, theirs(tokens).logits) < RELATIVE


@pytest.mark.parametrize("case", [slow("gpt2"), slow("bloom"), "smollm3"], indirect=True)
def test_hidden_states_after_inner_layers_are_numbered_as_by_transformers(case):
    theirs, folder, tokens = case
    model = load_model(folder)
    layers = (0, 2, model.config.num_layers)
    found = jax.jit(lambda tokens: model.hidden_states_after(layers, tokens))(tokens.numpy())
    expected = theirs(tokens, output_hidden_states=True).hidden_states
    for layer in layers:
        assert error(found[layer], expected[layer]) < RELATIVE, layer


def test_gradients(case, computed):
    theirs, _, tokens = case
    theirs.zero_grad()
    expected_loss = theirs(tokens, labels=tokens).loss
    expected_loss.backward()
    graphdef, _, _, loss, gradients = computed
    assert error(loss, expected_loss) < RELATIVE
    named = model_tensors(nnx.merge(graphdef, gradients))
    expected = dict(theirs.named_parameters())
    assert named.keys() == expected.keys()
    # A gradient that is zero in theory (that of the keys' bias) is rounding noise on both sides.
    floor = 1e-4 * max(float(p.grad.abs().max()) for p in expected.values())
    for name, parameter in expected.items():
        difference = np.abs(named[name].read() - parameter.grad.numpy()).max()
        assert difference < RELATIVE * max(float(parameter.grad.abs().max()), floor), name


def test_one_adamw_step(case, computed):
    _, folder, tokens = case
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager"
    ).eval()
    # Large epsilon: Adam divides by the gradient's size, which would turn the rounding noise of
    # gradients that are zero in theory into full steps.
    section = OptimizerSection(learning_rate=1e-2, epsilon=1e-3, clip_norm=0.5, schedule="constant")
    decayed, plain = [], []
    for name, parameter in theirs.named_parameters():
        norm_or_bias = name.endswith("bias") or "ln_" in name or "norm" in name
        (plain if norm_or_bias else decayed).append(parameter)
    optimizer = torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": section.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ],
        lr=section.learning_rate,
        betas=(section.beta1, section.beta2),
        eps=section.epsilon,
    )
    theirs(tokens, labels=tokens).loss.backward()
    torch.nn.utils.clip_grad_norm_(theirs.parameters(), section.clip_norm)
    optimizer.step()

    update = make_optimizer(section, steps=10)

    @jax.jit
    def step(params, gradients):
        updates, _ = update.update(gradients, update.init(params), params, index=0)
        return optax.apply_updates(params, updates)

    graphdef, params, _, _, gradients = computed
    expected = dict(theirs.named_parameters())
    for name, tensor in model_tensors(nnx.merge(graphdef, step(params, gradients))).items():
        assert error(tensor.read(), expected[name]) < RELATIVE, name


def test_export_reloads_in_pytorch_with_equal_logits_and_the_same_bits(case, tmp_path):
    theirs, folder, tokens = case
    save_model(load_model(folder), tmp_path / "out", origin=folder)
    before, after = open_tensors(folder), open_tensors(tmp_path / "out")
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert tensor.dtype == after[name].dtype
        assert tensor.read().tobytes() == after[name].read().tobytes(), name
    again = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", attn_implementation="eager"
    ).eval()
    assert torch.equal(again(tokens).logits, theirs(tokens).logits)


@pytest.mark.parametrize(
    "sizes", [slow((8, 1, 1)), slow((1, 8, 1)), slow((1, 1, 2)), (2, 2, 2)], ids=str
)
@pytest.mark.parametrize("case", ["gpt2", "bloom"], indirect=True)
def test_every_mesh_gives_the_same_logits(case, sizes):
    theirs, folder, tokens = case
    mesh = make_mesh(*sizes, devices=jax.devices()[: int(np.prod(sizes))])
    model = load_model(folder, mesh=mesh)
    graphdef, params = nnx.split(model)
    with jax.set_mesh(mesh):
        logits = jax.jit(lambda p, t: nnx.merge(graphdef, p)(t))(
            params, jnp.asarray(tokens.numpy())
        )
    assert error(logits, theirs(tokens).logits) < RELATIVE


@pytest.mark.parametrize("case", ["smollm3"], indirect=True)
def test_greedy_tokens_are_those_of_transformers(case):
    theirs, folder, tokens = case
    prompt = tokens[:1, :6]
    expected = theirs.generate(
        prompt, max_new_tokens=20, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    ours = generate_tokens(load_model(folder), prompt[0].numpy(), max_new_tokens=20)
    assert ours == expected[0, 6:].tolist()
