"""Traffic of programs whose traffic is known, compiled for eight devices."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from clp_jax.collectives import collective_bytes
from clp_jax.mesh import make_mesh

ROWS, WIDTH, LOOPS = 64, 48, 5
SIZE = 4 * ROWS * WIDTH
WHOLE = P()


def traffic(function, *specs, sizes=(1, 8), out=WHOLE):
    mesh = make_mesh(*sizes)
    mapped = jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=out, check_vma=False)
    x = jax.ShapeDtypeStruct((ROWS, WIDTH), jnp.float32)
    places = [NamedSharding(mesh, spec) for spec in specs]
    program = jax.jit(mapped, in_shardings=places).lower(*[x] * len(specs)).compile()
    return collective_bytes(program.as_text())


def in_a_loop(function):
    return lambda x: jax.lax.scan(lambda sum_, _: (function(sum_ + x), None), x, length=LOOPS)[0]


def test_nothing_is_sent_where_nothing_is_shared():
    assert traffic(lambda x: 2 * x, P("fsdp"), out=P("fsdp")) == {}


def test_a_ring_sends_every_part_but_its_own():
    gather = traffic(lambda x: jax.lax.all_gather(x, "fsdp", tiled=True), P("fsdp"))
    assert gather == {"all-gather": SIZE * 7 / 8}
    reduce = traffic(lambda x: jax.lax.psum(x, "fsdp"), WHOLE)
    assert reduce == {"all-reduce": 2 * SIZE * 7 / 8}
    scatter = traffic(lambda x: jax.lax.psum_scatter(x, "fsdp", tiled=True), WHOLE, out=P("fsdp"))
    assert scatter == {"reduce-scatter": SIZE * 7 / 8}


def test_groups_are_the_axis_that_is_named():
    found = traffic(lambda x: jax.lax.psum(x, "data"), WHOLE, sizes=(2, 4))
    assert found == {"all-reduce": 2 * SIZE / 2}


def test_neighbours_pass_on_their_part():
    ring = [(i, (i + 1) % 8) for i in range(8)]
    found = traffic(lambda x: jax.lax.ppermute(x, "fsdp", ring), P("fsdp"), out=P("fsdp"))
    assert found == {"collective-permute": SIZE / 8}


def test_loops_count_as_often_as_they_run():
    found = traffic(in_a_loop(lambda x: jax.lax.psum(x, "fsdp") / 8), WHOLE)
    assert found == {"all-reduce": LOOPS * 2 * SIZE * 7 / 8}
    nested = traffic(in_a_loop(in_a_loop(lambda x: jax.lax.psum(x, "fsdp") / 8)), WHOLE)
    assert nested == {"all-reduce": LOOPS**2 * 2 * SIZE * 7 / 8}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        # As the TPU compiler writes them: named groups, started ones, one channel in two fusions.
        (
            "%a = bf16[8,16]{1,0:T(8,128)(2,1)} all-gather(%x), channel_id=1, "
            "replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_1'}, dimensions={1}",
            {"all-gather": 2 * 8 * 16 * 3 / 4},
        ),
        (
            "%a = (f32[2,16]{1,0}, f32[8,16]{1,0}) all-gather-start(%x), channel_id=1, "
            "replica_groups=[2,4]<=[8], dimensions={0}",
            {"all-gather": 4 * 8 * 16 * 3 / 4},
        ),
        (
            "%a = (f32[8]{0:S(1)}, f32[8]{0:S(1)}, u32[]{:S(2)}, u32[]{:S(2)}) "
            "collective-permute-start(%x), channel_id=1, source_target_pairs={{0,1},{1,0}}",
            {"collective-permute": 32},
        ),
    ],
)
def test_texts_of_the_tpu_compiler(line, expected):
    program = f"HloModule m\n\nENTRY %main (x: f32[8]) -> f32[8] {{\n  {line}\n  {line}\n}}\n"
    assert collective_bytes(program) == expected


def test_an_all_reduce_of_which_a_slice_is_kept_is_a_reduce_scatter():
    program = """HloModule m

%all-reduce-scatter.1 (input: f32[64]) -> f32[8] {
  %r = f32[64]{0} all-reduce(%input), channel_id=1, replica_groups=[1,8]<=[8], to_apply=%add
}

%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%a, %b)
}

ENTRY %main (x: f32[64]) -> f32[8] {
  ROOT %f = f32[8]{0} fusion(%x), kind=kCustom, calls=%all-reduce-scatter.1
}
"""
    assert collective_bytes(program) == {"reduce-scatter": 4 * 64 * 7 / 8}
