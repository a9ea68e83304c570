"""The command line: help, exit codes, and what it says where it cannot go on."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from flows import cli
from tests.pipeline import small_store

COMMANDS = ["demo", "run", "plan", "status", "verify", "ndvi", "export", "train", "up", "down", "catalogue"]
MARSTFN = str(Path(sys.executable).with_name("marstfn"))


def typed(capsys, *arguments):
    """(exit code, standard output, standard error) of a command line."""
    code = cli.run(list(arguments))
    said = capsys.readouterr()
    return code, said.out, said.err


def test_help_names_every_command(capsys):
    code, text, _ = typed(capsys, "--help")
    assert code == 0
    assert [c for c in COMMANDS if c not in text] == []
    assert "Exit codes" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(capsys, command):
    code, text, _ = typed(capsys, command, "--help")
    assert code == 0
    assert f"marstfn {command}" in text.split("Parameters")[0].replace("Usage: marstfn", "")


def test_help_is_quick():
    used = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([MARSTFN, "--help"], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    # processor time: what a busy machine adds is not ours
    assert min(used) < 1.0, f"marstfn --help took {used} s"


def test_help_imports_nothing_heavy():
    code = "import sys; from flows import cli; cli.run(['--help']); print(sorted(set(sys.modules)))"
    text = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    for module in ("torch", "prefect", "xarray", "distributed", "rasterio", "matplotlib"):
        assert f"'{module}'" not in text, module


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["run"],
        ["run", "a.geojson", "--no-such-option", "1"],
        ["run", "a.geojson", "--method", "magic"],
        ["run", "a.geojson", "--year", "soon"],
        ["export", "cube"],
    ],
)
def test_wrong_usage_ends_with_2(capsys, arguments):
    code, text, error = typed(capsys, *arguments)
    assert code == 2
    assert not text
    assert error


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["run", "no-such.geojson"], 2, ["no-such.geojson", "no file", "hailar"]),
        (["run", "hailar", "--year", "1900"], 2, ["year = 1900", "2015", "nothing was started"]),
        (["run", "hailar", "--tile", "100"], 2, ["tile_px = 100", "multiple of 6"]),
        (["run", "hailar", "--catalog", "nowhere"], 2, ["nowhere", "planetary-computer"]),
        (["run", "hailar", "--scheduler", "8786"], 2, ["scheduler", "8786"]),
        (["run", "hailar", "--weights", "no.safetensors"], 2, ["no.safetensors"]),
        (["run", "hailar", "--catalog", "simulated@http://127.0.0.1:9"], 1, ["127.0.0.1:9"]),
        (["plan", "no-such.geojson"], 2, ["no-such.geojson"]),
        (["run", "hailar", "--radiometry", "nonsense"], 2, ["'nonsense' is neither ITEM=SCALE,OFFSET nor boa-offset"]),
        (["evaluate"], 2, ["nothing to evaluate was named", "simulated", "area of interest"]),
        (["evaluate", "simulated", "--methods", ""], 2, ["a method without a name", "network,additive"]),
        (["evaluate", "simulated", "--year", "2023"], 2, ["year says what is read for an area", "simulated is none"]),
        (["evaluate", "simulated", "--nbar", "off", "--tile", "120"], 2, ["tile, nbar say what is read"]),
        (["evaluate", "hailar", "--radiometry", "nonsense"], 2, ["'nonsense' is neither"]),
        (["evaluate", "no-such-folder"], 2, ["no-such-folder", "names no cases"]),
        (["catalogue", "no-such-folder"], 2, ["holds no catalogue", "nothing is served"]),
        (["demo", "--out", "a/b"], 2, ["--out a/b", "does not exist; nothing was read or written"]),
        (["status", "no-such-store"], 2, ["no-such-store", "give the folder"]),
        (["ndvi", "no-such-cube", "--point", "1,2"], 2, ["no-such-cube"]),
        (["ndvi", "cube"], 2, ["--point", "--out"]),
        (["ndvi", "cube", "--point", "1;2"], 2, ["LON,LAT"]),
        (["ndvi", "cube", "--plot", "a.png", "--out", "b.zarr"], 2, ["--plot", "--point"]),
        (["export", "no-such-cube", "tiffs"], 2, ["no-such-cube"]),
        (["status", "x" * 300], 1, ["cannot be looked at", "255 bytes"]),
        (["verify", "x" * 300], 1, ["cannot be looked at", "255 bytes"]),
        (["run", "hailar", "--store", "x" * 300], 1, ["cannot be looked at", "255 bytes"]),
        (["ndvi", "cube", "--out", "s3://bucket/ndvi.zarr"], 2, ["s3://bucket/ndvi.zarr", "folder of this machine"]),
        (["plan", "hailar", "--out", "a/b/plan.json"], 2, ["no folder", "nothing was searched"]),
    ],
)
def test_bad_input_is_one_readable_message(capsys, tmp_path, monkeypatch, arguments, code, words):
    monkeypatch.chdir(tmp_path)
    for name in ("MARSTFN_CATALOG", "MARSTFN_YEAR", "MARSTFN_STORE"):
        monkeypatch.delenv(name, raising=False)
    got, text, error = typed(capsys, *arguments)
    assert got == code
    assert not text
    assert [w for w in words if w not in error] == []
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


def test_verbose_shows_where(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, error = typed(capsys, "run", "no-such.geojson", "-v")
    assert code == 2
    assert "Traceback" in error
    assert error.rstrip().splitlines()[-1].startswith("error: ")


def test_an_interrupt_ends_with_130(capsys, monkeypatch):
    from flows.commands import tools

    def interrupted(*a, **k):
        raise KeyboardInterrupt

    monkeypatch.setattr(tools, "talking", interrupted)
    code, _, error = typed(capsys, "up")
    assert code == 130
    assert "a run keeps its finished tiles" in error


def test_an_error_nobody_foresaw_ends_with_1(capsys, monkeypatch):
    from flows.commands import tools

    monkeypatch.setattr(tools, "talking", lambda talk: 1 / 0)
    code, _, error = typed(capsys, "up")
    assert code == 1
    assert error.startswith("error: unexpected ZeroDivisionError")


def test_the_version_is_the_packages(capsys):
    import importlib.metadata

    assert typed(capsys, "--version")[1].strip() == importlib.metadata.version("marstfn")


@pytest.mark.parametrize("arguments", [["up", "--port", "70000"], ["catalogue", ".", "--port", "-1"]])
def test_a_port_out_of_range_is_wrong_usage(capsys, arguments):
    assert typed(capsys, *arguments)[0] == 2


@pytest.mark.parametrize("redirection", [">/dev/full", ">&-"])
def test_results_nobody_takes_end_quietly_with_a_code(tmp_path, redirection):
    small_store.write(tmp_path / "store")
    command = f'"{sys.executable}" -m flows.cli status "{tmp_path}/store" {redirection}'
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "unexpected" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_an_interrupt_is_answered_at_once(capsys):
    with pytest.raises(KeyboardInterrupt):
        cli._interrupted(2, None)
    assert "stopping ..." in capsys.readouterr().err
