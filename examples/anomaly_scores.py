"""Rank rows by how unlikely the model finds them: log p(x), fitted on rows that are mostly in order."""

import argparse
from dataclasses import replace

import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

from nvisa import NVISA


def main(epochs: int | None) -> None:
    rng = np.random.default_rng(0)
    X = load_digits().data[:500] / 16
    odd = rng.permuted(X[:20], axis=1)  # the same ink in the wrong places
    training = None if epochs is None else replace(NVISA.DEFAULT_TRAINING, epochs=epochs)
    model = NVISA(n_clusters=10, training=training, random_state=0).fit(X[20:])
    score = model.score_samples(np.concatenate([X[20:], odd]))
    is_odd = np.r_[np.zeros(len(X) - 20), np.ones(20)]
    print("least likely rows:", np.argsort(score)[:10].tolist(), f"(the odd ones are {len(X) - 20} and after)")
    print(f"area under the ROC curve {roc_auc_score(is_odd, -score):.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, help="fewer, to see that it runs (default: by the number of rows)")
    main(parser.parse_args().epochs)
