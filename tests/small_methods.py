"""A small clusterer of every registered method, and the rows that they are fitted to."""

import numpy as np
from sklearn.datasets import make_blobs

from nvisa.fitting.training import Training
from nvisa.methods import METHODS
from nvisa.nets.layers import Network

TINY = Network(hidden=(16,), latent_dim=2, batch_norm=False)
WIDER = Network(hidden=(64, 64), latent_dim=2, batch_norm=False)
NORMED = Network(hidden=(16,), latent_dim=2)
EPOCHS = {"nvisa": 15, "imsat": 15}  # 3 do for the others: their start does not have to be taught
SIZES = 130, 100, 70  # of the blobs: to number clusters by size is to do something


def make(name, epochs=None, **settings):
    """A small clusterer of each method; one line a method."""
    training = Training(epochs=epochs or EPOCHS.get(name, 3), batch_size=64)
    own = {
        "nvisa": {"init": "gmm", "network": NORMED},
        "imsat": {"network": NORMED},
        "ae_gmm": {"n_init": 2},
        "vae_gmm": {"n_init": 2},
        "dec": {"n_init": 2, "pretraining": training, "update_interval": 20},
        "vade": {"n_init": 2, "pretraining": training},
        "gmvae": {"init": "gmm", "noise_dim": 2, "pretraining": training},
        "ltvae": {"n_init": 2, "pretraining": training, "structure": "search"},
        "gm_gan": {"network": WIDER, "classifier_training": training},
    }[name]
    return METHODS[name](3, **{"network": TINY, "training": training, "random_state": 0, **own, **settings})


def separated_blobs():
    """Rows of three blobs of unequal size, and which one each is of."""
    centers = np.array([[0] * 5, [6] * 5, [-6, 6] * 2 + [0]])
    X, y = make_blobs(SIZES[::-1], centers=centers, random_state=0)
    return X.astype(np.float32), y
