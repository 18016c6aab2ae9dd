"""Cluster an array, look at what comes out, save it and read it back."""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from sklearn.datasets import make_blobs

import nvisa
from nvisa import NVISA


def main(epochs: int | None) -> None:
    X, _ = make_blobs(600, n_features=8, centers=4, random_state=0)  # your rows here, [N D]
    training = None if epochs is None else replace(NVISA.DEFAULT_TRAINING, epochs=epochs)
    model = NVISA(n_clusters=4, training=training, random_state=0).fit(X)
    print("sizes", np.bincount(model.labels_, minlength=4))
    print("sure of", f"{(model.predict_proba(X).max(axis=1) > 0.9).mean():.0%} of the rows")
    made_up, _ = model.sample(5, cluster=0)
    print("rows that the model makes up for cluster 0:\n", made_up.round(1))
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "model")
        same = nvisa.load(Path(folder) / "model").predict(X)
    print("read back, it says the same:", np.array_equal(same, model.labels_))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, help="fewer, to see that it runs (default: by the number of rows)")
    main(parser.parse_args().epochs)
