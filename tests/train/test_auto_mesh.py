import pytest

from clp_jax.config import OptimizerSection, RunConfig
from clp_jax.errors import UserError
from clp_jax.models import read_decoder_config
from clp_jax.train.auto_mesh import pick_sizes, run_mesh

GIB = 2**30
GPT2 = {"model_type": "gpt2", "vocab_size": 50257, "n_embd": 768, "n_layer": 12, "n_head": 12}
BLOOM = {"model_type": "bloom", "vocab_size": 250880, "hidden_size": 4096, "n_layer": 30}
DECODERS = {
    "gpt2": read_decoder_config(GPT2 | {"n_positions": 1024}),
    "bloom 7b": read_decoder_config(BLOOM | {"n_head": 32}),
}


def config(mesh="auto", **train):
    return RunConfig.from_dict(
        {
            "model": {"path": "unused"},
            "data": {"train": "unused", "sequence_length": 1024},
            "mesh": mesh,
            "train": {"out": "unused", "steps": 10, **train},
        }
    )


@pytest.mark.parametrize(
    ("name", "rows", "devices", "slices", "gibibytes", "expected", "reason"),
    [
        ("gpt2", 32, 8, 1, 16, (8, 1, 1, 1), "which fits into the 16 GiB of a device"),
        ("gpt2", 32, 8, 1, None, (1, 8, 1, 1), "memory of a device is not known"),
        ("gpt2", 32, 8, 1, 2, (1, 8, 1, 1), "too much for the 2 GiB of a device"),
        ("bloom 7b", 64, 32, 1, 16, (1, 32, 1, 1), "too much for the 16 GiB"),
        ("bloom 7b", 64, 64, 2, 16, (2, 32, 1, 1), "too much for the 16 GiB"),
        ("bloom 7b", 8, 32, 1, 16, (1, 8, 1, 4), "8 sequences at a time occupy only 8 of 32"),
        ("gpt2", 2, 32, 1, 16, (2, 1, 4, 4), "occupy only 2 of 32 devices"),
        ("gpt2", 24, 16, 1, 16, (8, 1, 1, 2), "24 sequences at a time occupy only 8 of 16"),
    ],
)
def test_what_is_picked_and_why(name, rows, devices, slices, gibibytes, expected, reason):
    sizes, told = pick_sizes(
        config(batch_size=rows),
        DECODERS[name],
        devices=devices,
        slices=slices,
        memory=gibibytes and gibibytes * GIB,
    )
    assert tuple(sizes[axis] for axis in ("data", "fsdp", "sequence", "tensor")) == expected
    assert reason in told


def test_microbatches_count_and_not_the_whole_batch():
    sizes, _ = pick_sizes(
        config(batch_size=32, gradient_accumulation_steps=8),
        DECODERS["gpt2"],
        devices=8,
        slices=1,
        memory=None,
    )
    assert (sizes["fsdp"], sizes["tensor"]) == (4, 2)


def test_frozen_parameters_need_neither_gradients_nor_state():
    frozen = config(batch_size=32).model_copy(
        update={"optimizer": OptimizerSection(lr_multipliers={"layers": 0})}
    )
    sizes, told = pick_sizes(frozen, DECODERS["gpt2"], devices=8, slices=1, memory=2 * GIB)
    assert sizes["data"] == 8
    assert "which fits into the 2 GiB of a device" in told


def test_devices_that_nothing_occupies():
    with pytest.raises(UserError, match=r"cannot use all 7 devices: .* which is 32, a multiple"):
        pick_sizes(config(), DECODERS["gpt2"], devices=7, slices=1, memory=None)


def test_the_pick_is_printed_and_used(capsys):
    mesh = run_mesh(config(), DECODERS["gpt2"])
    assert mesh.shape["fsdp"] == 8
    assert capsys.readouterr().out.startswith("mesh auto: data=1 fsdp=8 sequence=1 tensor=1, since")
    run_mesh(config({"data": 8, "fsdp": 1}), DECODERS["gpt2"])
    assert not capsys.readouterr().out


def test_auto_is_kept_by_the_folder_and_takes_no_sizes():
    assert RunConfig.from_dict(config().model_dump()) == config()
    assert config({"auto": True}) == config()
    with pytest.raises(UserError, match="auto picks all sizes"):
        config({"auto": True, "tensor": 2})
