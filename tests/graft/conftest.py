import pytest

from ..tiny import CHAT, CHATML, KINDS, write_tokenizer, write_weights


@pytest.fixture
def family(request, tmp_path):
    """A base, its instruct model, and a model of another vocabulary; the parameter is the kind."""
    kind, tied = getattr(request, "param", ("llama", True))
    base, instruct, adapted = (tmp_path / name for name in ("base", "instruct", "adapted"))
    english, german = "The cat sleeps on the roof.", "Die Katze schläft auf dem Dach."
    ends = {"eos_token": "<|endoftext|>", "bos_token": "<|endoftext|>"}
    chat = {"eos_token": CHAT[1], "bos_token": "<|endoftext|>"}
    settings = {"model_type": kind, "tie_word_embeddings": tied, **KINDS[kind]}
    rows = write_tokenizer(base, english, ["<|endoftext|>", *CHAT], None, **ends)
    write_tokenizer(instruct, english, ["<|endoftext|>", *CHAT], CHATML, **chat)
    (instruct / "generation_config.json").write_text('{"eos_token_id": [2, 0], "top_p": 0.9}')
    write_weights(base, 0, vocab_size=rows, **settings)
    write_weights(instruct, 1, base, vocab_size=rows, **settings)
    rows = write_tokenizer(adapted, german, ["</s>"], None, eos_token="</s>")
    write_weights(adapted, 2, base, vocab_size=rows, **settings)
    return base, instruct, adapted
