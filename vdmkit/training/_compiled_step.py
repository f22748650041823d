# SPDX-License-Identifier: Apache-2.0
"""The compiled training step, kept for later commands: to trace a large network takes as long as many steps."""

import pickle
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
from jax.experimental import serialize_executable
from jax.experimental.compilation_cache.compilation_cache import reset_cache
from jaxtyping import PyTree

from vdmkit.multihost import is_alone, meet
from vdmkit.remembered import in_words, key_of, key_of_program, recall, remember
from vdmkit.training._gradient import Metrics
from vdmkit.training._state import TrainState
from vdmkit.training._step import Inputs, one_step, train_step

Step = Callable[[Inputs, TrainState], tuple[TrainState, Metrics]]


@dataclass(frozen=True)
class KeptStep:
    """The program of an earlier command that trained a recipe, if one did; a thread loads it.

    `recipe` must determine the update and the training state, but for their arrays; without it nothing is kept.
    """

    recipe: str | None = None
    program: str = ""
    loading: Future[Any] | None = None

    def get(self, program: str) -> Any:
        """Returns the program of this name, or None if there is none that can be loaded."""
        return self.loading.result() if self.loading and program == self.program else _recalled(program)


def load_ahead(recipe: str | None) -> KeptStep:
    """Begins to load the program that trained the recipe last, which takes XLA most of a second, and not Python."""
    key = recipe and _key_of_newest(recipe)
    if not key or (newest := recall(key)) is None:
        return KeptStep(recipe)
    thread, program = ThreadPoolExecutor(1), newest.decode()
    loading = thread.submit(_recalled, program)
    thread.shutdown(wait=False)
    return KeptStep(recipe, program, loading)


def _key_of_newest(recipe: str) -> str | None:
    return key_of("newest training step", recipe)


def compiled_step(kept: KeptStep, inputs: Inputs, state: TrainState) -> Step:
    """Returns `train_step` compiled for arrays like these, from an earlier command if one compiled the same."""
    arrays, static = eqx.partition((inputs, state), eqx.is_array)
    recipe = kept.recipe if jax.device_count() == 1 else None
    key = recipe and key_of("training step", recipe, _words(static), _words(_types(arrays)))
    if not recipe or not key:
        return in_step(train_step, inputs, state)
    trees = jax.tree.structure(arrays[0]), jax.tree.structure(arrays[1])
    program = recall(key)
    compiled = (program and kept.get(program.decode())) or _compiled(
        (key, _key_of_newest(recipe)), static, arrays, trees
    )

    def step(inputs: Inputs, state: TrainState) -> tuple[TrainState, Metrics]:
        leaves, metrics = compiled(*(jax.tree.leaves(eqx.filter(part, eqx.is_array)) for part in (inputs, state)))
        return eqx.combine(jax.tree.unflatten(trees[1], leaves), static[1]), metrics

    return step


def in_step(step: Any, inputs: Inputs, state: TrainState) -> Step:
    """Returns the step; with other processes compiled by all, since a collective waits for them for 30 seconds only."""
    if is_alone():
        return step
    compiled = step.lower(inputs, state).compile()
    meet()
    return compiled


def _compiled(keys: Iterable[str | None], static: PyTree, arrays: PyTree, trees: tuple[Any, Any]) -> Any:
    """Compiles the step on lists of arrays, because functions, which the training state holds, cannot be kept."""

    def step(*leaves: list[jax.Array]) -> tuple[list[jax.Array], Metrics]:
        parts = tuple(map(jax.tree.unflatten, trees, leaves))
        state, metrics = one_step(*eqx.combine(parts, static))
        new, tree = jax.tree.flatten(eqx.filter(state, eqx.is_array))
        assert tree == trees[1]
        return new, metrics

    lowered = jax.jit(step, donate_argnums=1).lower(*map(jax.tree.leaves, arrays))
    program = key_of_program(lowered.as_text())
    found = _recalled(program) or _written(program, lowered)
    for key in filter(None, keys):
        remember(key, program.encode())
    return found


def _recalled(program: str) -> Any:
    if (entry := recall(program)) is None:
        return None
    try:
        return serialize_executable.deserialize_and_load(*pickle.loads(entry))  # only this user can have written it
    except Exception:  # JAX raises errors of many types; it is compiled anew
        return None


def _written(program: str, lowered: jax.stages.Lowered) -> jax.stages.Compiled:
    with _without_cache():
        compiled = lowered.compile()
    with suppress(ValueError, NotImplementedError, jax.errors.JaxRuntimeError):  # it cannot be kept on this device
        remember(program, pickle.dumps(serialize_executable.serialize(compiled)))
    return compiled


@contextmanager
def _without_cache() -> Iterator[None]:
    """Turns JAX's own cache off: of a program that XLA has read there, it writes only a part."""
    before = jax.config.jax_enable_compilation_cache  # pyright: ignore[reportAttributeAccessIssue]
    jax.config.update("jax_enable_compilation_cache", False)
    reset_cache()
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        reset_cache()


def _types(arrays: PyTree) -> list[tuple[str, Any]]:
    return [(repr(jax.typeof(leaf)), leaf.sharding) for leaf in jax.tree.leaves(arrays)]


def _words(tree: PyTree) -> str:
    return in_words(jax.tree.structure(tree), jax.tree.leaves(tree))
