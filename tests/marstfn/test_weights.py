"""Weights files: what is saved comes back, and what does not fit is refused with a reason."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from marstfn.bands import BANDS
from marstfn.model import MARSTFN, Config
from marstfn.weights import SHIPPED, WeightsFileError, load, save

SMALL = Config(pan=False, features=16, growth=8, layers=2, blocks=1, patch=24)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save(tmp_path / "w.safetensors", MARSTFN(SMALL), {"training": "none"})
    return tmp_path / "w.safetensors"


def altered(path: Path, **header: str) -> Path:
    with safe_open(str(path), framework="pt") as file:
        metadata = {**file.metadata(), **header}
        state = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    out = path.with_name("altered.safetensors")
    save_file(state, str(out), metadata=metadata)
    return out


def test_round_trip(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = MARSTFN(SMALL)
    saved = save(tmp_path / "w.safetensors", model, {"training": "none"})
    loaded = load(tmp_path / "w.safetensors")
    assert loaded.config == SMALL
    assert loaded.sha256 == saved.sha256
    assert len(loaded.sha256) == 64
    assert loaded.header["training"] == "none"
    assert json.loads(loaded.header["bands"]) == list(BANDS)
    assert loaded.state.keys() == model.state_dict().keys()
    assert all(torch.equal(loaded.state[k], v) for k, v in model.state_dict().items())
    assert not list(tmp_path.glob("*.part"))


def test_half_storage_is_loaded_as_float32(tmp_path: Path) -> None:
    loaded = save(tmp_path / "h.safetensors", MARSTFN(SMALL), half=True)
    assert {t.dtype for t in loaded.state.values()} == {torch.float32}
    full = save(tmp_path / "f.safetensors", MARSTFN(SMALL))
    assert (tmp_path / "h.safetensors").stat().st_size < 0.7 * (tmp_path / "f.safetensors").stat().st_size
    assert full.sha256 != loaded.sha256


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_sets_are_found_by_name(name: str) -> None:
    weights = load(name)
    assert weights.config.pan == (name == "marstfn-pan")
    assert weights.source == name
    MARSTFN(weights.config).load_state_dict(weights.state)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"bands": json.dumps(["red", "green", "blue", "nir08", "swir16", "swir22"])}, "in this order"),
        ({"patch": "48"}, "48 px and as 24 px"),
        ({"format": "other/9"}, "format 'other/9'"),
        ({"radiometry": "Landsat OLI"}, "Landsat OLI"),
        ({"config": "{"}, "unreadable header"),
        ({"config": json.dumps({"colour": 1})}, "does not know"),
        ({"config": json.dumps({"patch": 25})}, "no valid network"),
    ],
)
def test_other_bands_patch_or_format_are_refused(path: Path, header: dict[str, str], message: str) -> None:
    with pytest.raises(WeightsFileError, match=message) as caught:
        load(altered(path, **header))
    assert "altered.safetensors" in str(caught.value)


def test_a_network_that_does_not_match_its_header_is_refused(path: Path) -> None:
    config = json.dumps({"pan": False, "features": 32, "growth": 8, "layers": 2, "blocks": 1, "patch": 24})
    with pytest.raises(WeightsFileError, match="do not fit"):
        load(altered(path, config=config))


def test_missing_truncated_and_foreign_files_are_refused(path: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsFileError, match=r"not found.*marstfn-nopan"):
        load(tmp_path / "nothing.safetensors")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(WeightsFileError, match="no complete safetensors"):
        load(path)
    path.write_bytes(b"II*\0 not weights")
    with pytest.raises(WeightsFileError, match="no complete safetensors"):
        load(path)
    with pytest.raises(WeightsFileError):
        load(tmp_path)


def test_a_contradicting_header_and_a_diverged_model_are_not_saved(tmp_path: Path) -> None:
    model = MARSTFN(SMALL)
    with pytest.raises(WeightsFileError, match="patch"):
        save(tmp_path / "w.safetensors", model, {"patch": "60"})
    model.merge.weight.data[0] = float("nan")
    with pytest.raises(WeightsFileError, match=r"merge\.weight"):
        save(tmp_path / "w.safetensors", model)
    assert not list(tmp_path.iterdir())


def test_weights_with_nan_are_refused(path: Path) -> None:
    with safe_open(str(path), framework="pt") as file:
        state = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
        state["out.bias"][0] = float("nan")
        save_file(state, str(path.with_name("nan.safetensors")), metadata=file.metadata())
    with pytest.raises(WeightsFileError, match=r"out\.bias"):
        load(path.with_name("nan.safetensors"))
