"""CLP-Transfer in JAX: turn a language model of one language into a model of another.

The names below are the public API. Each is imported on first use, so ``import clp_jax`` is fast.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clp_jax.chain import run_chain
    from clp_jax.chain_config import ChainConfig
    from clp_jax.checkpoint.hf import load_model, save_model
    from clp_jax.checkpoint.new import new_model
    from clp_jax.compare import compare_models
    from clp_jax.config import RunConfig
    from clp_jax.convert import convert_checkpoint
    from clp_jax.data.config import PrepareConfig
    from clp_jax.data.prepare import prepare_corpus
    from clp_jax.doctor import check_machine
    from clp_jax.errors import UserError
    from clp_jax.evaluate.perplexity import evaluate_perplexity
    from clp_jax.evaluate.tasks import compare_results, evaluate_tasks
    from clp_jax.finetune import finetune_model
    from clp_jax.generate import generate_text
    from clp_jax.graft import graft_model
    from clp_jax.mesh import make_mesh
    from clp_jax.plan import plan_run
    from clp_jax.push import push_model
    from clp_jax.quickstart.run import run_quickstart
    from clp_jax.runs import list_runs
    from clp_jax.train.loop import train_model
    from clp_jax.transfer.stage import transfer_model
    from clp_jax.vocabulary import compare_vocabularies
    from clp_jax.vocabulary.train import train_tokenizer

_PLACES = {
    "ChainConfig": "clp_jax.chain_config",
    "PrepareConfig": "clp_jax.data.config",
    "RunConfig": "clp_jax.config",
    "UserError": "clp_jax.errors",
    "check_machine": "clp_jax.doctor",
    "compare_models": "clp_jax.compare",
    "compare_results": "clp_jax.evaluate.tasks",
    "compare_vocabularies": "clp_jax.vocabulary",
    "convert_checkpoint": "clp_jax.convert",
    "evaluate_perplexity": "clp_jax.evaluate.perplexity",
    "evaluate_tasks": "clp_jax.evaluate.tasks",
    "finetune_model": "clp_jax.finetune",
    "generate_text": "clp_jax.generate",
    "graft_model": "clp_jax.graft",
    "list_runs": "clp_jax.runs",
    "load_model": "clp_jax.checkpoint.hf",
    "make_mesh": "clp_jax.mesh",
    "new_model": "clp_jax.checkpoint.new",
    "plan_run": "clp_jax.plan",
    "prepare_corpus": "clp_jax.data.prepare",
    "push_model": "clp_jax.push",
    "run_chain": "clp_jax.chain",
    "run_quickstart": "clp_jax.quickstart.run",
    "save_model": "clp_jax.checkpoint.hf",
    "train_model": "clp_jax.train.loop",
    "train_tokenizer": "clp_jax.vocabulary.train",
    "transfer_model": "clp_jax.transfer.stage",
}

__all__ = [
    "ChainConfig",
    "PrepareConfig",
    "RunConfig",
    "UserError",
    "check_machine",
    "compare_models",
    "compare_results",
    "compare_vocabularies",
    "convert_checkpoint",
    "evaluate_perplexity",
    "evaluate_tasks",
    "finetune_model",
    "generate_text",
    "graft_model",
    "list_runs",
    "load_model",
    "make_mesh",
    "new_model",
    "plan_run",
    "prepare_corpus",
    "push_model",
    "run_chain",
    "run_quickstart",
    "save_model",
    "train_model",
    "train_tokenizer",
    "transfer_model",
]
__version__ = version("clp-jax")


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
