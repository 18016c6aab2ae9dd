"""LTVAE and the latent tree it learns: one paper, one folder."""

from nvisa.methods.ltvae.ltvae import LTVAE

__all__ = ["LTVAE"]
