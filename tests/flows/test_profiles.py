import tomllib

import pytest

from flows import profiles
from flows.profiles import ProfileError

SETTINGS = {"PREFECT_API_URL": "http://127.0.0.1:4200/api", "PREFECT_PLUGINS_ENABLED": "true"}

WORK = """# my own notes
active = "work"   # do not lose

[profiles.work]
PREFECT_API_URL = "https://example.org/api"  # ours

[profiles."other one"]
PREFECT_LOGGING_LEVEL = "DEBUG"
"""

FILES = {
    "empty": "",
    "usual": WORK,
    "no active": WORK.replace('active = "work"   # do not lose\n', ""),
    "no last line end": WORK.rstrip("\n"),
    "blank lines at the end": WORK + "\n\n",
    "as Prefect writes it": 'active = "work"\n\n[profiles.work]\nPREFECT_API_URL = "x"\n\n[profiles.b]\n',
}


@pytest.mark.parametrize("text", FILES.values(), ids=FILES.keys())
def test_added_then_removed_restores_the_file(text):
    former = profiles.active(text)
    after = profiles.added(text, SETTINGS)
    parsed = tomllib.loads(after)
    assert parsed["active"] == "marstfn"
    assert parsed["profiles"]["marstfn"] == SETTINGS
    assert profiles.added(after, SETTINGS) == after
    back = profiles.removed(after, former)
    old, new = tomllib.loads(text), tomllib.loads(back)
    assert old == new
    assert back.split("\n", 2)[0] == text.split("\n", 2)[0]
    for comment in ("# my own notes", "# do not lose", "# ours"):
        assert (comment in text) == (comment in back)


def test_another_choice_since_is_respected():
    after = profiles.added(WORK, SETTINGS).replace('active = "marstfn"', 'active = "other one"')
    assert profiles.active(profiles.removed(after, "work")) == "other one"


def test_a_file_rewritten_by_prefect_meanwhile_is_still_ours_to_clean():
    import toml

    rewritten = toml.dumps(toml.loads(profiles.added(WORK, SETTINGS)))
    assert tomllib.loads(profiles.removed(rewritten, "work")) == tomllib.loads(WORK)


def test_removing_what_is_not_there_changes_nothing():
    assert profiles.removed(WORK, None) == WORK


def test_a_file_that_is_not_toml_is_left_alone():
    with pytest.raises(ProfileError, match=r"is not TOML.*nothing was changed.*Repair"):
        profiles.added("active = [", SETTINGS)


def test_a_file_that_cannot_be_edited_safely_is_refused():
    inline = 'profiles = { work = { A = "1" }, marstfn = { B = "2" } }\n'
    with pytest.raises(ProfileError):
        profiles.added(inline, SETTINGS)


def test_the_path_follows_prefects_rules(tmp_path):
    assert profiles.path({"PREFECT_PROFILES_PATH": "/a/p.toml", "PREFECT_HOME": "/b"}).as_posix() == "/a/p.toml"
    assert profiles.path({"PREFECT_HOME": str(tmp_path)}) == tmp_path / "profiles.toml"
    assert profiles.path({}).parts[-2:] == (".prefect", "profiles.toml")
