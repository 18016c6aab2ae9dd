"""What is published where."""

from nvisa.data.datasets import catalog


def test_the_published_catalog_is_well_formed():
    for spec in (catalog.IDX_SETS["mnist"], catalog.IDX_SETS["fashion_mnist"]):
        assert [file.role for file in spec.files] == ["X_train", "y_train", "X_test", "y_test"]
        assert spec.mirrors[0].startswith("https://")
        assert all(mirror.endswith("/") for mirror in spec.mirrors)
        digests = [digest for file in spec.files for digest in (file.gz_sha256, file.raw_sha256)]
        assert len({*digests}) == 8
        assert all(len(digest) == 64 and int(digest, 16) for digest in digests)
        assert len(spec.classes) == 10


def test_every_archive_has_a_mirror_with_https_and_a_sha256():
    for spec in catalog.ARCHIVE_SETS.values():
        assert spec.mirrors[0].startswith("https://")
        assert len(spec.sha256) == 64
        assert int(spec.sha256, 16)
    assert len({spec.sha256 for spec in catalog.ARCHIVE_SETS.values()}) == 3  # CIFAR-100 is there twice
