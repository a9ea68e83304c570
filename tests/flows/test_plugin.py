"""What the plug-in makes of what people type."""

import json
import sys

import pytest

from flows import plugin
from flows.plugin import rewrite

FULL = "fuse-year/fuse-year"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "field.geojson").write_text("{}")
    (tmp_path / "own.safetensors").write_text("")
    return tmp_path


def typed(line, folder, environ=None):
    done = rewrite(line.split(), folder, environ or {})
    return None if done is None else done.arguments


@pytest.mark.parametrize("name", ["fuse-year", FULL])
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("--param aoi=field.geojson", "--param aoi={cwd}/field.geojson"),
        ("--param=aoi=field.geojson", "--param=aoi={cwd}/field.geojson"),
        ("-p aoi=field.geojson", "-p aoi={cwd}/field.geojson"),
        ("-p=aoi=field.geojson", "-p=aoi={cwd}/field.geojson"),
        ("-paoi=field.geojson", "-paoi={cwd}/field.geojson"),
        ('--param aoi="field.geojson"', "--param aoi={cwd}/field.geojson"),
        ("--param aoi=field.geojson --watch", "--param aoi={cwd}/field.geojson --watch"),
        ("--watch --param aoi=field.geojson", "--watch --param aoi={cwd}/field.geojson"),
        ("--param aoi=http://h/field.geojson", "--param aoi=http://h/field.geojson"),
        ("--param aoi=hailar", "--param aoi=hailar"),
        ("--param aoi=nothing.geojson", "--param aoi=nothing.geojson"),
        ("--param aoi=field.geojson --param store=out", "--param aoi={cwd}/field.geojson --param store={cwd}/out"),
        ("-p aoi=hailar -p store=s3://b/out", "-p aoi=hailar -p store=s3://b/out"),
        ("-p aoi=hailar -p weights=own.safetensors", "-p aoi=hailar -p weights={cwd}/own.safetensors"),
        ("-p aoi=hailar -p weights=marstfn-pan", "-p aoi=hailar -p weights=marstfn-pan"),
        ("-p aoi=hailar --tag fuse-year --flow-run-name x", "-p aoi=hailar --tag fuse-year --flow-run-name x"),
    ],
)
def test_run(folder, name, given, expected):
    got = typed(f"deployment run {name} {given}", folder)
    expected = expected.replace("{cwd}", str(folder))
    assert got == [*f"deployment run {FULL} {expected}".split(), "--param", f"base={folder}"]


@pytest.mark.parametrize("name", ["train-year", "train-year/train-year"])
def test_training_is_deployed_alike(folder, name):
    given = "--param aoi=field.geojson --param out=mine.safetensors --param weights=own.safetensors --param store=s"
    got = typed(f"deployment run {name} {given}", folder, {"MARSTFN_YEAR": "2023", "MARSTFN_WEIGHTS": "x"})
    expected = (
        f"deployment run train-year/train-year --param aoi={folder}/field.geojson "
        f"--param out={folder}/mine.safetensors "
        f"--param weights={folder}/own.safetensors --param store={folder}/s --param base={folder} --param year=2023"
    )
    assert got == expected.split()
    named = typed(f"deployment run {name} -p aoi=hailar -p weights=marstfn-nopan", folder)
    assert "weights=marstfn-nopan" in named


@pytest.mark.parametrize("name", ["evaluate-year", "evaluate-year/evaluate-year"])
@pytest.mark.parametrize(
    ("aoi", "expected", "note"),
    [
        ("field.geojson", "{cwd}/field.geojson", "area of interest: the file {cwd}/field.geojson"),
        ("scenes", "{cwd}/scenes", "cases: {cwd}/scenes"),
        ("hailar", "hailar", "area of interest: the bundled hailar (no file hailar in {cwd})"),
        ("simulated", "simulated", None),
        ("flanders:data", "flanders:data", None),
        ("s3://bucket/store", "s3://bucket/store", None),
    ],
)
def test_evaluations_take_areas_folders_and_named_sources(folder, name, aoi, expected, note):
    (folder / "scenes").mkdir()
    line = f"deployment run {name} --param aoi={aoi} -p out=report -p store=s"
    done = rewrite(line.split(), folder, {"MARSTFN_YEAR": "2023", "MARSTFN_METHOD": "x"})
    wanted = (
        f"deployment run evaluate-year/evaluate-year --param aoi={expected} -p out={{cwd}}/report -p store={{cwd}}/s "
        "--param base={cwd} --param year=2023"
    )
    assert done.arguments == wanted.replace("{cwd}", str(folder)).split()
    assert done.notes[:-1] == ([] if note is None else [note.replace("{cwd}", str(folder))])


def test_methods_of_an_evaluation_are_a_list_and_stay_as_they_are(folder):
    methods = 'methods=["additive","own.safetensors"]'
    got = typed(f"deployment run evaluate-year --param aoi=simulated --param {methods}", folder)
    assert got[5:] == ["--param", methods, "--param", f"base={folder}"]


def test_inline_geojson_is_left_alone(folder):
    got = typed('deployment run fuse-year --param aoi={"type":"Point"}', folder)
    assert got[3:5] == ["--param", 'aoi={"type":"Point"}']


@pytest.mark.parametrize(
    "line",
    [
        "",
        "version",
        "--version",
        "deployment",
        "deployment ls",
        "deployment run",
        "deployment run other/other --param aoi=field.geojson",
        "deployment run other --tag fuse-year",
        "deployment run --id 0000 --param aoi=field.geojson",
        "deployment run --param",
        "flow-run ls fuse-year",
        "work-pool create fuse-year",
    ],
)
def test_other_commands_are_left_alone(folder, line):
    assert typed(line, folder) is None


@pytest.mark.parametrize(
    "line",
    [
        "deployments run fuse-year",
        "--profile mine deployment run fuse-year",
        "-p mine --no-prompt deployment run fuse-year",
        "--no-prompt deployment run --watch fuse-year",
        "deployment run --tag fuse-year fuse-year",
        "deployment run --start-in fuse-year --watch-timeout 5 fuse-year",
    ],
)
def test_the_name_is_found_among_options(folder, line):
    words = line.split()
    expected = words[:]
    last = len(words) - 1 - words[::-1].index("fuse-year")
    expected[last] = FULL
    assert typed(line, folder) == [*expected, "--param", f"base={folder}"]


def test_inspect_gets_the_name_alone(folder):
    assert typed("deployment inspect fuse-year", folder, {"MARSTFN_YEAR": "2020"}) == ["deployment", "inspect", FULL]


def test_the_callers_environment_is_passed_on(folder):
    catalog = "simulated@http://127.0.0.1:1"
    environ = {"MARSTFN_CATALOG": catalog, "MARSTFN_YEAR": "2021", "MARSTFN_METHOD": "  "}
    got = typed("deployment run fuse-year -p aoi=hailar -p year=2020", folder, environ)
    assert got[5:] == ["-p", "year=2020", "--param", f"base={folder}", "--param", f"catalog={catalog}"]
    got = typed('deployment run fuse-year --params {"catalog":"earth-search","base":"/x"}', folder, environ)
    assert got[5:] == ["--param", "year=2021"]


def test_parameters_from_standard_input_get_nothing_added(folder):
    line = "deployment run fuse-year --params -"
    assert typed(line, folder, {"MARSTFN_YEAR": "2021"}) == line.replace("fuse-year", FULL).split()


def test_notes_say_which_area(folder):
    def note(aoi):
        return rewrite(["deployment", "run", "fuse-year", "--param", f"aoi={aoi}"], folder, {}).notes

    assert note("field.geojson") == [f"area of interest: the file {folder}/field.geojson"]
    assert note("hailar.geojson")[0].startswith("area of interest: the bundled hailar (no file hailar.geojson in ")
    assert "is no file and" in note("typo.geojson")[0]
    (folder / "hailar.geojson").write_text("{}")
    assert note("hailar.geojson") == [f"area of interest: the file {folder}/hailar.geojson"]


@pytest.mark.parametrize("name", ["sp ace.geojson", 'quo"te.geojson', "123", "back\\slash.geojson", "true"])
def test_odd_names_reach_prefect_whole(folder, name):
    from prefect.cli._utilities import load_json_key_values

    (folder / name).write_text("{}")
    typed_name = json.dumps(name) if name in ("123", "true") or '"' in name or "\\" in name else name
    done = rewrite(["deployment", "run", "fuse-year", "--param", f"aoi={typed_name}"], folder, {})
    assert load_json_key_values([done.arguments[4]], "parameter") == {"aoi": str(folder / name)}


def test_the_hook_edits_argv_in_place_and_only_for_prefect(folder, monkeypatch, capsys):
    argv = ["/usr/bin/prefect", "deployment", "run", "fuse-year", "--param", "aoi=field.geojson"]
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.chdir(folder)
    plugin.setup_environment(ctx=None)
    assert argv[3] == FULL
    assert capsys.readouterr().err.startswith(f"marstfn: area of interest: the file {folder}/field.geojson\n")
    other = ["/usr/bin/pytest", "deployment", "run", "fuse-year"]
    monkeypatch.setattr(sys, "argv", other)
    plugin.setup_environment(ctx=None)
    assert other[3] == "fuse-year"


def test_the_hook_never_raises(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["prefect", "deployment", "run", "fuse-year"])
    monkeypatch.setattr(plugin, "rewrite", lambda *a: 1 / 0)
    plugin.setup_environment(ctx=None)
    monkeypatch.setattr(sys, "argv", [])
    plugin.setup_environment(ctx=None)
