"""Random tables, written in random dialects: what is in the file, and what a reader should make of it."""

import bz2
import csv
import gzip
import io
import json
import lzma
from dataclasses import dataclass, field

import numpy as np
import pyarrow

from nvisa.data import Dialect

WORDS = ["age", "mass", "Größe", "price_eur", "n", "x1", "temp", "öl", "width", "k"]
COMPRESS = {
    "": lambda b: b,
    ".gz": lambda b: gzip.compress(b, 1),
    ".bz2": bz2.compress,
    ".xz": lambda b: lzma.compress(b, preset=0),
    ".zst": lambda b: pyarrow.compress(b, codec="zstd", asbytes=True),
}


@dataclass
class Written:
    """A file, and its truth."""

    content: bytes
    text: str
    suffix: str
    X: np.ndarray
    columns: list[str] | None
    names: list[str] | None
    dialect: Dialect
    tags: dict = field(default_factory=dict)


def pick(rng, *options, p=None):
    return options[rng.choice(len(options), p=p)]


def write(rng):
    """One table in one dialect."""
    n, d = int(rng.integers(4, 40)), int(rng.integers(1, 6))
    separator = pick(rng, ",", ";", "\t", "|", " ", p=[0.4, 0.25, 0.15, 0.1, 0.1])
    decimal = pick(rng, ".", ",", p=[0.65, 0.35])
    thousands = pick(rng, "", "other", "'", "\u00a0", " ", p=[0.6, 0.25, 0.05, 0.05, 0.05])
    thousands = {"other": "," if decimal == "." else "."}.get(thousands, thousands)
    quoting = pick(rng, csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC, p=[0.7, 0.2, 0.1])
    if separator == " ":
        thousands, quoting = ("" if thousands in (" ", "\u00a0") else thousands), csv.QUOTE_MINIMAL
    gap = pick(rng, None, "", "NA", "nan", "null", p=[0.5, 0.3, 0.1, 0.05, 0.05])
    gap = "NA" if gap == "" and (separator == " " or d == 1) else gap
    columns = [column(rng, n) for _ in range(d)]
    X = np.column_stack([values for values, _ in columns])
    cells = [[number(text, decimal, thousands) for text in texts] for _, texts in columns]
    if gap is not None:
        holes = rng.random((n, d)) < 0.1
        holes[:2] = False
        X[holes] = np.nan
        cells = [[gap if holes[i, k] else text for i, text in enumerate(texts)] for k, texts in enumerate(cells)]
    header = pick(rng, "words", "none", "years", "range", "wavelengths", p=[0.55, 0.2, 0.1, 0.1, 0.05])
    names = header_names(rng, header, d)
    cells, first, X, columns_read = with_vector(rng, cells, names, X) if header == "words" and rng.random() < 0.1 else (
        cells, names, X, names)  # fmt: skip
    cells, first, row_names = (
        with_index(rng, cells, first, n, separator) if rng.random() < 0.3 else (cells, first, None)
    )
    if rng.random() < 0.2:
        place = int(rng.integers(1, len(cells) + 1))
        cells.insert(place, [pick(rng, "red", "blå", "a b", 'say "x"', "C#") for _ in range(n)])
        first = None if first is None else [*first[:place], "remark", *first[place:]]
    comment = pick(rng, "", "#", "%", "//", p=[0.7, 0.2, 0.05, 0.05])
    text, skip = text_of(rng, cells, first, separator, quoting, comment)
    encoding = pick(rng, "utf-8", "utf-8-sig", "utf-16", "cp1252", p=[0.7, 0.1, 0.1, 0.1])
    if encoding == "cp1252" and all(ord(sign) < 128 for sign in text):
        encoding = "utf-8"
    suffix = pick(rng, *COMPRESS, p=[0.6, 0.1, 0.1, 0.1, 0.1])
    ending = pick(rng, "\n", "\r\n", p=[0.7, 0.3])
    content = COMPRESS[suffix](text.replace("\n", ending).encode(encoding))
    is_named = first is not None
    said = Dialect(
        header=is_named, separator=r"\s+" if separator == " " else separator, decimal=decimal, thousands=thousands,
        comment=comment, encoding=encoding, skip_lines=skip,
    )  # fmt: skip
    tags = {"header": header, "separator": separator, "decimal": decimal, "thousands": thousands, "comment": comment}
    return Written(content, text, ".csv" + suffix, X, columns_read if is_named else None, row_names, said, tags)


def column(rng, n):
    """(values, each as it is written with a point, and no groups)."""
    kind = pick(rng, "count", "money", "fixed", "short", "science", "time", "share")
    if kind == "count":
        values = rng.integers(0, 10 ** int(rng.integers(1, 7)), n)
        return values.astype(float), [str(v) for v in values]
    if kind == "time":
        values = 1_700_000_000 + rng.integers(0, 5000, n)
        return values.astype(float), [str(v) for v in values]
    scale = {"money": 10 ** rng.uniform(1, 6), "fixed": 30.0, "short": 100.0, "science": 1e-6, "share": 1.0}[kind]
    raw = scale * (rng.random(n) if kind == "share" else rng.normal(size=n))
    digits = int(rng.integers(1, 5))
    form = {"money": "{:.2f}", "fixed": f"{{:.{digits}f}}", "short": "{:.4g}", "science": "{:.6e}", "share": "{!r}"}[
        kind
    ]
    texts = [form.format(float(v)) for v in raw]
    return np.array([float(t) for t in texts]), texts


def number(text, decimal, thousands):
    """With these marks."""
    whole, point, rest = text.partition(".")
    if thousands and whole.lstrip("-").isdigit() and len(whole.lstrip("-")) > 3:
        whole = f"{int(whole):,}".replace(",", thousands)
    return whole + (decimal if point else "") + rest


def header_names(rng, header, d):
    if header == "none":
        return None
    if header == "words":
        return [WORDS[i] for i in rng.permutation(len(WORDS))[:d]]
    if header == "range":
        return [str(i) for i in range(d)]
    start, step = int(rng.integers(1900, 2020)), int(rng.integers(1, 20))
    return [f"{start + step * i}" if header == "years" else f"{start + 1.37 * step * i:.2f}" for i in range(d)]


def with_index(rng, cells, first, n, separator):
    """A first column that names the rows."""
    kind = pick(rng, "words", "numbers")
    names = [f"s{i:02}" for i in range(n)] if kind == "words" else [str(i) for i in range(n)]
    if first is None:
        kind = "words"
        names = [f"s{i:02}" for i in range(n)]
    title = pick(rng, "" if separator != " " else "id", "id", "sample_id")
    return [names, *cells], None if first is None else [title, *first], None if first is None else names


def with_vector(rng, cells, names, X):
    """A column of vectors besides."""
    values = rng.normal(size=(len(X), 3)).round(4)
    texts = [pick(rng, json.dumps(row), str(row)) for row in values.tolist()]
    read = [*names, *(f"vec_{i}" for i in range(3))]
    return [*cells, texts], [*names, "vec"], np.column_stack([X, values]), read


def text_of(rng, cells, first, separator, quoting, comment):
    """(the file's text, how many lines above the table are none of it)."""
    out = io.StringIO()
    above = 0
    if rng.random() < 0.1 and separator != " " and len(cells) > 1:  # above one column, a title is its name
        titles = ["Export of the day", "made by hand"][: int(rng.integers(1, 3))]
        out.write("".join(f"{title}\n" for title in titles))
        above = len(titles)
    elif comment:
        out.write(
            "".join(f"{comment} {words}\n" for words in ("made 2024-01-01", "unit: mm")[: int(rng.integers(1, 3))])
        )
    rows = [list(row) for row in zip(*cells, strict=True)]
    writer = csv.writer(out, delimiter=separator, quoting=quoting, lineterminator="\n")
    if first is not None:
        writer.writerow(first)
    middle = int(rng.integers(1, len(rows)))
    for i, row in enumerate(rows):
        if comment and i == middle and rng.random() < 0.5:
            out.write(f"{comment} restarted\n")
        writer.writerow(row)
    text = out.getvalue()
    return (text if rng.random() < 0.8 else text.rstrip("\n")), above
