# SPDX-License-Identifier: Apache-2.0
"""MuLAN: diffusion models with learned adaptive noise (Sahoo et al. 2023, arXiv 2312.13236).

model = vdmkit_mulan.load("ckpt-1.flax", "config.json")
vdmkit_mulan.bits_per_dim(model, images, key=key)  # an Interval
vdmkit_mulan.terms(model, image, draws)            # one draw of each term in nats, differentiable
"""

from vdmkit_mulan._bound import Draws, diffusion_loss, draw_latent, terms
from vdmkit_mulan._encoder import Encoder
from vdmkit_mulan._estimator import MulanBound, bits_per_dim, log_likelihood
from vdmkit_mulan._files import load
from vdmkit_mulan._latent import k_hot, kl_of_one, largest_kl, sum_of_gammas
from vdmkit_mulan._model import Mulan, MulanError
from vdmkit_mulan._schedule import PolynomialSchedule

__all__ = [
    "Draws",
    "Encoder",
    "Mulan",
    "MulanBound",
    "MulanError",
    "PolynomialSchedule",
    "bits_per_dim",
    "diffusion_loss",
    "draw_latent",
    "k_hot",
    "kl_of_one",
    "largest_kl",
    "load",
    "log_likelihood",
    "sum_of_gammas",
    "terms",
]
