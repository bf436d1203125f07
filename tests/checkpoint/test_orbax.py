import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from clp_jax.checkpoint.orbax import RunCheckpoints, latest_step, restore_params, save_params
from clp_jax.errors import UserError

OPTIMIZER = optax.adam(1e-3)


def placed(devices, value=0.0):
    """A toy state whose arrays lie in rows over the first `devices` devices."""
    mesh = Mesh(np.array(jax.devices()[:devices]), ("fsdp",))
    rows = NamedSharding(mesh, PartitionSpec("fsdp"))
    params = {"layer": {"kernel": jnp.arange(64.0).reshape(16, 4) / 3 + value}}
    params = jax.device_put(params, rows)
    return params, jax.tree.map(
        lambda x: jax.device_put(x, rows if x.ndim else NamedSharding(mesh, PartitionSpec())),
        OPTIMIZER.init(params),
    )


def abstract(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)


def assert_same(tree, other):
    assert jax.tree.structure(tree) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, tree, other)


@pytest.fixture
def run(tmp_path):
    params, optimizer = placed(8)
    with RunCheckpoints(tmp_path, keep=2) as checkpoints:
        for step in (10, 20, 30):
            checkpoints.save(step, params, optimizer, {"position": step})
    return tmp_path


@pytest.mark.parametrize("devices", [8, 2, 1])
def test_restored_on_any_mesh_bit_for_bit(run, devices):
    params, optimizer = placed(devices)
    with RunCheckpoints(run, keep=2) as checkpoints:
        restored = checkpoints.restore(30, abstract(params), abstract(optimizer))
    assert_same(restored[0], params)
    assert_same(restored[1], optimizer)
    assert restored[2] == {"position": 30}
    kernel = restored[0]["layer"]["kernel"]
    assert kernel.sharding == params["layer"]["kernel"].sharding


def test_only_the_newest_are_kept(run):
    assert latest_step(run) == 30
    assert sorted(folder.name for folder in (run / "checkpoints").iterdir()) == ["20", "30"]


def test_donated_right_after_save_does_not_change_what_is_written(tmp_path):
    params, optimizer = placed(1)
    spoil = jax.jit(lambda tree: jax.tree.map(lambda x: x * 0 - 1, tree), donate_argnums=0)
    with RunCheckpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(1, params, optimizer, {})
        jax.block_until_ready(spoil(params))
    expected, _ = placed(1)
    assert_same(restore_params(tmp_path, abstract(expected)), expected)


def test_params_alone(tmp_path):
    params, _ = placed(8)
    save_params(tmp_path, params)
    assert_same(restore_params(tmp_path, abstract(params)), params)


def test_reading_params_leaves_a_checkpoint_being_written_alone(run):
    unfinished = run / "checkpoints" / "40.orbax-checkpoint-tmp"
    unfinished.mkdir()
    params, _ = placed(1)
    assert_same(restore_params(run, abstract(params), step=20), params)
    assert unfinished.is_dir()


def test_unfinished_checkpoint_is_not_seen(run):
    (run / "checkpoints" / "30").rename(run / "checkpoints" / "30.orbax-checkpoint-tmp")
    assert latest_step(run) == 20


@pytest.mark.parametrize("damage", ["no item", "no arrays", "cut arrays", "no step"])
def test_damage_is_told_in_a_sentence(run, damage):
    params, optimizer = placed(8)
    folder = run / "checkpoints" / "30"
    match damage:
        case "no item":
            shutil.rmtree(folder / "optimizer")
        case "no arrays":
            shutil.rmtree(folder / "params" / "d")
        case "cut arrays":
            files = [f for f in (folder / "params").rglob("d/*") if f.is_file()]
            for file in files:
                file.write_bytes(file.read_bytes()[:-20])
        case "no step":
            shutil.rmtree(folder)
    with (
        RunCheckpoints(run, keep=2) as checkpoints,
        pytest.raises(UserError, match=r"checkpoints/30 is (damaged|missing)"),
    ):
        checkpoints.restore(30, abstract(params), abstract(optimizer))


def test_another_model_is_told_in_a_sentence(run):
    params, _ = placed(1)
    other = {"layer": {"kernel": jax.ShapeDtypeStruct((3, 3), jnp.float32)}}
    other = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(
            x.shape, x.dtype, sharding=params["layer"]["kernel"].sharding
        ),
        other,
    )
    with pytest.raises(UserError, match=r"checkpoints/30 is damaged or of another model"):
        restore_params(run, other)


def test_folder_without_checkpoints_is_told_in_a_sentence(tmp_path):
    for _ in range(2):
        assert latest_step(tmp_path) is None
        with pytest.raises(UserError, match="no whole checkpoint: name the folder of a run"):
            restore_params(tmp_path, {})
        (tmp_path / "checkpoints").mkdir(exist_ok=True)
