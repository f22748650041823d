# SPDX-License-Identifier: Apache-2.0
"""Renamed keys of recipes. An old name is refused with a message that gives the new one, if the component has that.

The estimators bound and importance still have `steps`, which is T of a bound; the estimator and the sampler ode have
`solver_steps`.
"""

RENAMED = {
    "objective.times": "objective.time_sampler",
    "objective.schedule": "objective.schedule_loss",
    "likelihood.estimator.steps": "likelihood.estimator.solver_steps",
    "sampling.sampler.steps": "sampling.sampler.solver_steps",
}
