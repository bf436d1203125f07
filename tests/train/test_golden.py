"""Numbers that must not move: whoever means to move them writes the new ones here.

The tests of parity say that the numbers are right; this one says that they are the same as before,
over ten steps, where no other program is compared with. Weights and tokens come from NumPy, whose
generators are stable.
"""

import jax
import numpy as np
import pytest
from flax import nnx

from clp_jax.config import RunConfig
from clp_jax.mesh import make_mesh
from clp_jax.models import abstract_model, abstract_parameters, read_decoder_config
from clp_jax.train.optimizer import make_optimizer
from clp_jax.train.step import initialize_optimizer, make_train_step

STEPS, ROWS, LENGTH, VOCABULARY = 10, 4, 16, 61
MODELS = {
    "gpt2": {
        "model_type": "gpt2",
        "n_embd": 32,
        "n_positions": LENGTH,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
    },
    "bloom": {"model_type": "bloom", "hidden_size": 32},
}
SIZES = {"vocab_size": VOCABULARY, "n_layer": 3, "n_head": 4}

# Eight devices in place of one move them by 1e-6.
TOLERANCE = 1e-5
COLUMNS = (
    "loss",
    "gradient_norm/embeddings",
    "gradient_norm/layers",
    "gradient_norm/final_norm",
    "gradient_norm/positions",
)
GOLDEN = {
    "gpt2": """
        4.268257   1.390591   2.322453   0.1599739  0.4937404
        3.939946   1.433408   1.572658   0.1635224  0.3099033
        3.680992   1.247137   0.7640268  0.1339549  0.1388204
        3.567477   1.409615   0.768725   0.1936286  0.1039628
        3.364188   1.251222   0.5782466  0.1831706  0.06720778
        3.125722   0.9621847  0.3505906  0.1845156  0.05089436
        3.02578    1.069248   0.4120053  0.1870825  0.05428946
        3.021702   1.068022   0.3578553  0.1811249  0.04428399
        3.008937   1.112959   0.3831924  0.1781238  0.04090896
        2.970155   1.152835   0.3627904  0.17895    0.04373194
    """,
    "bloom": """
        4.403958   1.357458   1.114332   0.2028578
        3.87586    1.331857   0.9430889  0.1471101
        3.883821   1.497406   0.9111649  0.1570102
        3.345407   1.161326   0.446286   0.1818962
        3.204833   1.026198   0.2992119  0.1613283
        3.019352   0.8418556  0.2314619  0.1630373
        3.077273   1.13251    0.2595579  0.1558666
        2.971666   0.8759989  0.2146022  0.1399709
        2.998661   1.14686    0.255927   0.1445042
        2.961414   0.9607064  0.2343528  0.1487721
    """,
}
"""A line a step: the loss, and the norm of the gradients of each group."""


def ten_steps(name):
    """The metrics of each step, by name."""
    config = RunConfig.from_dict(
        {
            "model": {"path": "unused"},
            "data": {"train": "unused", "sequence_length": LENGTH},
            # A bias of keys has no gradient but rounding, which a small epsilon would blow up.
            "optimizer": {"learning_rate": 1e-2, "warmup_steps": 3, "epsilon": 1e-3},
            "train": {"out": "unused", "steps": STEPS, "batch_size": ROWS, "dtype": "float32"},
        }
    )
    mesh = make_mesh(devices=jax.devices()[:1])
    model = abstract_model(read_decoder_config(MODELS[name] | SIZES))
    random = np.random.default_rng(0)

    def weights(path, leaf):
        around = 1.0 if path[-1].key == "scale" else 0.0
        values = around + 0.1 * random.standard_normal(leaf.shape)
        return jax.device_put(values.astype(np.float32), leaf.sharding)

    params = jax.tree_util.tree_map_with_path(weights, abstract_parameters(model, mesh))
    optimizer = make_optimizer(config.optimizer, STEPS)
    step = make_train_step(
        nnx.graphdef(model), params, optimizer, mesh=mesh, config=config, eos_id=0
    )
    state, history = initialize_optimizer(optimizer, params, mesh), []
    for index in range(STEPS):
        tokens = random.integers(VOCABULARY // 4, size=(ROWS, LENGTH + 1)).astype(np.int32)
        batch = {"tokens": tokens, "mask": random.random((ROWS, LENGTH)) < 0.9}
        params, state, metrics = step(params, state, np.int32(index), batch)
        history.append(jax.device_get(metrics))
    return {key: np.array([metrics[key] for metrics in history]) for key in history[0]}


@pytest.mark.parametrize("name", MODELS)
def test_ten_steps_equal_the_recorded_ones(name):
    metrics = ten_steps(name)
    table = np.loadtxt(GOLDEN[name].strip().splitlines())
    for key, expected in zip(COLUMNS, table.T, strict=False):
        np.testing.assert_allclose(metrics[key], expected, rtol=TOLERANCE, err_msg=key)
