import math

import matplotlib.image
import numpy as np
import pytest

from clp_jax.evaluate.plots import plot_bits_per_byte, plot_perplexity, tokens_to_reach

CLP = [(0, 800.0), (1000, 200.0), (2000, 100.0)]
SCRATCH = [(0, 4000.0), (1000, 1000.0), (2000, 400.0)]


def test_the_plot_is_a_png_with_a_colour_for_each_run(tmp_path):
    out = tmp_path / "plots" / "curve.png"
    plot_perplexity({"CLP": CLP, "from scratch": SCRATCH}, out, "German")
    pixels = (matplotlib.image.imread(out)[..., :3] * 255).round().astype(int)
    for colour in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)):
        assert np.all(pixels == colour, axis=-1).sum() > 100
    assert [file.name for file in out.parent.iterdir()] == ["curve.png"]


def test_bits_per_byte_have_a_panel_for_each_set(tmp_path):
    curves = {"with replay": [(0, 2.4), (1000, 2.1)], "without": [(0, 2.4), (1000, 2.0)]}
    plot_bits_per_byte({"German": curves, "English": curves}, tmp_path / "two.png")
    plot_bits_per_byte({"German": curves}, tmp_path / "one.png")
    two, one = (matplotlib.image.imread(tmp_path / f"{name}.png") for name in ("two", "one"))
    assert two.shape[1] == 2 * one.shape[1]


def test_a_run_with_one_measurement_is_drawn(tmp_path):
    plot_perplexity({"CLP": CLP[:1]}, tmp_path / "one.png", "German")
    assert (tmp_path / "one.png").stat().st_size > 1000


def test_nothing_is_left_behind_when_there_is_nothing_to_plot(tmp_path):
    with pytest.raises(ValueError, match="from scratch"):
        plot_perplexity({"CLP": CLP, "from scratch": []}, tmp_path / "curve.png", "German")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("perplexity", "tokens"),
    [
        (200.0, 1000.0),
        (400.0, 500.0),
        (math.sqrt(200 * 100), 1500.0),
        (900.0, 0.0),
        (99.0, None),
    ],
)
def test_tokens_to_reach_interpolates_the_logarithm(perplexity, tokens):
    assert tokens_to_reach(CLP, perplexity) == (None if tokens is None else pytest.approx(tokens))


def test_tokens_to_reach_takes_the_first_time():
    assert tokens_to_reach([(0, 100.0), (10, 50.0), (20, 80.0), (30, 40.0)], 50.0) == 10
