"""Perplexities with strides and documents, against the loop that people write with PyTorch."""

import json
import math

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, LlamaConfig, PreTrainedTokenizerFast

from clp_jax.errors import UserError
from clp_jax.evaluate.perplexity import evaluate_perplexity

from ..marks import slow

torch = pytest.importorskip("torch")

LENGTH = 16


@pytest.fixture(scope="module")
def llama_folder(tmp_path_factory, texts):
    """A tiny Llama whose tokenizer puts a bos before each text, and whose eos is another token."""
    from transformers import LlamaForCausalLM

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(
        texts * 3,
        trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=["<s>", "</s>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.3,
        bos_token_id=0,
        eos_token_id=1,
    )
    folder = tmp_path_factory.mktemp("models") / "llama"
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@torch.no_grad()
def plain_loop(model, sequences, length, stride):
    """Every token but the first of a sequence counts once, with the longest context it gets."""
    nll, count = 0.0, 0
    for sequence in sequences:
        ids, done = torch.tensor([sequence]), 1
        for begin in range(0, ids.shape[1], stride):
            end = min(begin + length + 1, ids.shape[1])
            targets = ids[0, begin + 1 : end].clone()
            targets[: done - begin - 1] = -100
            logits = model(ids[:, begin : end - 1]).logits[0]
            nll += torch.nn.functional.cross_entropy(logits, targets, reduction="sum").item()
            count += int((targets != -100).sum())
            done = end
            if end == ids.shape[1]:
                break
    return math.exp(nll / count), count


@pytest.mark.parametrize(
    ("family", "length", "stride", "per_document"),
    [
        ("gpt2", LENGTH, 5, False),
        ("llama", LENGTH, 5, True),
        slow("gpt2", LENGTH, LENGTH, True),
        slow("gpt2", 100, 10, True),
        slow("llama", LENGTH, 1, False),
        slow("llama", 100, 30, True),
    ],
)
def test_equal_to_a_plain_loop_in_pytorch(
    request, texts, tmp_path, family, length, stride, per_document
):
    from transformers import AutoModelForCausalLM

    folder = request.getfixturevalue({"gpt2": "model_folder", "llama": "llama_folder"}[family])
    texts = [*texts, " ".join(texts)]
    file = tmp_path / "text.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
    tokenizer, model = (
        kind.from_pretrained(folder) for kind in (AutoTokenizer, AutoModelForCausalLM)
    )
    eos = tokenizer.eos_token_id
    documents = [[*tokenizer(text).input_ids, eos] for text in texts]
    if not per_document:
        sequences = [[eos, *(id for document in documents for id in document)]]
    elif family == "llama":  # It has its bos.
        sequences = documents
    else:
        sequences = [[eos, *document] for document in documents]
    expected, count = plain_loop(model, sequences, length, stride)
    ours = evaluate_perplexity(
        folder,
        [str(file)],
        sequence_length=length,
        stride=stride,
        per_document=per_document,
        batch_size=3,
    )
    assert ours.tokens == count
    assert ours.token_perplexity == pytest.approx(expected, rel=1e-4)
    assert ours.documents.sum(0) == pytest.approx(
        [ours.nll, ours.tokens, ours.words, ours.bytes], rel=1e-9
    )


def test_a_stride_that_leaves_tokens_out_is_refused(model_folder, tmp_path):
    (tmp_path / "text.txt").write_text("Ein Satz.")
    with pytest.raises(UserError, match="stride 9 is longer than the window of 8 tokens"):
        evaluate_perplexity(model_folder, [str(tmp_path / "text.txt")], sequence_length=8, stride=9)
