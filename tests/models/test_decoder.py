import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from flax import nnx
from transformers.activations import ACT2FN

from clp_jax.mesh import make_mesh
from clp_jax.models import (
    abstract_model,
    initialize,
    parameter_path,
    parameter_shardings,
    read_decoder_config,
    weight_table,
)
from clp_jax.models.decoder import SAVED_BY_POLICY
from clp_jax.models.layers import ACTIVATIONS

from ..marks import slow

GPT2 = {"model_type": "gpt2", "vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 4,
        "n_positions": 32, "bos_token_id": 0, "eos_token_id": 0}  # fmt: skip
BLOOM = {"model_type": "bloom", "vocab_size": 96, "hidden_size": 32, "n_layer": 2, "n_head": 4}
LLAMA = {"model_type": "llama", "vocab_size": 96, "hidden_size": 32, "intermediate_size": 44,
         "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}  # fmt: skip
MODERN = {
    "llama": LLAMA | {"attention_bias": True, "mlp_bias": True},
    **{kind: LLAMA | {"model_type": kind} for kind in ("qwen2", "qwen3", "olmo2", "smollm3")},
}
BOTH = pytest.mark.parametrize("values", [GPT2, slow(BLOOM)], ids=["gpt2", "bloom"])

# Parameters of the published models, as their hub pages count them.
PUBLISHED = {
    "gpt2": ({"n_embd": 768, "n_layer": 12, "n_head": 12}, 124_439_808),
    "gpt2-medium": ({"n_embd": 1024, "n_layer": 24, "n_head": 16}, 354_823_168),
    "gpt2-large": ({"n_embd": 1280, "n_layer": 36, "n_head": 20}, 774_030_080),
    "gpt2-xl": ({"n_embd": 1600, "n_layer": 48, "n_head": 25}, 1_557_611_200),
    "bloom-560m": ({"hidden_size": 1024, "n_layer": 24, "n_head": 16}, 559_214_592),
    "bloom-1b1": ({"hidden_size": 1536, "n_layer": 24, "n_head": 16}, 1_065_314_304),
    "bloom-1b7": ({"hidden_size": 2048, "n_layer": 24, "n_head": 16}, 1_722_408_960),
    "bloom-3b": ({"hidden_size": 2560, "n_layer": 30, "n_head": 32}, 3_002_557_440),
    "bloom-7b1": ({"hidden_size": 4096, "n_layer": 30, "n_head": 32}, 7_069_016_064),
    "bloom": ({"hidden_size": 14336, "n_layer": 70, "n_head": 112}, 176_247_271_424),
}


def modern(kind, vocab, hidden, mlp, layers, heads, kv_heads, *, tied):
    """The sizes in a ``config.json`` of Llama's kin."""
    return {
        "model_type": kind,
        "vocab_size": vocab,
        "hidden_size": hidden,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "tie_word_embeddings": tied,
    }


PUBLISHED_MODERN = {
    "Llama-3.2-1B": (modern("llama", 128_256, 2048, 8192, 16, 32, 8, tied=True), 1_235_814_400),
    "Llama-3.1-8B": (modern("llama", 128_256, 4096, 14336, 32, 32, 8, tied=False), 8_030_261_248),
    "SmolLM2-135M": (modern("llama", 49_152, 576, 1536, 30, 9, 3, tied=True), 134_515_008),
    "Mistral-7B": (modern("mistral", 32_000, 4096, 14336, 32, 32, 8, tied=False), 7_241_732_096),
    "Qwen2.5-0.5B": (modern("qwen2", 151_936, 896, 4864, 24, 14, 2, tied=True), 494_032_768),
    "Qwen3-0.6B": (modern("qwen3", 151_936, 1024, 3072, 28, 16, 8, tied=True), 596_049_920),
    "OLMo2-7B": (modern("olmo2", 100_352, 4096, 11008, 32, 32, 32, tied=False), 7_298_617_344),
    "SmolLM3-3B": (modern("smollm3", 128_256, 2048, 11008, 36, 16, 4, tied=True), 3_075_098_624),
}


@pytest.mark.parametrize(("values", "count"), PUBLISHED_MODERN.values(), ids=PUBLISHED_MODERN)
def test_published_sizes_of_modern_models(values, count):
    model = abstract_model(read_decoder_config(values))
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(model))) == count


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name):
    values, count = PUBLISHED[name]
    kind = name.split("-")[0]
    values = {"model_type": kind, "vocab_size": 250_880 if kind == "bloom" else 50_257} | values
    model = abstract_model(read_decoder_config(values))
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(model))) == count


@pytest.mark.parametrize("values", [GPT2, BLOOM, *MODERN.values()], ids=lambda x: x["model_type"])
def test_the_table_has_a_row_for_every_parameter_and_its_shape(values):
    config = read_decoder_config(values | {"tie_word_embeddings": False})
    leaves = jax.tree_util.tree_leaves_with_path(nnx.state(abstract_model(config)))
    shapes = {parameter_path(path): leaf.shape for path, leaf in leaves}
    table = weight_table(config)
    assert shapes == {
        weight.path: tuple(config.sizes[axis] for axis in weight.axes) for weight in table
    }
    rng = np.random.default_rng(0)
    for weight in table:
        tensor = rng.random(weight.checkpoint_shape(config.sizes), np.float32)
        ours = weight.to_model(tensor, config.sizes)
        assert ours.shape == shapes[weight.path][weight.stacked :]
        np.testing.assert_array_equal(weight.to_checkpoint(ours, config.sizes), tensor)


@BOTH
def test_new_weights_depend_on_the_seed_and_not_on_the_mesh(values):
    config = read_decoder_config(values)
    one = initialize(config, seed=3, mesh=make_mesh(devices=jax.devices()[:1]))
    spread = initialize(config, seed=3, mesh=make_mesh(2, 2, 2))
    other = initialize(config, seed=4, mesh=make_mesh(2, 2, 2))
    shardings = parameter_shardings(spread, make_mesh(2, 2, 2))
    jax.tree.map(np.testing.assert_array_equal, nnx.state(one), nnx.state(spread))
    assert jax.tree.all(jax.tree.map(lambda x, s: x.sharding == s, nnx.state(spread), shardings))
    assert not np.array_equal(one.token_embedding.embedding, other.token_embedding.embedding)


@BOTH
def test_new_weights_are_drawn_as_by_transformers(values):
    values = values | {"hidden_size": 96, "n_embd": 96, "n_layer": 8}
    ours = initialize(read_decoder_config(values), seed=0, mesh=make_mesh())
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(**values)
    theirs = dict(transformers.AutoModelForCausalLM.from_config(config).named_parameters())
    params = {
        parameter_path(path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(nnx.state(ours))
    }
    for weight in weight_table(ours.config):
        stack = np.stack([theirs[n].detach().numpy() for n in weight.names(8)])
        assert abs(params[weight.path].mean() - stack.mean()) < 1e-3, weight.path
        assert params[weight.path].std() == pytest.approx(stack.std(), rel=0.05), weight.path


@pytest.mark.slow
@BOTH
def test_remat_changes_no_gradient(values):
    model = initialize(read_decoder_config(values), seed=0, mesh=make_mesh())
    graphdef, params = nnx.split(model)
    tokens = jnp.arange(32).reshape(2, 16)

    def gradient(remat):
        def loss(params):
            hidden = nnx.merge(graphdef, params).hidden_states(
                tokens, dropout_key=jax.random.key(0), remat=remat
            )
            return jnp.square(hidden * jnp.arange(32)[None, None]).mean()

        return jax.jit(jax.grad(loss))(params)

    kept = gradient("none")
    for remat in SAVED_BY_POLICY:
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(a).max()),
            kept,
            gradient(remat),
        )


RATES = ("embd_pdrop", "attn_pdrop", "resid_pdrop", "hidden_dropout", "attention_dropout")


@pytest.mark.parametrize(
    ("values", "rate"),
    [
        *(slow(GPT2, rate) for rate in RATES[:2]),
        (GPT2, RATES[2]),
        *(slow(BLOOM, rate) for rate in RATES[3:]),
    ],
    ids=lambda value: value if isinstance(value, str) else value["model_type"],
)
def test_every_dropout_rate_of_the_configuration_is_used(values, rate):
    def outputs(changes):
        rates = dict.fromkeys(RATES, 0.0) | changes
        model = initialize(read_decoder_config(values | rates), seed=0, mesh=make_mesh())
        tokens = jnp.arange(16).reshape(1, 16)
        compute = jax.jit(lambda key: model.hidden_states(tokens, dropout_key=key))
        return [np.asarray(compute(key)) for key in (None, jax.random.key(0), jax.random.key(1))]

    plain, once, again = outputs({rate: 0.3})
    assert not np.allclose(plain, once, atol=1e-3)
    assert not np.allclose(once, again, atol=1e-3)
    for output in outputs({}):
        np.testing.assert_allclose(output, plain, atol=1e-6)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_those_of_transformers(name):
    x = np.linspace(-6, 6, 1001, dtype=np.float32)
    theirs = ACT2FN[name](torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(ACTIVATIONS[name](jnp.asarray(x)), theirs, atol=2e-6)


@BOTH
def test_bfloat16_keeps_float32_parameters_and_logits(values):
    mesh = make_mesh()
    config = read_decoder_config(values)
    exact, fast = (initialize(config, seed=0, mesh=mesh, dtype=t) for t in ("float32", "bfloat16"))
    tokens = jnp.arange(16).reshape(1, 16)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(nnx.state(fast)))
    assert jax.eval_shape(fast.hidden_states, tokens).dtype == jnp.bfloat16
    logits = nnx.jit(fast)(tokens)
    assert logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, nnx.jit(exact)(tokens), atol=0.05)


@pytest.mark.parametrize(
    "values",
    [
        slow(GPT2 | {"n_layer": 1, "n_embd": 256, "vocab_size": 1000, "n_positions": 64}),
        LLAMA | {"num_hidden_layers": 1, "hidden_size": 256, "vocab_size": 1000},
    ],
    ids=["gpt2", "llama"],
)
def test_flops_are_those_the_compiler_counts(values):
    """One layer, since the compiler counts a scanned body once."""
    config = read_decoder_config(values)
    graphdef, params = nnx.split(abstract_model(config))

    def loss(params, tokens):
        return jnp.square(nnx.merge(graphdef, params)(tokens)).sum()

    tokens = jax.ShapeDtypeStruct((4, 64), jnp.int32)
    compiled = jax.jit(jax.grad(loss)).lower(params, tokens).compile()
    counted = compiled.cost_analysis()["flops"] / (4 * 64)
    # The compiled attention computes the half that the causal mask drops as well.
    expected = abstract_model(config).flops_per_token(64) + 6 * 64 * 256
    assert counted == pytest.approx(expected, rel=0.02)


def test_the_loop_over_layers_copies_no_weights():
    model = abstract_model(
        read_decoder_config(LLAMA | {"hidden_size": 256, "num_hidden_layers": 8})
    )
    graphdef, params = nnx.split(model)
    weights = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(nnx.state(model.blocks)))

    def forward(params, tokens):
        return nnx.merge(graphdef, params)(tokens)

    lowered = jax.jit(forward).lower(params, jax.ShapeDtypeStruct((1, 4), jnp.int32))
    compiled = lowered.compile(
        compiler_options={"xla_cpu_use_fusion_emitters": True}
    )  # as users do
    assert compiled.memory_analysis().temp_size_in_bytes < weights / 4


def test_flops_of_a_window_are_of_the_keys_that_it_shows():
    values = LLAMA | {"model_type": "mistral", "head_dim": 10, "sliding_window": None}
    whole = abstract_model(read_decoder_config(values)).flops_per_token(64)
    window = abstract_model(read_decoder_config(values | {"sliding_window": 8}))
    keys = sum(min(position, 8) for position in range(64)) / 64, sum(range(64)) / 64
    fewer = 12 * 2 * 4 * 10 * (keys[1] - keys[0])
    assert whole - window.flops_per_token(64) == pytest.approx(fewer, rel=0.02)
