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


def ridge_map(anchors, rows, strength, weights):
    """Least squares by the solver of NumPy: weighted equations, the penalty as additional ones."""
    share = weights / weights.sum()
    a, y = anchors - share @ anchors, rows - share @ rows
    root = np.sqrt(weights)[:, None]
    penalty = np.sqrt(strength * np.mean(np.sum((root * a) ** 2, axis=0))) * np.eye(a.shape[1])
    equations = np.concatenate([root * a, penalty])
    wanted = np.concatenate([root * y, np.zeros((a.shape[1], y.shape[1]))])
    return np.linalg.lstsq(equations, wanted, rcond=None)[0]


def anchor_weights(problem, exponent=0.5):
    """The root of the frequencies; 0 where a norm is not within a factor of 3 of the median."""
    _, anchors, known = in_float64(problem)
    weights = np.ones(len(anchors))
    if problem.frequencies is not None:
        weights = np.asarray(problem.frequencies, np.float64) ** exponent
    for table in (anchors, known):
        norms = np.linalg.norm(table, axis=1)
        ratio = np.maximum(norms / np.median(norms), np.median(norms) / norms)
        weights[ratio > 3] = 0
    return weights


def ridge(problem, strength):
    queries, anchors, known = in_float64(problem)
    weights = anchor_weights(problem)
    mapping, share = ridge_map(anchors, known, strength, weights), weights / weights.sum()
    return np.array([(query - share @ anchors) @ mapping + share @ known for query in queries])


def ridge_residual(problem, strength, neighbours=20, temperature=0.1):
    """Ridge, and the mean of what it misses at the anchors nearest about the mean."""
    queries, anchors, known = in_float64(problem)
    used = anchor_weights(problem) > 0
    missed = (known - ridge(problem._replace(queries=anchors), strength))[used]
    center = anchors[used].mean(axis=0)
    weights = [
        softmax_weights(cosines(query, anchors[used] - center), neighbours, temperature)
        for query in queries - center
    ]
    return ridge(problem, strength) + weights @ missed


def ridge_choice(problem, strengths):
    """The weakest strength with an error within 2% of the best, and its relative error.

    Every tenth of the anchors that count is predicted by the others.
    """
    _, anchors, known = in_float64(problem)
    weights = anchor_weights(problem)
    hidden = np.zeros(len(anchors), bool)
    hidden[np.flatnonzero(weights)[9::10]] = True
    seen, share = weights * ~hidden, weights[hidden] / weights[hidden].sum()
    center, base = (seen @ table / seen.sum() for table in (anchors, known))
    errors = []
    for strength in strengths:
        mapping = ridge_map(anchors, known, strength, seen)
        found = (anchors[hidden] - center) @ mapping + base
        errors.append(np.sum((found - known[hidden]) ** 2, axis=1))
    means = errors @ share
    chosen = next(i for i, mean in enumerate(means) if mean <= 1.02 * min(means))
    return strengths[chosen], means[chosen] / (np.sum((known[hidden] - base) ** 2, axis=1) @ share)


def sava(problem):
    queries, anchors, known = in_float64(problem)
    ones = np.ones((len(anchors), 1))
    mapping = np.linalg.lstsq(np.hstack([anchors, ones]), known, rcond=None)[0]
    return np.array([np.append(query, 1) @ mapping for query in queries])


def flor(problem):
    queries, anchors, known = in_float64(problem)
    mapping = np.linalg.lstsq(anchors, known, rcond=None)[0]
    return np.array([query @ mapping for query in queries])


def procrustes(problem):
    queries, anchors, known = in_float64(problem)
    a, y = anchors - anchors.mean(axis=0), known - known.mean(axis=0)
    left, values, right = np.linalg.svd(a.T @ y, full_matrices=False)
    rotation = values.sum() / np.sum(a**2) * left @ right
    return np.array([(q - anchors.mean(axis=0)) @ rotation + known.mean(axis=0) for q in queries])


def matched_by_direction(rows, known, shrinkage):
    """Rows scaled along the known rows' principal directions, which here come from their SVD."""
    rows, known = np.asarray(rows, np.float64), np.asarray(known, np.float64)
    center = rows.mean(axis=0)
    _, _, directions = np.linalg.svd(known - known.mean(axis=0))
    moved = rows - center
    wanted = [np.var((known - known.mean(axis=0)) @ axis) for axis in directions]
    found = [np.var(moved @ axis) for axis in directions]
    for axis, want, have in zip(directions, wanted, found, strict=True):
        factor = np.sqrt((want + shrinkage * np.mean(wanted)) / (have + shrinkage * np.mean(found)))
        moved = moved + (factor - 1) * np.outer(moved @ axis, axis)
    return center + moved


def reliability(predicted, known):
    predicted, known = np.asarray(predicted, np.float64), np.asarray(known, np.float64)
    errors = np.array(
        [np.sum((p - k) ** 2) / np.sum(k**2) for p, k in zip(predicted, known, strict=True)]
    )
    return np.array([min(1, np.median(errors) / error) for error in errors])


def pursuit_weights(query, anchors, atoms=64):
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


def omp(problem, atoms=64):
    queries, anchors, known = in_float64(problem)
    return np.array([pursuit_weights(query, anchors, atoms) @ known for query in queries])
