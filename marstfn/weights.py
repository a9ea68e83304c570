"""Weights with everything a user must know about them, in one safetensors file."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from importlib import resources
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from marstfn.bands import BANDS
from marstfn.model import Config, Network, build

FORMAT = "marstfn-weights/1"
RADIOMETRY = "Sentinel-2 MSI"
SCALE = "surface reflectance, 0..1, float32"
SHIPPED = ("marstfn-pan", "marstfn-nopan")
"""Names of the sets inside the package, with and without the panchromatic band."""
SIBLINGS = ("dstfn-nopan",)
"""Names of the sets that are there for comparison, and that nothing chooses by itself."""


class WeightsFileError(ValueError):
    """A weights file is missing, unreadable, or was made for other bands, another patch side or another format."""


@dataclass(frozen=True)
class Weights:
    """Trained parameters (float32), the form they belong to and what is known of their making."""

    config: Config
    state: dict[str, Tensor]
    header: dict[str, str]
    sha256: str
    source: str

    @property
    def interval(self) -> tuple[float, ...] | None:
        """By band, what makes the uncertainty a half-width of the 90 % interval; None without uncertainty."""
        if not self.config.uncertainty:
            return None
        return tuple(json.loads(self.header["interval"])) if "interval" in self.header else (1.0,) * len(BANDS)


def load(path_or_name: str | Path) -> Weights:
    """Read and check a weights file, or one of the shipped sets by name (`marstfn-pan`, `marstfn-nopan`).

    Raises WeightsFileError (a ValueError) naming the file, what is wrong with it and the remedy.
    """
    path, source = _find(path_or_name)
    try:
        with safe_open(str(path), framework="pt") as file:
            header = dict(file.metadata() or {})
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except FileNotFoundError as error:
        raise WeightsFileError(
            f"weights {source!r} not found; give a .safetensors file or one of {', '.join((*SHIPPED, *SIBLINGS))}"
        ) from error
    except (SafetensorError, OSError) as error:
        raise WeightsFileError(
            f"weights {source!r} are no complete safetensors file ({error}); fetch the file again or train anew"
        ) from error
    config = _checked(header, source)
    state = {name: tensor.to(torch.float32) for name, tensor in state.items()}
    _match(config, state, source)
    return Weights(config, state, header, hashlib.sha256(path.read_bytes()).hexdigest(), source)


def save(path: str | Path, model: Network, header: Mapping[str, str] | None = None, *, half: bool = False) -> Weights:
    """Write `model` with `header` (data and licences, protocol, commit, metrics) to `path` and read it back.

    `half` stores float16; what is loaded is float32 again. Bands, patch side, scale, radiometry and form are added
    here. Raises WeightsFileError where `header` contradicts them, or a parameter is not finite.
    """
    own = {
        "format": FORMAT,
        "bands": json.dumps(BANDS),
        "patch": str(model.config.patch),
        "scale": SCALE,
        "radiometry": RADIOMETRY,
        "config": json.dumps(asdict(model.config), sort_keys=True),
    }
    given = dict(header or {})
    for key, value in own.items():
        if given.get(key, value) != value:
            raise WeightsFileError(f"header says {key} = {given[key]!r}, the model says {value!r}; drop the entry")
    dtype = torch.float16 if half else torch.float32
    state = {k: v.detach().cpu().to(dtype).contiguous() for k, v in model.state_dict().items()}
    for name, tensor in state.items():
        if not torch.isfinite(tensor).all():
            raise WeightsFileError(f"parameter {name} is not finite in {dtype}; the training diverged, do not keep it")
    path = Path(path)
    part = path.with_suffix(path.suffix + ".part")
    save_file(state, str(part), metadata={**given, **own})
    part.chmod(0o644)
    part.replace(path)
    return load(path)


def commit() -> str:
    """The commit of the checkout this runs from; `unknown` for an installed package, whose version says enough."""
    here = Path(__file__)
    git = ["git", "-C", str(here.parent)]
    try:
        # an installed copy may lie in somebody else's repository
        subprocess.run([*git, "ls-files", "--error-unmatch", here.name], capture_output=True, check=True)
        return subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _find(path_or_name: str | Path) -> tuple[Path, str]:
    name = str(path_or_name)
    if name in (*SHIPPED, *SIBLINGS):
        # wheels are unpacked on installation: the resource is a real file
        return Path(str(resources.files("marstfn").joinpath("shipped", f"{name}.safetensors"))), name
    return Path(path_or_name), name


def _checked(header: dict[str, str], source: str) -> Config:
    if header.get("format") != FORMAT:
        raise WeightsFileError(
            f"weights {source!r} have format {header.get('format', 'unknown')!r}, this program reads {FORMAT!r}; "
            "use weights written by marstfn.weights.save"
        )
    try:
        bands = tuple(json.loads(header["bands"]))
        values = json.loads(header["config"])
        patch = int(header["patch"])
    except (KeyError, ValueError, TypeError) as error:
        raise WeightsFileError(
            f"weights {source!r} have an unreadable header ({error}); fetch the file again"
        ) from error
    if bands != BANDS:
        raise WeightsFileError(
            f"weights {source!r} were trained for the bands {', '.join(map(str, bands))}, the cube holds "
            f"{', '.join(BANDS)} in this order; results would be wrong: use other weights"
        )
    if header.get("radiometry") != RADIOMETRY:
        raise WeightsFileError(
            f"weights {source!r} give {header.get('radiometry')!r} reflectance, the cube is in {RADIOMETRY!r}; "
            "use weights trained in that frame"
        )
    known = {f.name for f in fields(Config)}
    if not isinstance(values, dict) or set(values) - known:
        raise WeightsFileError(f"weights {source!r} describe a network this program does not know; update the program")
    try:
        config = Config(**values)
    except (TypeError, ValueError) as error:
        raise WeightsFileError(f"weights {source!r} describe no valid network: {error}") from error
    if config.patch != patch:
        raise WeightsFileError(
            f"weights {source!r} give the patch side as {patch} px and as {config.patch} px; the file was altered"
        )
    return config


def _match(config: Config, state: dict[str, Tensor], source: str) -> None:
    with torch.device("meta"):
        expected = {k: tuple(v.shape) for k, v in build(config).state_dict().items()}
    found = {k: tuple(v.shape) for k, v in state.items()}
    if expected != found:
        wrong = sorted(k for k in expected.keys() | found.keys() if expected.get(k) != found.get(k))
        raise WeightsFileError(
            f"weights {source!r} do not fit the network they describe: {len(wrong)} parameters differ, "
            f"first {wrong[0]!r}; fetch the file again"
        )
    for name, tensor in state.items():
        if not torch.isfinite(tensor).all():
            raise WeightsFileError(f"weights {source!r} hold NaN or infinity in {name!r}; they cannot be used")
