from clp_jax.config import RunConfig
from clp_jax.train.card import run_card

CORPORA = "| corpus | tokens |"


def config(init):
    return RunConfig.from_dict(
        {
            "model": {"path": "/somewhere/private/gpt2-german", "init": init},
            "data": {"train": "corpora/german", "validation": "corpora/held-out"},
            "train": {"out": "runs/german", "steps": 10, "batch_size": 4},
        }
    )


def test_it_tells_what_was_done_and_nothing_of_the_machine():
    card = run_card(config("pretrained"), CORPORA)
    assert "# runs/german\n" in card
    assert "the weights of `gpt2-german`" in card
    assert "10 steps of 4 sequences of 1,024 tokens: 40,960 tokens" in card
    assert f"\n\n{CORPORA}\n\n" in card
    assert "private" not in card
    assert "perplexity" not in card
    assert "new weights in the shape of `gpt2-german`" in run_card(config("random"), CORPORA)


def test_it_tells_the_last_perplexity():
    lines = [
        {"tokens": tokens, "train/loss": 1.0}
        | {f"validation/{unit}_perplexity": value for unit in ("token", "word", "byte")}
        for tokens, value in ((0, 900.0), (40_960, 12.5))
    ]
    card = run_card(config("pretrained"), CORPORA, [*lines, {"tokens": 40_960, "train/loss": 1.0}])
    assert "perplexity on `corpora/held-out` after 40,960 tokens" in card
    assert "12.5 per token, 12.5 per word, 12.5 per byte" in card
