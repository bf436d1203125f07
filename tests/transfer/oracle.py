"""Every method as the papers write it: one query at a time, in NumPy float64, weights written out.

A function takes a `clp_jax.transfer.interface.Problem` and gives its rows.
"""

import numpy as np


def in_float64(problem):
    return (np.asarray(table, np.float64) for table in problem[:3])


def by_weights(weigh):
    """The anchors' rows, combined with the weights that ``weigh`` gives to one query's cosines."""

    def rows(problem):
        queries, anchors, known = in_float64(problem)
        return np.array([weigh(cosines(query, anchors)) @ known for query in queries])

    return rows


def cosines(query, anchors):
    return anchors @ query / np.linalg.norm(anchors, axis=1) / np.linalg.norm(query)


def cosine_weights(similarity):
    return similarity / similarity.sum()


def softmax_weights(similarity, neighbours=10, temperature=0.1):
    """Softmax over the nearest, zero elsewhere."""
    nearest = np.argsort(-similarity)[:neighbours]
    weights = np.zeros_like(similarity)
    weights[nearest] = np.exp(similarity[nearest] / temperature)
    return weights / weights.sum()


def sparsemax_weights(similarity):
    """Algorithm 1 of Martins & Astudillo 2016, which sorts."""
    ordered = np.sort(similarity)[::-1]
    sums = np.cumsum(ordered)
    places = np.arange(1, len(ordered) + 1)
    support = places[1 + places * ordered > sums][-1]
    return np.maximum(similarity - (sums[support - 1] - 1) / support, 0)


clp = by_weights(cosine_weights)
clp_topk = by_weights(softmax_weights)
clp_sparse = by_weights(sparsemax_weights)


def coherence(problem):
    """The signed sum of each query's weights over its largest value for weights of this length."""
    queries, anchors, _ = in_float64(problem)
    weights = [cosines(query, anchors) for query in queries]
    return np.array([w.sum() / np.linalg.norm(w) / np.sqrt(len(w)) for w in weights])


def signed_share(problem):
    """|sum w| / sum |w| of each query's weights."""
    queries, anchors, _ = in_float64(problem)
    weights = [cosines(query, anchors) for query in queries]
    return np.array([abs(w.sum()) / np.abs(w).sum() for w in weights])


def guarded_clp(problem, least=0.5):
    """The formula where the coherence is at least ``least``, the mean of the nearest elsewhere."""
    formula, nearest = clp(problem), clp_topk(problem)
    return np.where((coherence(problem) >= least)[:, None], formula, nearest)


def mean(problem):
    return np.array([problem.mean for _ in problem.queries], np.float64)


def subword(problem):
    """The mean of the rows at the positions that a query holds before its -1."""
    return np.array(
        [
            problem.rows[[int(place) for place in query if place >= 0]].mean(axis=0)
            for query in problem.queries
        ]
    )


def ridge_map(anchors, rows, strength):
    """Least squares by the solver of NumPy, the penalty as additional equations."""
    a, y = anchors - anchors.mean(axis=0), rows - rows.mean(axis=0)
    penalty = np.sqrt(strength * np.mean(np.sum(a**2, axis=0))) * np.eye(a.shape[1])
    equations = np.concatenate([a, penalty])
    wanted = np.concatenate([y, np.zeros((a.shape[1], y.shape[1]))])
    return np.linalg.lstsq(equations, wanted, rcond=None)[0]


def ridge(problem, strength):
    queries, anchors, known = in_float64(problem)
    mapping = ridge_map(anchors, known, strength)
    center, base = anchors.mean(axis=0), known.mean(axis=0)
    return np.array([(query - center) @ mapping + base for query in queries])


def ridge_errors(problem, strengths):
    """The error of every tenth anchor's row by the others, as a share of the mean row's error."""
    _, anchors, known = in_float64(problem)
    hidden = np.arange(len(anchors)) % 10 == 9
    seen = problem._replace(queries=anchors[hidden], anchors=anchors[~hidden], rows=known[~hidden])
    spread = np.sum((known[hidden] - seen.rows.mean(axis=0)) ** 2)
    return [np.sum((ridge(seen, strength) - known[hidden]) ** 2) / spread for strength in strengths]


def procrustes(problem):
    queries, anchors, known = in_float64(problem)
    a, y = anchors - anchors.mean(axis=0), known - known.mean(axis=0)
    left, values, right = np.linalg.svd(a.T @ y, full_matrices=False)
    rotation = values.sum() / np.sum(a**2) * left @ right
    return np.array([(q - anchors.mean(axis=0)) @ rotation + known.mean(axis=0) for q in queries])


def pursuit_weights(query, anchors, atoms=8):
    unit = anchors / np.linalg.norm(anchors, axis=1, keepdims=True)
    chosen, rest = [], query
    for _ in range(min(atoms, len(anchors))):
        fit = np.abs(unit @ rest)
        fit[chosen] = -1
        chosen.append(int(fit.argmax()))
        shares = np.linalg.lstsq(anchors[chosen].T, query, rcond=None)[0]
        rest = query - shares @ anchors[chosen]
        if np.linalg.norm(rest) < 1e-6 * np.linalg.norm(query):
            break
    weights = np.zeros(len(anchors))
    weights[chosen] = shares
    return weights


def omp(problem):
    queries, anchors, known = in_float64(problem)
    return np.array([pursuit_weights(query, anchors) @ known for query in queries])
