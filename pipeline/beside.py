"""The tables that the paper prints (`marstfn.printed`), to stand beside those of one's own evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from marstfn import printed
from pipeline.scoretables import Printed

DATASETS = ("hailar", "dezhou")

MEASURE = {"PSNR": "psnr", "SSIM": "ssim", "RMSE": "rmse"}
HEADINGS = {"psnr": "PSNR as printed (dB) ↑"}

NOTE = (
    "As printed, to be read beside the tables above; equality is not to be expected. The paper does not date its "
    "trials, nor say which pixels were scored; its PSNR does not follow from its RMSE by equation 12 with any one "
    "maximum; its networks were trained on other dates of the same land; and its truth is the Sentinel-2 image that "
    "methods were given as reference, so that a copy of the reference would be without error."
)
ABLATION = "Averages alone are printed; of the network with some of its parts left out."


def tables(dataset: str) -> tuple[Printed, ...]:
    """Table 2 (hailar) or 3 (dezhou), and the columns of Table 4 for that data set; KeyError for another name."""
    own = [p for p in printed.TABLES if p.dataset.lower() == dataset]
    if not own:
        raise KeyError(dataset)
    out = []
    for number in dict.fromkeys(p.table for p in own):
        same = [p for p in own if p.table == number]
        title = f"Table {number} of Cheng et al. (2024), {same[0].dataset}"
        values = {MEASURE[p.index]: (*p.trials, p.average) for p in same}
        note = NOTE if same[0].trials else f"{ABLATION} {NOTE}"
        out.append(Printed(title, same[0].methods, values, note, HEADINGS))
    return tuple(out)


def named(folder: str) -> str | None:
    """The data set that the name of a folder speaks of."""
    return next((d for d in DATASETS if d in Path(folder).name.lower()), None)


def of_groups(
    groups: Iterable[str], sources: Iterable[str], dataset: str | None = None
) -> Mapping[str, tuple[Printed, ...]]:
    """By group the tables to stand beside it: those of `dataset` beside every group, else, beside the groups of each
    folder among `sources`, those that its name speaks of."""
    if dataset is not None:
        return {group: tables(dataset) for group in groups}
    known = {f"{Path(s).name}, ": found for s in sources if Path(s).is_dir() and (found := named(s))}
    return {g: tables(found) for g in groups for start, found in known.items() if g.startswith(start)}
