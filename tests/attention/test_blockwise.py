import jax
import jax.numpy as jnp
import pytest

from clp_jax.attention.blockwise import BLOCK, attend_blockwise

from ..marks import slow


@pytest.mark.parametrize(
    ("length", "head_dim", "alibi", "packed"),
    [
        slow(BLOCK, 64, False, True),
        (300, 80, True, True),
        slow(257, 96, True, False),
        slow(200, 112, False, False),
        slow(2 * BLOCK, 128, True, True),
    ],
)
def test_equals_the_formula(make_problem, assert_solved, length, head_dim, alibi, packed):
    problem = make_problem(length, head_dim, alibi=alibi, packed=packed).scaled()
    expected = problem.solution()
    assert_solved(problem.computed(attend_blockwise, start=0), expected, 3e-6)
    assert_solved(problem.computed(attend_blockwise, "bfloat16", start=0), expected, 1e-2)


@pytest.mark.parametrize(
    ("kv_heads", "window", "softcap", "packed"),
    [
        slow(2, None, None, False),
        (1, 100, 2.0, True),
        slow(3, 2, None, False),
        slow(6, BLOCK, 1.0, False),
        slow(2, 257, 2.0, True),
    ],
)
def test_grouped_windowed_and_capped(
    make_problem, assert_solved, kv_heads, window, softcap, packed
):
    problem = make_problem(
        301, 16, heads=6, kv_heads=kv_heads, window=window, softcap=softcap, packed=packed
    ).scaled()
    expected = problem.solution()
    assert_solved(problem.computed(attend_blockwise), expected, 3e-6)
    assert_solved(problem.computed(attend_blockwise, "bfloat16"), expected, 1e-2)


@pytest.mark.parametrize("start", [slow(1), 150])
@pytest.mark.parametrize("traced", [slow(False), True])
def test_queries_that_start_in_the_middle_of_a_row(make_problem, assert_solved, start, traced):
    problem = make_problem(
        300, 16, heads=4, kv_heads=2, alibi=True, window=90, packed=True, start=start
    ).scaled()
    given = jnp.int32(start) if traced else start
    found = problem.computed(attend_blockwise, start=given)
    assert_solved(found, problem.solution(), 3e-6)


@pytest.mark.parametrize(("kv_heads", "window"), [slow(8, None), (2, 256)])
def test_unseen_blocks_are_left_out_and_no_array_holds_all_scores(kv_heads, window):
    length, heads, head_dim = 1024, 8, 16
    query, key = (
        jax.ShapeDtypeStruct((1, length, x, head_dim), jnp.float32) for x in (heads, kv_heads)
    )

    def total(query, key, value):
        return attend_blockwise(query, key, value, window=window).sum()

    compiled = jax.jit(jax.grad(total, argnums=(0, 1, 2))).lower(query, key, key).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < heads * length * length * 4 / 2
    # The compiler counts a loop over groups of heads once: two products forward and five backward
    # of the blocks that are seen, and what is done with each score.
    ends = range(BLOCK, length + 1, BLOCK)
    seen = sum(min(end, BLOCK + (window or length) - 1) for end in ends)
    computed = heads // kv_heads * BLOCK * seen
    flops = compiled.cost_analysis()["flops"]
    assert 7 * 2 * head_dim * computed < flops < (7 * 2 * head_dim + 20) * computed
