"""Where `./dev prove` keeps what it finds."""

from proof.__main__ import own_directory


def test_only_a_folder_it_makes_is_opened_to_the_account_of_postgresql(tmp_path):
    """Somebody's folder stays as private as it was."""
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o700)

    assert own_directory(theirs) == theirs
    assert theirs.stat().st_mode & 0o777 == 0o700
    assert own_directory(theirs / "ours").stat().st_mode & 0o777 == 0o755
