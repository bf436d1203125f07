"""A transferred model on a sample of target text, before any training."""

import math
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int
from transformers import PreTrainedTokenizerBase

from clp_jax.checkpoint.hf import build_model
from clp_jax.checkpoint.tensors import LazyTensor
from clp_jax.data.store import Corpus
from clp_jax.loss import next_token_loss
from clp_jax.mesh import batch_divisor, to_global
from clp_jax.models import Decoder, DecoderConfig, parameter_path, weight_table
