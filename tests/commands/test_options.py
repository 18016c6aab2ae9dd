"""Options that several commands share."""

import pytest

from nvisa.commands import cli
from nvisa.commands.options import ReadOptions, option


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("drop_text", True, "--drop-text"),
        ("image_size", (28, 27), "--image-size 28x27"),
        ("labels_from_folders", False, "without --labels-from-folders"),
        ("label_column", None, "--label-column"),
    ],
)
def test_advice_in_the_words_of_the_shell(name, value, words):
    assert option(name, value) == words


def test_what_is_read_can_be_typed_again():
    words = ["--label-column", "kind", "--drop", "a", "--drop", "b", "--image-size", "28x27", "--drop-text"]
    args = cli.build_parser().parse_args(["predict", "m", "x.csv", "--out", "l.csv", *words])
    options = ReadOptions.of(args)
    assert (options.drop, options.image_size, options.drop_missing) == (("a", "b"), (28, 27), False)
    again = cli.build_parser().parse_args(["predict", "m", "x.csv", "--out", "l.csv", *options.words()])
    assert ReadOptions.of(again) == options


def test_an_option_that_was_renamed_is_refused_with_its_new_name(capsys):
    with pytest.raises(SystemExit) as raised:
        cli.main(["fit", "x.csv", "--n-clusters", "3", "--out", "m", "--n-init", "5"])
    assert raised.value.code == 2
    assert "--n-init is now --n-restarts" in capsys.readouterr().err
