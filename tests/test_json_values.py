"""JSON from anybody: bounded, with numbers and text that can be used; and a digest that notices every change."""

import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvisa import json_values
from nvisa.json_values import check_digest, parse, with_digest, wrong_fields

SCALARS = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(st.characters(blacklist_categories=["Cs"]), max_size=5)
DOCUMENTS = st.dictionaries(
    TEXT.filter(lambda key: key != "digest"),
    st.recursive(SCALARS | TEXT, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3)),
    max_size=4,
)


@given(DOCUMENTS)
def test_what_is_written_is_read_back_with_its_digest(document):
    read = parse(json.dumps(with_digest(document)).encode())
    check_digest(read)
    assert {key: value for key, value in read.items() if key != "digest"} == document


def changed_everywhere(value):
    """Copies of a document, each with one leaf, key or length changed."""
    if isinstance(value, dict):
        for key in value:
            yield {("x" + k if k == key else k): v for k, v in value.items()}
            yield from (value | {key: new} for new in changed_everywhere(value[key]))
    elif isinstance(value, list):
        yield [*value, 0]
        for i, item in enumerate(value):
            yield from (value[:i] + [new] + value[i + 1 :] for new in changed_everywhere(item))
    else:
        yield [value]


def test_no_part_of_a_document_can_be_changed_without_being_noticed():
    document = {"params": {"seed": 1, "init": None}, "history": [{"bound": 0.5, "stage": "x"}, {}], "flag": True}
    written, n = with_digest(document), 0
    for other in changed_everywhere(copy.deepcopy(document)):
        n += 1
        with pytest.raises(ValueError, match="it was changed"):
            check_digest(other | {"digest": written["digest"]})
    assert n > 12
    check_digest(document)  # of before: there is none


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[" * 100_000, "more than 64 deep"),
        (b"[" * 66 + b"]" * 66, "more than 64 deep"),
        (b'{"a":' * 70 + b"1" + b"}" * 70, "more than 64 deep"),
        (b"[NaN]", "NaN is not JSON"),
        (b"[-Infinity]", "-Infinity is not JSON"),
        (b"[1e999]", "larger than a float"),
        (b"[" + b"9" * 60 + b"]", "more than 128 bits"),
        (b"[" + b"9" * 6000 + b"]", "digits"),
        (b'["\\ud800"]', "surrogates"),
        (b'{"\\ud800": 1}', "surrogates"),
        (b"\xff\xfe\x00", "decode|truncated"),
        (b"", "Expecting value"),
    ],
)
def test_what_is_refused(content, message):
    with pytest.raises(ValueError, match=message):
        parse(content)


def test_what_is_large_is_refused_before_it_is_parsed(monkeypatch):
    monkeypatch.setattr(json_values, "LARGEST", 10)
    monkeypatch.setattr(json_values.json, "loads", lambda *_, **__: pytest.fail("it was parsed"))
    with pytest.raises(ValueError, match="11 bytes, more than 10"):
        parse(b"[" + b" " * 9 + b"]")


def test_what_is_at_the_limit_is_read():
    assert parse(b"[" * 64 + b"]" * 64) is not None
    assert parse(b"[NaN]", finite=False)[0] != parse(b"[0]")[0]
    assert parse(str((1 << 128) - 1).encode()) == (1 << 128) - 1


def test_true_is_no_number_and_what_is_missing_is_wrong():
    kinds = {"n": int, "x": (int, float), "b": bool, "s": str}
    assert wrong_fields({"n": 1, "x": 1, "b": True, "s": ""}, kinds) == []
    assert wrong_fields({"n": True, "x": False, "b": 1}, kinds) == ["n", "x", "b", "s"]
