"""Errors of data name arguments as fields, which a program may spell in its own way."""

import pickle

from nvisa.data import ChecksumError, DataError

ERROR = DataError(
    "a{b}.csv: expected numbers.", "Try {drop_text}, or {label_column}.", drop_text=True, label_column=None
)


def test_arguments_are_written_as_python_has_them_or_as_asked_for():
    assert str(ERROR) == "a{b}.csv: expected numbers. Try drop_text=True, or label_column."
    told = ERROR.told(lambda name, value: f"<{name}:{value}>")
    assert told == "a{b}.csv: expected numbers. Try <drop_text:True>, or <label_column:None>."


def test_without_a_hint_the_problem_is_the_message():
    assert str(ChecksumError("{x}: expected MD5 1")) == "{x}: expected MD5 1"


def test_an_error_reaches_another_process_whole():
    again = pickle.loads(pickle.dumps(ERROR))
    assert (type(again), str(again), again.arguments) == (DataError, str(ERROR), ERROR.arguments)
