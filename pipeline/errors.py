"""What can go wrong, in words: every message says what, where, the consequence and the remedy."""


class MarstfnError(Exception):
    """Base of every error a user is expected to read."""


class UnusableError(MarstfnError):
    """What was named is not there or is nothing of the kind: nothing was begun."""


class AOIError(MarstfnError):
    """The area of interest cannot be used."""


class CatalogError(MarstfnError):
    """A catalogue cannot be reached, or holds nothing that serves."""


class PlanError(MarstfnError):
    """The parameters or the plan of a run contradict one another."""


class StoreError(MarstfnError):
    """A store cannot be read or written, or holds another plan's cube."""


class FullError(StoreError):
    """The disk that holds a store is full."""


class AssetError(MarstfnError):
    """An asset of a scene is missing, truncated or not a raster."""


class WeightsError(MarstfnError):
    """Weights cannot be read, or were trained for other bands, patch size or scale."""


class ClusterError(MarstfnError):
    """The Dask cluster cannot be reached or lacks the workers that a stage needs."""


class TrainingError(MarstfnError):
    """There is too little to learn from, or a training cannot go on."""


class CubeError(MarstfnError):
    """A cube is incomplete, of another format version, or does not match its ledger."""


class NoCubeError(CubeError, UnusableError):
    """There is no cube, or no run, where one was said to be."""


class NoCasesError(AssetError, UnusableError):
    """What was named to evaluate is none of the things that can be."""


class NoScenesError(StoreError, UnusableError):
    """A folder that was to be served holds no catalogue."""
