import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.topologies import get_topology_desc
from jax.sharding import PartitionSpec

from clp_jax.errors import UserError
from clp_jax.mesh import (
    make_mesh,
    peak_flops,
    shard_activations,
    shard_batch,
    sharding_for,
    single_device_mesh,
    slice_count,
    start_distributed,
    to_host,
)


def test_one_size_takes_what_is_left():
    assert make_mesh(2, -1, 2).shape == {"data": 2, "fsdp": 2, "sequence": 1, "tensor": 2}
    assert make_mesh().shape == {"data": 1, "fsdp": 8, "sequence": 1, "tensor": 1}


@pytest.mark.parametrize(
    ("sizes", "sentence"),
    [
        ((3, -1, 1), "does not divide the 8 available devices"),
        ((2, 2, 1), "needs 4 devices, but there are 8"),
        ((-1, -1, 1), "only one of them may be -1"),
        ((0, 1, 1), "sizes must be positive"),
    ],
)
def test_meshes_that_do_not_fit(sizes, sentence):
    with pytest.raises(UserError, match=sentence):
        make_mesh(*sizes)


@pytest.fixture(scope="module")
def two_slices():
    """Descriptions of eight TPUs, four of each of two slices, in turn."""
    pytest.importorskip("libtpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TPU_SKIP_MDS_QUERY", "1")
        patch.setenv("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
        chips = get_topology_desc("v5e:2x2", platform="tpu", num_slices=2).devices
    return [chip for pair in zip(chips[:4], chips[4:], strict=True) for chip in pair]


@pytest.mark.parametrize(
    ("sizes", "slices"),
    [
        ({"data": 2, "fsdp": 4}, [[0, 0, 0, 0], [1, 1, 1, 1]]),
        ({"fsdp": 4, "tensor": 2}, [[0, 0], [0, 0], [1, 1], [1, 1]]),
        ({"fsdp": 2, "sequence": 2, "tensor": 2}, [[0, 0, 0, 0], [1, 1, 1, 1]]),
        ({"fsdp": 1, "tensor": 8}, [[0, 0, 0, 0, 1, 1, 1, 1]]),
    ],
)
def test_inner_axes_stay_within_a_slice(two_slices, sizes, slices):
    assert slice_count(two_slices) == 2
    mesh = make_mesh(**sizes, devices=two_slices)
    found = [chip.slice_index for chip in mesh.devices.flat]
    assert found == [number for row in slices for number in row]


@pytest.mark.parametrize("error", [RuntimeError("no backend 'cuda'"), AssertionError()])
@pytest.mark.parametrize("use", [start_distributed, make_mesh, single_device_mesh])
def test_a_missing_platform(error, use, monkeypatch):
    def fail():
        raise error

    monkeypatch.setattr(jax, "devices", fail)
    with pytest.raises(UserError, match=r"There is no device of JAX_PLATFORMS=\w+ \(.+\)"):
        use()


@pytest.mark.parametrize(
    "environment",
    [
        {"SLURM_NTASKS": "many"},
        {"SLURM_NTASKS": "2", "SLURM_JOB_ID": "x"},
        {"JAX_COORDINATOR_ADDRESS": "localhost:1", "JAX_NUM_PROCESSES": "2"},
    ],
)
def test_an_environment_that_describes_no_processes(environment, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(
        UserError, match=r"do not find each other|JAX_PROCESS_ID is not an integer: set both"
    ):
        start_distributed()


def test_rules():
    mesh = make_mesh(1, 4, 2)
    spec = sharding_for(mesh, ("layers", "embed", "mlp"), (3, 8, 6)).spec
    assert spec == PartitionSpec(None, "fsdp", "tensor")
    assert sharding_for(mesh, ("vocab", "embed"), (7, 8)).spec == PartitionSpec(None, "fsdp")
    with pytest.raises(UserError, match=r"tensor=2 does not divide the model's heads .* of 5"):
        sharding_for(mesh, ("heads",), (5,))
    with pytest.raises(ValueError, match=r"shard heads, mlp over the same axis: tensor, tensor"):
        sharding_for(mesh, ("heads", "mlp"), (4, 4))


def test_rows_make_a_global_batch_and_round_trip():
    rows = np.arange(32).reshape(16, 2)
    batch = shard_batch(rows, make_mesh(2, 2, 2))
    assert batch.sharding.spec == PartitionSpec(("data", "fsdp"))
    assert batch.addressable_shards[0].data.shape == (4, 2)
    np.testing.assert_array_equal(to_host(batch), rows)


def test_activations_are_spread_where_the_mesh_divides():
    with jax.set_mesh(make_mesh(2, 2, 1, 2)):
        spread = jax.jit(shard_activations)(jnp.zeros((8, 6, 3)))
        whole = jax.jit(shard_activations)(jnp.zeros((3, 5)))
    assert spread.sharding.spec[:2] == (("data", "fsdp"), "sequence")
    assert whole.sharding.is_fully_replicated
    np.testing.assert_array_equal(shard_activations(jnp.ones((3, 1))), np.ones((3, 1)))


@pytest.mark.parametrize(
    ("kind", "peak"),
    [
        ("TPU v4", 275e12),
        ("TPU v5 lite", 197e12),
        ("TPU v5p", 459e12),
        ("TPU v6 lite", 918e12),
        ("NVIDIA H200", 989e12),
        ("cpu", None),
    ],
)
def test_peaks(kind, peak):
    assert peak_flops(kind) == peak
