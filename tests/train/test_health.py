import jax.numpy as jnp
import numpy as np
import pytest

from clp_jax.train.anomalies import HORIZON, Health, check_step


def run(norms, losses=None, spike_factor=10.0):
    """The verdicts on steps with these gradient norms, and the last level."""
    health, verdicts = Health.new(), []
    for norm, loss in zip(norms, losses or [1.0] * len(norms), strict=True):
        check, health = check_step(
            health, jnp.float32(loss), jnp.float32(norm), spike_factor=spike_factor
        )
        verdicts.append((bool(check.skipped), bool(check.spike)))
    return verdicts, health


def test_level_is_the_geometric_mean_at_first_and_follows_the_last_steps_later():
    norms = np.random.default_rng(0).uniform(0.5, 2.0, 60)
    _, health = run(norms[:HORIZON])
    np.testing.assert_allclose(health.log_norm, np.log(norms[:HORIZON]).mean(), rtol=1e-5)
    mean = np.log(norms[:HORIZON]).mean()
    for norm in norms[HORIZON:]:
        mean = (1 - 1 / HORIZON) * mean + np.log(norm) / HORIZON
    np.testing.assert_allclose(run(norms)[1].log_norm, mean, rtol=1e-5)


@pytest.mark.parametrize(("norm", "spike"), [(9.9, False), (10.1, True), (1e30, True)])
def test_norms_far_above_the_level_are_spikes_and_enter_it_as_the_limit(norm, spike):
    verdicts, health = run([1.0] * 25 + [norm])
    assert verdicts == [(False, False)] * 25 + [(spike, spike)]
    expected = np.log(min(norm, 10.0)) / HORIZON
    np.testing.assert_allclose(health.log_norm, expected, rtol=1e-5, atol=1e-6)


def test_a_rise_that_stays_is_accepted_in_the_end():
    verdicts, _ = run([1.0] * 25 + [100.0] * 40)
    assert verdicts[25] == (True, True)
    assert verdicts[-1] == (False, False)


def test_nothing_is_a_spike_before_the_level_is_known_or_where_it_is_turned_off():
    assert not any(spike for _, spike in run([1.0] * (HORIZON - 1) + [1e6])[0])
    assert not any(spike for _, spike in run([1.0] * 30 + [1e6], spike_factor=0.0)[0])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_is_skipped_and_leaves_no_trace(bad):
    healthy = run([1.0, 2.0])[1]
    for norms, losses in (([1.0, 2.0, bad], None), ([1.0, 2.0, 1.0], [1.0, 1.0, bad])):
        verdicts, health = run(norms, losses)
        assert verdicts[-1] == (True, False)
        assert health == healthy


def test_a_step_without_a_gradient_leaves_no_trace():
    assert run([1.0, 2.0, 0.0])[1] == run([1.0, 2.0])[1]
