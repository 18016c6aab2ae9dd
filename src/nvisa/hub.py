"""Share a fitted clusterer on the Hugging Face Hub, with a card that says what it is. Safetensors and JSON, no pickle.

What goes there is the model directory, of which ``labels_`` are part: the cluster of every training row, not the rows.
What comes from there is two files by name, and read as :func:`nvisa.load` reads a stranger's model: it runs no code.
"""

from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from nvisa.durable_files import write_file
from nvisa.methods import load
from nvisa.persistence import ARRAYS, MANIFEST

__all__ = ["from_hub", "model_card", "push_to_hub"]

CARD = """---
library_name: nvisa
tags:
- clustering
- unsupervised
- {method}
{license}---

# {name}

{method} with {n_clusters} clusters of rows of {n_features} numbers, fitted by [nvisa]({home}) {version} to
{n_rows:,} rows without labels.

```python
from nvisa import from_hub

model = from_hub("{repo}")
labels, proba, z = model.predict(X), model.predict_proba(X), model.transform(X)
```

| cluster | name | rows of the fit |
|---|---|---|
{clusters}

{fit}

## Settings

```python
{settings}
```

## What to know

* The columns of X are {columns}, in the units of the fit.
* `model.predict(X, reject=0.01)` answers -1 for rows unlike those of the fit; without it every row gets a cluster.
* Clusters are groups of rows, not classes: what one means is for you to find out.
* `labels_` and `history_` of the fit are in the model; its rows are not.
"""


def model_card(clusterer: Any, repo_id: str = "user/model", *, license: str | None = None) -> str:
    """The text of the model's README.md: what it was fitted to, its clusters, settings and limits.

    Parameters
    ----------
    clusterer
        A fitted one.
    repo_id
        Where it will be, as "user/name".
    license
        Of the model, as the Hub spells it, such as "bsd-3-clause"; None leaves it open.
    """
    check_is_fitted(clusterer)
    n_clusters, names = clusterer._n_found, clusterer._names
    sizes = np.bincount(clusterer.labels_, minlength=n_clusters)
    clusters = [f"| {k} | {_cell(name)} | {n:,} |" for k, (name, n) in enumerate(zip(names, sizes, strict=True))]
    columns = getattr(clusterer, "feature_names_in_", None)
    listed = "numbers" if columns is None else ", ".join(f"`{_cell(name)}`" for name in columns)
    return CARD.format(
        method=type(clusterer).__name__, name=repo_id.rsplit("/", maxsplit=1)[-1], repo=repo_id, n_clusters=n_clusters,
        n_features=clusterer.n_features_in_, n_rows=len(clusterer.labels_), version=version("nvisa"),
        home="https://github.com/nvisa-developers/nvisa", license="" if license is None else f"license: {license}\n",
        clusters="\n".join(clusters), columns=listed, settings=repr(clusterer), fit=_of_fit(clusterer),
    )  # fmt: skip


def _cell(text: object) -> str:
    """A name as a table shows it: on one line, and no mark of the table's."""
    return " ".join(str(text).split()).translate({ord(mark): " " for mark in "|`<>"})


def _of_fit(clusterer: Any) -> str:
    """What the fit knows of itself, without labels."""
    lines = [f"Training: {clusterer.n_iter_} epochs."]
    if hasattr(clusterer, "stop_reason_"):
        lines.append(f"It ended: {clusterer.stop_reason_}.")
    if (calibration := getattr(clusterer, "calibration_", None)) is not None:
        lines.append(f"Probabilities are calibrated without labels on {calibration['n_rows']:,} rows.")
    return " ".join(lines)


def push_to_hub(
    clusterer: Any,
    repo_id: str,
    *,
    private: bool = True,
    license: str | None = None,
    message: str = "A model of nvisa",
    token: str | bool | None = None,
) -> str:
    """Save the model with its card into a repository of the Hub, which is made if it is not there.

    Parameters
    ----------
    clusterer
        A fitted one.
    repo_id
        "user/name".
    private
        Whether a new repository is seen by its owner alone; one that is there stays as it is.
    license, message
        Of the model; of the commit.
    token
        As huggingface_hub takes it; None: what ``hf auth login`` has kept.

    Returns
    -------
    str
        The address of the commit.

    Raises
    ------
    ImportError
        Without the extra "hub".
    NotFittedError
        Before the fit.

    Examples
    --------
    >>> from nvisa import NVISA
    >>> model = NVISA(3, init="random", random_state=0)
    >>> push_to_hub(model, "user/iris")  # not fitted: nothing is sent
    Traceback (most recent call last):
    sklearn.exceptions.NotFittedError: ...
    """
    with TemporaryDirectory() as folder:
        clusterer.save(path := Path(folder) / "model")
        write_file(path / "README.md", model_card(clusterer, repo_id, license=license).encode())
        api = _hub().HfApi(token=token, library_name="nvisa", library_version=version("nvisa"))
        api.create_repo(repo_id, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=repo_id, folder_path=path, commit_message=message))


def from_hub(repo_id: str, *, revision: str | None = None, device: str = "cpu", token: str | bool | None = None) -> Any:
    """The fitted clusterer of a repository of the Hub; no code from its files is executed.

    Parameters
    ----------
    repo_id
        "user/name".
    revision
        A branch, a tag or a commit; a commit is what cannot change under you. None: the newest.
    device
        As in :func:`nvisa.load`.
    token
        As huggingface_hub takes it.

    Raises
    ------
    ImportError
        Without the extra "hub".
    nvisa.ModelError
        If there is no model of nvisa's, or a damaged one.

    Examples
    --------
    >>> model = from_hub("user/iris", revision="v1")  # doctest: +SKIP
    """
    names = [ARRAYS, MANIFEST]
    folder = _hub().snapshot_download(repo_id, revision=revision, token=token, allow_patterns=names)
    return load(folder, device)


def _hub() -> Any:
    try:
        return import_module("huggingface_hub")
    except ImportError as error:
        raise ImportError(f'expected huggingface_hub, got: {error}. Try pip install "nvisa[hub]".') from error
