"""A decoder as a language model of lm-evaluation-harness."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from clp_jax.errors import UserError
from clp_jax.evaluate.likelihoods import log_likelihoods
from clp_jax.generate import generate_batch
from clp_jax.mesh import single_device_mesh
from clp_jax.models.decoder import Decoder
from clp_jax.tokenizer import AnyTokenizer, Tokenizer
from clp_jax.tokenizer.chat import spell_conversation

try:
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import TemplateLM
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
except ModuleNotFoundError as missing:
    raise UserError(
        f"{missing.name} is not installed: the tasks need `pip install clp-jax[eval]`."
    ) from None

TOKENS = 256
"""Tokens of a batch of likelihoods for each sequence of the batch size."""

Request = tuple[tuple[str, str] | None, list[int], list[int]]
"""The requested strings, the tokens of the context, the tokens of the continuation."""


def opening_token(tokenizer: Tokenizer) -> int:
    """The token that precedes a text without a context: bos, or eos.

    Raises:
        UserError: the tokenizer has neither.
    """
    return tokenizer.separator() if tokenizer.bos is None else tokenizer.bos


def encode_pair(
    tokenizer: Tokenizer, context: str, continuation: str
) -> tuple[list[int], list[int]]:
    """Encode both together and split after the number of tokens that the context has alone."""
    text = context.rstrip()
    continuation = context[len(text) :] + continuation
    if not text:
        return [opening_token(tokenizer)], tokenizer.encode(continuation, special=True)
    head = tokenizer.encode_context(text)
    rest = tokenizer.encode_context(text + continuation)[len(head) :]
    return head, rest or tokenizer.encode(continuation, special=True)


class JaxLM(TemplateLM):
    """A decoder and its tokenizer; the harness requests log-likelihoods and generations.

    The conventions are those of the harness's own ``hf`` model: an empty context becomes the bos
    token (or eos), spaces at a context's end belong to the continuation, a sequence that is
    too long is cut at its left end, and a continuation is greedy if each of its tokens is the most
    likely one.

    It differs where that model is wrong: special tokens that a tokenizer appends to a text follow
    neither a context nor an answer; a text is scored after one bos, not two; a continuation that
    merges completely into a token of the context is encoded separately.

    Contexts that the choices of a question share are computed once, and lengths are padded so that
    few programs are compiled. In a multi-process run every process makes the same requests and all
    of them compute each batch together.
    """

    def __init__(
        self,
        model: Decoder,
        tokenizer: AnyTokenizer,
        *,
        batch_size: int = 8,
        mesh: Mesh | None = None,
    ) -> None:
        """Wrap a model that is on ``mesh`` (None: one device).

        Args:
            model: the model.
            tokenizer: its tokenizer.
            batch_size: contexts that are continued together; likelihoods are computed in batches
                of as many times `TOKENS` tokens, padding included.
            mesh: the devices.

        Raises:
            UserError: the model lacks a row for an id of the tokenizer, or the tokenizer has
                neither bos nor eos.
        """
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer = Tokenizer.of(tokenizer)
        tokenizer.check_rows(model.config.vocab_size, "The model")
        self.mesh = mesh or single_device_mesh()
        self.batch_size = batch_size
        self.max_length = model.config.max_positions or tokenizer.max_length or 2048
        self._bos = opening_token(tokenizer)

    @property
    def eot_token_id(self) -> int | None:
        """The end-of-text token."""
        return self.tokenizer.eos

    @property
    def prefix_token_id(self) -> int:
        """The token that precedes a text without a context."""
        return self._bos

    @property
    def tokenizer_name(self) -> str:
        """The name that distinguishes caches of requests."""
        return self.tokenizer.name.replace("/", "__")

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        """Encode a text; by default with the special tokens that the tokenizer puts before it."""
        if add_special_tokens is False:
            return self.tokenizer.encode(string, special=True)
        return self.tokenizer.encode_context(string)

    def chat_template(self, chat_template: bool | str = False) -> str:
        """The tokenizer's template of conversations.

        Raises:
            UserError: it has none, or is asked for one by name.
        """
        template = self.tokenizer.chat_template
        if template is None or isinstance(chat_template, str):
            raise UserError(
                f"The tokenizer {self.tokenizer.name} has no chat template"
                f"{f' {chat_template}' if isinstance(chat_template, str) else ''}: "
                "leave out --apply-chat-template."
            )
        return template

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The text of a conversation, which the answer continues.

        Raises:
            UserError: the tokenizer has no template, or it is broken or refuses the conversation.
        """
        self.chat_template(True)
        try:
            return spell_conversation(
                self.tokenizer, chat_history, add_generation_prompt=add_generation_prompt
            )
        except ValueError as error:
            raise UserError(
                f"The chat template of {self.tokenizer.name} cannot spell a question ({error}): "
                "leave out --apply-chat-template."
            ) from None

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        return encode_pair(self.tokenizer, context, continuation)

    def loglikelihood_rolling(
        self, requests: Sequence[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """Log-likelihood of each whole text, in nats, in windows that predict each token once."""
        windows = [self._rolling_windows(*request.args) for request in requests]
        scores = iter(
            self._loglikelihood_tokens(
                [window for text in windows for window in text], disable_tqdm=disable_tqdm
            )
        )
        totals = [sum((next(scores)[0] for _ in text), 0.0) for text in windows]
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """Continue each context until a stop string, the end of the text or ``max_gen_toks``."""
        texts = [""] * len(requests)
        by_options = defaultdict(list)
        for i, request in enumerate(requests):
            by_options[json.dumps(request.args[1], sort_keys=True, default=str)].append(i)
        with tqdm(total=len(requests), desc="generations", disable=disable_tqdm) as progress:
            for alike in by_options.values():
                options = requests[alike[0]].args[1]
                limit = int(options.get("max_gen_toks", 256))
                contexts = {i: self._context(requests[i].args[0], limit) for i in alike}
                left = sorted(alike, key=lambda i: len(contexts[i]), reverse=True)
                while left:
                    batch, left = left[: self.batch_size], left[self.batch_size :]
                    found = self._generate([contexts[i] for i in batch], limit, options)
                    for i, text in zip(batch, found, strict=True):
                        texts[i] = text
                        self.cache_hook.add_partial("generate_until", requests[i].args, text)
                    progress.update(len(batch))
        return texts

    def _context(self, text: str, limit: int) -> list[int]:
        """The tokens of a context, cut at its left so that ``limit`` new ones fit.

        Raises:
            UserError: they leave no room for it.
        """
        if limit >= self.max_length:
            raise UserError(
                f"max_gen_toks {limit} leaves no room for a context in the model's "
                f"{self.max_length} positions: choose a smaller value."
            )
        tokens = self.tok_encode(text) or [self.prefix_token_id]
        return tokens[-(self.max_length - limit) :]

    def _rolling_windows(self, text: str) -> list[Request]:
        windows = get_rolling_token_windows(
            token_list=self.tok_encode(text, False),
            prefix_token=self.prefix_token_id,
            max_seq_len=self.max_length,
            context_len=1,
        )
        return [(None, *make_disjoint_window(window)) for window in windows]

    def _generate(
        self, contexts: Sequence[list[int]], limit: int, options: Mapping[str, Any]
    ) -> list[str]:
        """The texts that continue contexts, up to the first stop string."""
        until = options.get("until") or []
        stops = [*filter(None, [until] if isinstance(until, str) else until)]

        def text_of(row: int, generated: list[int]) -> str:
            return self.tokenizer.decode_after(contexts[row], generated, skip_special=True)

        generated = generate_batch(
            self.model,
            [np.asarray(context, np.int32) for context in contexts],
            max_new_tokens=limit,
            temperature=options.get("temperature", 0.0) if options.get("do_sample") else 0.0,
            ended=lambda row, tokens: any(stop in text_of(row, tokens) for stop in stops),
            stop=() if self.eot_token_id is None else (self.eot_token_id,),
        )
        texts = [text_of(row, tokens) for row, tokens in enumerate(generated)]
        for stop in stops:
            texts = [text.split(stop)[0] for text in texts]
        return texts

    def _loglikelihood_tokens(
        self, requests: Sequence[Request], disable_tqdm: bool = False, **kwargs: Any
    ) -> list[tuple[float, bool]]:
        """Log-likelihood in nats of each continuation, and whether greedy decoding gives it."""
        for _, context, continuation in requests:
            if not context or len(continuation) > self.max_length:
                raise UserError(
                    f"A context of {len(context)} and a continuation of {len(continuation)} "
                    f"tokens cannot be scored: the context needs at least one token, the "
                    f"continuation at most {self.max_length}."
                )
        scores = [(0.0, True)] * len(requests)  # for requests without a token to score
        asked = [i for i, request in enumerate(requests) if request[2]]
        with tqdm(total=len(asked), desc="log-likelihoods", disable=disable_tqdm) as progress:
            for number, nats, greedy in log_likelihoods(
                self.model,
                [requests[i][1:] for i in asked],
                max_length=self.max_length,
                batch_tokens=self.batch_size * TOKENS,
                mesh=self.mesh,
            ):
                i = asked[number]
                scores[i] = nats, greedy
                if (strings := requests[i][0]) is not None:
                    self.cache_hook.add_partial("loglikelihood", strings, scores[i])
                progress.update()
        return scores
