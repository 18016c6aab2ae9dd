"""Files of kinds that are not read: what to type to make them one that is."""

import shlex
from pathlib import Path

__all__ = ["conversion"]

PANDAS = {
    ".xlsx": "read_excel", ".xlsm": "read_excel", ".xls": "read_excel", ".ods": "read_excel",
    ".json": "read_json", ".jsonl": "read_json", ".ndjson": "read_json",
    ".feather": "read_feather", ".arrow": "read_feather", ".orc": "read_orc",
    ".dta": "read_stata", ".sav": "read_spss", ".sas7bdat": "read_sas", ".xpt": "read_sas",
}  # fmt: skip
CODE = {
    "pandas": "import pandas; pandas.{reader}({path}{lines}).to_parquet({parquet})",
    ".arff": "import pandas, scipy.io.arff as a; pandas.DataFrame(a.loadarff({path})[0]).to_parquet({parquet})",
    ".h5ad": "import anndata, nvisa.tools as t; a = anndata.read_h5ad({path}); t.cluster(a, K); a.write({path})",
    ".mtx": "import scipy; scipy.sparse.save_npz({npz}, scipy.io.mmread({path}).tocsr())",
    ".svm": "import scipy, sklearn.datasets as d; scipy.sparse.save_npz({npz}, d.load_svmlight_file({path})[0])",
    ".h5": "import h5py, numpy; numpy.save({npy}, h5py.File({path})['NAME'][:])",
    ".mat": "import numpy, scipy.io; numpy.save({npy}, scipy.io.loadmat({path})['NAME'])",
    ".pt": "import numpy, torch; numpy.save({npy}, torch.load({path}, weights_only=True).numpy())",
}
ALIASES = {".libsvm": ".svm", ".svmlight": ".svm", ".hdf5": ".h5", ".pth": ".pt"}
ARCHIVES = {".zip": "zipfile", ".tar": "tarfile", ".tgz": "tarfile"}


def conversion(path: Path) -> str:
    """The command that makes this file one that is read, or the functions that write such.

    Examples
    --------
    >>> print(conversion(Path("cells.mtx")))
    python -c "import scipy; scipy.sparse.save_npz('cells.npz', scipy.io.mmread('cells.mtx').tocsr())"
    >>> print(conversion(Path("runs.tar.gz")))
    python -m tarfile -e runs.tar.gz FOLDER, and what it holds
    """
    suffix = path.suffix.lower()
    inner = Path(path.stem).suffix.lower()
    if module := ARCHIVES.get(inner if inner == ".tar" else suffix):
        return f"python -m {module} -e {shlex.quote(str(path))} FOLDER, and what it holds"
    named = {kind: repr(str(path.with_suffix(f".{kind}"))) for kind in ("parquet", "npz", "npy")}
    if reader := PANDAS.get(suffix):
        lines = ", lines=True" if suffix in (".jsonl", ".ndjson") else ""
        code = CODE["pandas"].format(reader=reader, path=repr(str(path)), lines=lines, **named)
    elif suffix := ALIASES.get(suffix, suffix if suffix in CODE else ""):
        code = CODE[suffix].format(path=repr(str(path)), **named)
    else:
        return "numpy.save, or DataFrame.to_csv"
    return f'python -c "{code}"'
