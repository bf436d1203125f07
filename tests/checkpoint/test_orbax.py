import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from clp_jax.checkpoint.checksums import LATE, SUMS, find_damage
from clp_jax.checkpoint.orbax import (
    RunCheckpoints,
    latest_step,
    restore_newest,
    restore_params,
    save_params,
)
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


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    params, optimizer = placed(8)
    with RunCheckpoints(folder, keep=2) as checkpoints:
        for step in (10, 20, 30):
            checkpoints.save(step, params, optimizer, {"position": step})
    return folder


@pytest.fixture
def run(written, tmp_path):
    """A run's folder of one's own, to damage."""
    return shutil.copytree(written, tmp_path, dirs_exist_ok=True)


@pytest.mark.parametrize("devices", [8, 2, 1])
def test_restored_on_any_mesh_bit_for_bit(run, devices):
    params, optimizer = placed(devices)
    restored = restore_newest(run, abstract(params), abstract(optimizer))
    assert restored[0] == 30
    assert_same(restored[1], params)
    assert_same(restored[2], optimizer)
    assert restored[3] == {"position": 30}
    kernel = restored[1]["layer"]["kernel"]
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


def files_of(checkpoint):
    return sorted(file for file in checkpoint.rglob("*") if file.is_file())


def changes(run):
    """Every file of the newest checkpoint: cut to half, emptied, lost, and with a flipped bit."""
    for file in files_of(run / "checkpoints" / "30"):
        if file.name in (LATE, "commit_success.txt"):  # Written after the sums; nobody needs them.
            continue
        content = file.read_bytes()
        flipped = bytearray(content)
        flipped[len(content) // 2] ^= 1
        for changed in (content[: len(content) // 2], b"", None, bytes(flipped)):
            if changed != content:
                yield file.relative_to(run), changed


def test_any_change_of_any_file_is_found(run, tmp_path):
    checkpoint, count = run / "checkpoints" / "30", 0
    assert find_damage(checkpoint) is None
    for file, changed in changes(run):
        content = (run / file).read_bytes()
        (run / file).unlink()
        if changed is not None:
            (run / file).write_bytes(changed)
        found = find_damage(checkpoint)
        if file.name == SUMS:  # A wrong sum speaks against the file that it is of.
            assert found is not None, changed
        else:
            assert found == str(file.relative_to("checkpoints/30")), changed
        (run / file).write_bytes(content)
        count += 1
    assert count > 50
    assert find_damage(checkpoint) is None


def flip_a_bit_of_the_largest_file(checkpoint):
    largest = max(files_of(checkpoint), key=lambda file: file.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)


def lose_the_data_position(checkpoint):
    shutil.rmtree(checkpoint / "data")


def confuse_the_sums(checkpoint):
    (checkpoint / SUMS).write_text(
        json.dumps(dict.fromkeys(json.loads((checkpoint / SUMS).read_text())))
    )


def empty_the_sums(checkpoint):
    (checkpoint / SUMS).write_text("[]")


@pytest.mark.parametrize(
    "spoil",
    [
        flip_a_bit_of_the_largest_file,
        lose_the_data_position,
        confuse_the_sums,
        empty_the_sums,
    ],
)
def test_a_damaged_checkpoint_is_set_aside_for_the_one_before(run, spoil, capsys):
    params, optimizer = placed(8)
    spoil(run / "checkpoints" / "30")
    step, restored, _, data = restore_newest(run, abstract(params), abstract(optimizer))
    assert (step, data) == (20, {"position": 20})
    assert_same(restored, params)
    (told,) = capsys.readouterr().out.splitlines()
    assert "checkpoints/30 is damaged (" in told
    assert "renamed to 30.damaged, and the run resumes from the checkpoint before it." in told

    with RunCheckpoints(run, keep=2) as checkpoints:
        checkpoints.save(30, params, optimizer, {"position": 31})
    names = {folder.name for folder in (run / "checkpoints").iterdir()}
    assert names == {"20", "30", "30.damaged"}
    assert restore_newest(run, abstract(params), abstract(optimizer))[3] == {"position": 31}


def test_a_copy_of_a_bucket_without_sums_is_reported_and_used(run, capsys):
    params, optimizer = placed(8)
    (run / "checkpoints" / "30" / SUMS).unlink()
    assert restore_newest(run, abstract(params), abstract(optimizer))[0] == 30
    told = capsys.readouterr().out
    assert "checkpoints/30 is unverified: sums.json is missing, as in a copy from a bucket." in told


@pytest.mark.parametrize("item", ["params", "optimizer"])
@pytest.mark.parametrize("change", ["shape", "more", "less"])
def test_another_model_is_reported_by_its_array_before_any_is_read(run, item, change, monkeypatch):
    trees = dict(zip(("params", "optimizer"), map(abstract, placed(8)), strict=True))
    kernel = trees["params"]["layer"]["kernel"]
    other = {"layer": {"kernel": jax.ShapeDtypeStruct((32, 4), kernel.dtype)}}
    match change:
        case "more":
            other = {"layer": {"kernel": kernel, "bias": kernel}}
        case "less":
            other = {"layer": {}}
    trees[item] = (
        other
        if item == "params"
        else OPTIMIZER.init(other)
        if change == "less"
        else jax.eval_shape(OPTIMIZER.init, other)
    )
    monkeypatch.setattr("orbax.checkpoint.CheckpointManager.restore", None)
    told = rf"checkpoints/30 is from another model: .*layer.* of {item} "
    with pytest.raises(UserError, match=told if change != "less" else "another model: it also has"):
        restore_newest(run, trees["params"], trees["optimizer"])


def test_when_all_are_damaged_nothing_is_restored(run):
    params, optimizer = placed(1)
    for step in ("20", "30"):
        flip_a_bit_of_the_largest_file(run / "checkpoints" / step)
    for _ in range(2):
        with pytest.raises(UserError, match=r"All checkpoints of .* are damaged: start a new run"):
            restore_newest(run, abstract(params), abstract(optimizer))


def test_a_run_without_checkpoints_has_no_state(tmp_path):
    params, optimizer = placed(1)
    assert restore_newest(tmp_path, abstract(params), abstract(optimizer)) is None


def test_checkpoints_kept_in_addition_to_the_newest(tmp_path):
    params, optimizer = placed(1)
    losses = {}
    kept = {"keep_every": 4, "keep_best": 2, "losses": losses}
    with RunCheckpoints(tmp_path, keep=1, **kept) as checkpoints:
        for step, loss in enumerate([5.0, 2.0, 3.0, 9.0, 1.0, np.nan, 7.0, 8.0, 6.0], start=1):
            losses[step] = loss
            checkpoints.save(step, params, optimizer, {})
    steps = {int(folder.name) for folder in (tmp_path / "checkpoints").iterdir()}
    assert steps == {4, 8} | {2, 5} | {9}


def test_parameters_of_a_damaged_checkpoint_are_not_used(run):
    params, _ = placed(1)
    flip_a_bit_of_the_largest_file(run / "checkpoints" / "30" / "params")
    with pytest.raises(UserError, match=r"checkpoints/30 is damaged \(params/.*: resume the run"):
        restore_params(run, abstract(params))


@pytest.mark.parametrize("damage", ["no item", "no arrays", "no step"])
def test_damage_is_one_sentence(run, damage):
    params, _ = placed(8)
    folder = run / "checkpoints" / "30"
    match damage:
        case "no item":
            shutil.rmtree(folder / "params")
        case "no arrays":
            shutil.rmtree(folder / "params" / "d")
        case "no step":
            shutil.rmtree(folder)
    with pytest.raises(UserError, match=r"checkpoints/30 is (damaged|missing)"):
        restore_params(run, abstract(params), step=30)


def test_another_model_is_one_sentence(run):
    params, _ = placed(1)
    other = {"layer": {"kernel": jax.ShapeDtypeStruct((3, 3), jnp.float32)}}
    other = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(
            x.shape, x.dtype, sharding=params["layer"]["kernel"].sharding
        ),
        other,
    )
    with pytest.raises(UserError, match=r"checkpoints/30 is from another model: layer.kernel of"):
        restore_params(run, other)


def test_a_folder_without_checkpoints_is_one_sentence(tmp_path):
    for _ in range(2):
        assert latest_step(tmp_path) is None
        with pytest.raises(UserError, match="no complete checkpoint: name a run folder"):
            restore_params(tmp_path, {})
        (tmp_path / "checkpoints").mkdir(exist_ok=True)
