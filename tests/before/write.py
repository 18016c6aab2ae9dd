"""How the models and checkpoints of this folder were made: by the version before today's names (commit 5792d8f).

They are never written again: today's nvisa has no such names. ``PYTHONPATH=<that version>/src python write.py``
"""

import json
from pathlib import Path

import numpy as np

from nvisa import GMGAN, NVISA, VAT, Cosine, Geometric, Network, StdFloor, Training, checkpoint

HERE = Path(__file__).parent
TINY = Network(hidden=(8, 8), latent_dim=2)
PLAIN = Network(hidden=(4,), latent_dim=2, batch_norm=False)  # four states of it are to be kept
SHORT = Training(epochs=4, batch_size=6, learning_rate=Cosine(2e-2), device="cpu")
FLOOR = StdFloor(x=Geometric(0.43, 0.02, until=0.7), z=Geometric(0.5, 0.05), settled=True)
WARM = {"init": "gmm", "std_floor": FLOOR, "consistency": VAT(pull=0.5), "reparameterise": True, "n_init": 2}
PLAY = {"penalty": 0.3, "information": 1.0, "recognition": Training(epochs=2, batch_size=16, device="cpu")}
COMMON = {"network": TINY, "training": SHORT, "random_state": 0}
CASES = {
    "nvisa": NVISA(3, **WARM, **COMMON | {"network": PLAIN}),
    "consistency_alone": NVISA(3, inference=None, init="random", n_init=2, **COMMON),
    "gm_gan": GMGAN(3, **PLAY, **COMMON),
}


def rows():
    """60 rows in three blobs."""
    rng = np.random.RandomState(0)
    return np.concatenate([rng.randn(20, 3) + 4 * k for k in range(3)]).astype(np.float32)


def killed(stage, epoch):
    """A callback that ends the fit there."""

    def kill(clusterer, record):
        if (record["stage"], record["epoch"]) == (stage, epoch):
            raise KeyboardInterrupt

    return kill


def left(name, clusterer, X, stage, epoch):
    """A checkpoint of the fit, killed there."""
    checkpoint.EVERY = 0.0
    try:
        clusterer.on_epoch(killed(stage, epoch)).fit(X, checkpoint=HERE / name)
    except KeyboardInterrupt:
        clusterer.on_epoch(None)


def main():
    """Write everything."""
    X, found = rows(), {}
    left("nvisa_checkpoint", CASES["nvisa"], X, "training", 3)
    left("gm_gan_checkpoint", CASES["gm_gan"], X, "game", 3)
    left("consistency_alone_checkpoint", CASES["consistency_alone"], X, "training", 3)
    for name, clusterer in CASES.items():
        clusterer.fit(X).save(HERE / name)
        found[name] = {
            "labels": clusterer.predict(X).tolist(),
            "proba": np.round(clusterer.predict_proba(X).astype(float), 7).tolist(),
            "restarts": getattr(clusterer, "restarts_", None),
        }
        if name != "consistency_alone":
            found[name]["latent"] = np.round(clusterer.transform(X).astype(float), 6).tolist()
            found[name]["sample"] = np.round(clusterer.sample(5, random_state=1)[0].astype(float), 6).tolist()
    found["nvisa"]["score"] = np.round(CASES["nvisa"].score_samples(X).astype(float), 5).tolist()
    (HERE / "predicted.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
