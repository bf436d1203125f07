"""A decoder as a language model of lm-evaluation-harness."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int
from tqdm import tqdm

from clp_jax.errors import UserError
from clp_jax.evaluate.batches import global_batch, round_up
from clp_jax.generate import generate_tokens
from clp_jax.mesh import single_device_mesh, to_host
from clp_jax.models.decoder import Decoder, to_logits
from clp_jax.tokenizer import AnyTokenizer, Tokenizer

try:
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import TemplateLM
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
except ModuleNotFoundError as missing:
    raise UserError(
        f"{missing.name} is not installed: the tasks need `pip install clp-jax[eval]`."
    ) from None

LOGITS_CHUNK = 64
"""Positions of a sequence whose logits exist at the same time."""

Request = tuple[tuple[str, str] | None, list[int], list[int]]
"""The requested strings, the tokens of the context, the tokens of the continuation."""


class JaxLM(TemplateLM):
    """A decoder and its tokenizer; the harness requests log-likelihoods and generations.

    The conventions are those of the harness's own ``hf`` model: an empty context becomes the bos
    token (or eos), spaces at a context's end belong to the continuation, a sequence that is
    too long is cut at its left end, and a continuation is greedy if each of its tokens is the most
    likely one.

    It differs where that model is wrong: special tokens that a tokenizer appends to a text follow
    neither a context nor an answer; a text is scored after one bos, not two; a continuation that
    merges completely into a token of the context is encoded separately.

    Lengths are padded to powers of two, so that few programs are compiled. In a multi-process run
    every process makes the same requests and all of them compute each batch together.
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

        Raises:
            UserError: the model lacks a row for an id of the tokenizer, or the tokenizer has
                neither bos nor eos.
        """
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer = Tokenizer.of(tokenizer)
        tokenizer.check_rows(model.config.vocab_size, "The model")
        self.mesh = mesh or single_device_mesh()
        self.batch_size = round_up(batch_size, self.mesh)
        self.max_length = model.config.max_positions or tokenizer.max_length or 2048
        bos = tokenizer.separator() if tokenizer.bos is None else tokenizer.bos
        self._bos = bos

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
        from transformers.utils import chat_template_utils

        render: Any = chat_template_utils.render_jinja_template  # Its annotations are wrong.
        roles = self.tokenizer.roles.items()
        spellings = {
            f"{role}_token": self.tokenizer.token(id) for role, id in roles if id is not None
        }
        template = self.chat_template(True)
        try:
            [text], _ = render(
                [chat_history],
                chat_template=template,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
                **spellings,
            )
        except Exception as error:  # The template is a program, which can fail in any way.
            raise UserError(
                f"The chat template of {self.tokenizer.name} cannot spell a question ({error}): "
                "leave out --apply-chat-template."
            ) from None
        return text

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Encode both together and split after the number of tokens that the context has alone."""
        text = context.rstrip()
        continuation = context[len(text) :] + continuation
        if not text:
            return [self.prefix_token_id], self.tok_encode(continuation, False)
        head = self.tok_encode(text)
        rest = self.tok_encode(text + continuation)[len(head) :]
        return head, rest or self.tok_encode(continuation, False)

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
        return [
            self._generate(*request.args)
            for request in tqdm(requests, desc="generations", disable=disable_tqdm)
        ]

    def _rolling_windows(self, text: str) -> list[Request]:
        windows = get_rolling_token_windows(
            token_list=self.tok_encode(text, False),
            prefix_token=self.prefix_token_id,
            max_seq_len=self.max_length,
            context_len=1,
        )
        return [(None, *make_disjoint_window(window)) for window in windows]

    def _generate(self, context: str, options: dict[str, Any]) -> str:
        until = options.get("until") or []
        stops = [*filter(None, [until] if isinstance(until, str) else until)]
        limit = int(options.get("max_gen_toks", 256))
        if limit >= self.max_length:
            raise UserError(
                f"max_gen_toks {limit} leaves no room for a context in the model's "
                f"{self.max_length} positions: choose a smaller value."
            )
        tokens = self.tok_encode(context) or [self.prefix_token_id]
        tokens = tokens[-(self.max_length - limit) :]

        def text_of(generated: list[int]) -> str:
            return self.tokenizer.decode_after(tokens, generated, skip_special=True)

        generated = generate_tokens(
            self.model,
            np.asarray(tokens, np.int32),
            max_new_tokens=limit,
            temperature=options.get("temperature", 0.0) if options.get("do_sample") else 0.0,
            ended=lambda generated: any(stop in text_of(generated) for stop in stops),
            stop=() if self.eot_token_id is None else (self.eot_token_id,),
        )
        text = text_of(generated)
        for stop in stops:
            text = text.split(stop)[0]
        self.cache_hook.add_partial("generate_until", (context, options), text)
        return text

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
        longest_first = sorted(
            (i for i, request in enumerate(requests) if request[2]),
            key=lambda i: -len(requests[i][1]) - len(requests[i][2]),
        )
        scores = [(0.0, True)] * len(requests)  # for requests without a token to score
        graphdef, parameters = nnx.split(self.model)
        with (
            jax.set_mesh(self.mesh),
            tqdm(
                total=len(longest_first), desc="log-likelihoods", disable=disable_tqdm
            ) as progress,
        ):
            for first in range(0, len(longest_first), self.batch_size):
                batch = longest_first[first : first + self.batch_size]
                arrays = self._pad([requests[i][1:] for i in batch])
                sums, greedy = map(
                    to_host,
                    _score(
                        graphdef,
                        parameters,
                        *(global_batch(array, self.mesh) for array in arrays),
                    ),
                )
                for row, i in enumerate(batch):
                    scores[i] = float(sums[row]), bool(greedy[row])
                    if (strings := requests[i][0]) is not None:
                        self.cache_hook.add_partial("loglikelihood", strings, scores[i])
                progress.update(len(batch))
        return scores

    def _pad(
        self, pairs: Sequence[tuple[list[int], list[int]]]
    ) -> tuple[
        Int[np.ndarray, "batch length"],
        Int[np.ndarray, "batch scored"],
        Int[np.ndarray, "batch scored"],
        Bool[np.ndarray, "batch scored"],
    ]:
        """Inputs, the positions whose next token is scored, those tokens, and which of them count.

        An input lacks its last token, which is only predicted, and is cut at its left if too long.
        """
        inputs = [(context + target)[:-1][-self.max_length :] for context, target in pairs]
        length = self._bucket(max(map(len, inputs)), least=32)
        scored = self._bucket(max(len(target) for _, target in pairs), least=1)
        shape = (self.batch_size, scored)
        tokens = np.zeros((self.batch_size, length), np.int32)
        positions, targets = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
        mask = np.zeros(shape, bool)
        for row, (read, (_, target)) in enumerate(zip(inputs, pairs, strict=True)):
            tokens[row, : len(read)] = read
            positions[row, : len(target)] = np.arange(len(read) - len(target), len(read))
            targets[row, : len(target)] = target
            mask[row, : len(target)] = True
        return tokens, positions, targets, mask

    def _bucket(self, length: int, least: int) -> int:
        """The next power of two, at most the longest sequence that the model can read."""
        return min(max(least, 1 << (length - 1).bit_length()), self.max_length)


@partial(jax.jit, static_argnums=0)
def _score(
    graphdef: nnx.GraphDef[Decoder],
    parameters: Any,
    tokens: Int[Array, "batch length"],
    positions: Int[Array, "batch scored"],
    targets: Int[Array, "batch scored"],
    mask: Bool[Array, "batch scored"],
) -> tuple[Float[Array, " batch"], Bool[Array, " batch"]]:
    model = nnx.merge(graphdef, parameters)
    hidden = jnp.take_along_axis(model.hidden_states(tokens), positions[..., None], axis=1)
    head = model.output_embedding().astype(hidden.dtype)

    def score_position(
        at: tuple[Float[Array, "batch embed"], Int[Array, " batch"]],
    ) -> tuple[Float[Array, " batch"], Bool[Array, " batch"]]:
        hidden, targets = at
        logits = to_logits(hidden, head, model.config.final_softcap)
        correct = jnp.take_along_axis(logits, targets[:, None], axis=-1)[:, 0]
        return correct - jax.nn.logsumexp(logits, axis=-1), logits.argmax(-1) == targets

    by_position = (jnp.swapaxes(hidden, 0, 1), targets.T)
    likelihoods, greedy = jax.lax.map(score_position, by_position, batch_size=LOGITS_CHUNK)
    return jnp.sum(likelihoods * mask.T, axis=0), jnp.all(greedy | ~mask.T, axis=0)
