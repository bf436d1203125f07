import numpy as np
import pytest
from transformers import AutoModelForCausalLM

from clp_jax.mesh import make_mesh, single_device_mesh
from clp_jax.transfer.calibration import BATCH, Evaluator
from clp_jax.transfer.short_training import RATE, train_tables

TABLE = "transformer.wte.weight"
STEPS = 5


@pytest.fixture(scope="module")
def make_evaluator(make_setting, pair, text):
    setting = make_setting(*pair, text)
    source = setting.source

    def make(mesh=None):
        # 3 batches, the last not full, so that they repeat.
        sample = setting.sample._replace(calibration=setting.sample.calibration[: 2 * BATCH + 1])
        mesh = mesh or single_device_mesh()
        return Evaluator(setting.config(None), source.tensors, source.tables, sample, mesh)

    return make


@pytest.fixture(scope="module")
def rows(make_setting, pair):
    rng = np.random.default_rng(0)
    return rng.normal(size=(make_setting(*pair).layout.rows, 16)).astype(np.float32)


@pytest.fixture(scope="module")
def trained(make_evaluator, rows):
    before = rows.copy()
    found = train_tables(make_evaluator(), {TABLE: rows}, STEPS)[TABLE]
    np.testing.assert_array_equal(rows, before)
    return found


def test_it_is_adam_on_the_table_alone(make_evaluator, pair, rows, trained):
    torch = pytest.importorskip("torch")
    calibration = make_evaluator().sample.calibration
    model = AutoModelForCausalLM.from_pretrained(pair[0]).eval()
    model.resize_token_embeddings(len(rows))
    for parameter in model.parameters():
        parameter.requires_grad = False
    table = model.get_input_embeddings().weight
    table.data.copy_(torch.tensor(rows))
    table.requires_grad = True
    rate = RATE * float(np.sqrt(np.mean(rows**2)))
    optimizer = torch.optim.AdamW([table], lr=rate, betas=(0.9, 0.95), weight_decay=0)
    starts = range(0, len(calibration), BATCH)
    batches = [torch.tensor(calibration[start : start + BATCH]) for start in starts]
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = rate * (1 - step / STEPS)
        tokens = batches[step % len(batches)].long()
        logits = model(tokens[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    moved = np.abs(trained - rows).max()
    assert moved > 2 * rate
    np.testing.assert_allclose(trained, table.detach().numpy(), atol=1e-3 * moved)


def test_training_lowers_the_loss_and_leaves_the_body(make_evaluator, rows, trained):
    evaluator = make_evaluator()
    assert evaluator.loss({TABLE: trained}) < evaluator.loss({TABLE: rows})


@pytest.mark.slow
def test_eight_devices_train_as_one(make_evaluator, rows, trained):
    found = train_tables(make_evaluator(make_mesh(2, 2, 2)), {TABLE: rows}, STEPS)[TABLE]
    np.testing.assert_allclose(found, trained, atol=1e-4 * np.abs(trained - rows).max())
