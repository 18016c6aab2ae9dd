"""Every method of the registry and two classics on the same rows; labels are used for the table only."""

import argparse
import time
from dataclasses import replace

from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.mixture import GaussianMixture

from nvisa.maths import metrics
from nvisa.methods import METHODS


def main(epochs: int | None, n_rows: int) -> None:
    X, y = load_digits(return_X_y=True)
    X, y = X[:n_rows] / 16, y[:n_rows]
    methods = {
        "k-means": KMeans(10, n_init=10, random_state=0),
        "mixture": GaussianMixture(10, covariance_type="diag", random_state=0),
    }
    for name, method in METHODS.items():
        training = None if epochs is None else replace(method.DEFAULT_TRAINING, epochs=epochs)
        methods[name] = method(n_clusters=10, training=training, random_state=0)
    print(f"{'':<10} {'accuracy':>8} {'nmi':>6} {'ari':>6} {'seconds':>8}")
    for name, method in methods.items():
        started = time.perf_counter()
        row = metrics.evaluate(y, method.fit_predict(X))
        seconds = time.perf_counter() - started
        print(f"{name:<10} {row['accuracy']:>8.3f} {row['nmi']:>6.3f} {row['ari']:>6.3f} {seconds:>8.1f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, help="fewer, to see that it runs (default: by the number of rows)")
    parser.add_argument("--rows", type=int, default=1797)
    args = parser.parse_args()
    main(args.epochs, args.rows)
