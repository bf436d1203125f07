"""Models of the harness whose likelihoods a test chooses."""

import zlib
from statistics import NormalDist

import numpy as np
from lm_eval.api.model import LM

from clp_jax.evaluate.tasks import load, run
from clp_jax.evaluate.tasks.report import summarise


def noise(*parts):
    """A fixed standard normal number for these texts."""
    seed = zlib.crc32("|".join(map(str, parts)).encode())
    return float(np.random.default_rng(seed).normal())


class Stub(LM):
    """Scores each request by a function of it; a text of n characters scores -n."""

    max_length = 10_000

    def __init__(self, score):
        super().__init__()
        self.score = score

    def loglikelihood(self, requests, disable_tqdm=False):
        return [(self.score(request), False) for request in requests]

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        return [-float(len(request.args[0])) for request in requests]

    def generate_until(self, requests, disable_tqdm=False):
        raise NotImplementedError

    def tok_encode(self, text, add_special_tokens=None):
        return [*text.encode()]


def random_weights(seed):
    """Prefers one choice everywhere, more or less, as models with random weights do."""
    return Stub(lambda request: noise(seed, *request.args) + 2 * noise(seed, request.args[1]))


def planted(share, seed):
    """Knows the answers to a share of the questions and guesses the others."""

    def score(request):
        knows = noise(seed, request.doc) < NormalDist().inv_cdf(share)
        return 9.0 * (knows and request.idx == request.doc["label"]) + noise(seed, *request.args)

    return Stub(score)


def loaded(tasks, include_path=None, task_data=None):
    return load.load_tasks(load.task_manager(tasks, include_path, task_data), tasks)


def results_of(model, tasks, **places):
    """What `evaluate_tasks` returns for a model of the harness."""
    found = run.run_harness(model, loaded(tasks, **places))
    return summarise(found.results, found.tasks)
