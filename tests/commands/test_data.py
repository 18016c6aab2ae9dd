"""`nvisa data`."""

from nvisa.commands import cli, data


def test_data_fetch_of_what_is_here(capsys):
    assert cli.main(["data", "fetch", "digits"]) == 0
    assert "nothing to fetch" in capsys.readouterr().out
    assert cli.main(["data", "fetch", "mnits"]) == 2
    assert data.list_data(None)[0]["present"]
