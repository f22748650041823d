# SPDX-License-Identifier: Apache-2.0
"""Train a recipe by a loop of your own: `vdmkit.loss` and optax.

    python examples/training_loop.py digits 20

It starts from the model of `vdmkit run digits --set training.steps=20`, uses the same optimizer, batches and keys, and
gives the same parameters, bit for bit. (`vdmkit run` also averages them.)
"""

import sys

import equinox as eqx
import jax

import vdmkit
from vdmkit.data.batches import batches
from vdmkit.randomness import fold_purpose
from vdmkit.recipes import Recipe, load_recipe
from vdmkit.recipes.build import build_optimizer, initial_model


def train(recipe: Recipe) -> vdmkit.DiffusionModel:
    """Returns the model after the recipe's steps."""
    images, key = recipe.data.build().load("train"), fold_purpose(jax.random.key(recipe.seed), "train")
    model, optimizer = initial_model(recipe, images), build_optimizer(recipe)
    opt_state = optimizer.init(eqx.filter(model, eqx.is_inexact_array))

    @eqx.filter_jit
    def update(model, opt_state, image, condition, key):
        gradient_of = eqx.filter_value_and_grad(vdmkit.loss, has_aux=True)
        (loss, _), gradient = gradient_of(model, image, key=key, condition=condition)
        updates, opt_state = optimizer.update(gradient, opt_state, eqx.filter(model, eqx.is_inexact_array))
        return eqx.apply_updates(model, updates), opt_state, loss

    data = batches(images, batch_size=recipe.training.batch_size, seed=recipe.seed)
    for step in range(recipe.training.steps):
        batch = next(data)
        condition = {name: value for name, value in batch.items() if name != "image"}
        model, opt_state, loss = update(model, opt_state, batch["image"], condition, jax.random.fold_in(key, step))
        print(f"step {step + 1}: {loss:.4f} bits/dim")
    return model


if __name__ == "__main__":
    train(load_recipe(sys.argv[1], [f"training.steps={sys.argv[2]}"]))
