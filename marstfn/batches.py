"""Passes of a network in batches of one fixed shape: smaller where memory ends, as a CUDA graph where one can be had.

What is said of CUDA here was written without a GPU at hand: streams, pinned memory and graphs have run on none. On a
CPU the same code runs without them.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor

log = logging.getLogger(__name__)

Model = Callable[..., Tensor]
"""(n,6,p,p), (n,6,p/3,p/3), (n,1,2p/3,2p/3) or None, (n,8,p,p) or None -> (n,6 or 7,p,p) on the same device."""
Given = Sequence[Tensor | None]
"""Arguments of a model."""

EXHAUSTED = ("CUDA out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED", "out of memory")
"""What libraries say that report exhausted memory as any other error."""


class DeviceMemoryError(RuntimeError):
    """The device's memory does not hold a single patch."""


class Batches:
    """`model` on `device`, always called with exactly `size` patches.

    `size` begins at `batch` and is halved for good where the device's memory does not hold it. `passes`: how many
    there were at each size; what ran at another size than `batch` may differ by rounding.
    """

    def __init__(self, model: Model, device: torch.device, batch: int, *, graphs: bool = True) -> None:
        self.device, self.batch, self.size = device, batch, batch
        self._model = model
        self._passes: Counter[int] = Counter()
        self._graphs: dict[int, _Graph | None] = {}
        self._capture = graphs and device.type == "cuda"
        self.stream = stream(device) if device.type == "cuda" else None

    @property
    def passes(self) -> Mapping[int, int]:
        """Passes so far by their size."""
        return MappingProxyType(dict(self._passes))

    @property
    def captured(self) -> bool:
        """Whether passes of the present size are replayed from a CUDA graph."""
        return self._graphs.get(self.size) is not None

    def __call__(self, given: Given) -> Tensor:
        """What the model makes of any number of patches on the device, in order, in an array of its own.

        Enqueued on the current stream, which on CUDA has to be `stream`. Raises DeviceMemoryError where not even one
        patch fits.
        """
        while True:
            try:
                return self._pieces(given)
            except RuntimeError as error:
                if not exhausted(error):
                    raise
                told = str(error).splitlines()[0]
            # here and not above: the error's frames held what the failed pass had made
            if self.size == 1:
                raise DeviceMemoryError(
                    f"{self.device} has no memory for one patch ({told}); nothing more can be predicted on it. Free it "
                    "of other processes, or use another device"
                )
            log.warning("%s has no memory for %d patches; on with %d", self.device, self.size, self.size // 2)
            self.size //= 2
            self._graphs.clear()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def beside(self, given: Given) -> Tensor:
        """The same on the stream of this object, which waits for the current one, and that one for it: graphs replay
        over arrays of their own, so that all passes have to follow one another."""
        if self.stream is None:
            return self(given)
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            made = self(given)
        current.wait_stream(self.stream)
        for t in given:
            if t is not None:
                t.record_stream(self.stream)
        made.record_stream(current)
        return made

    def _pieces(self, given: Given) -> Tensor:
        """In pieces of `size`, the last one filled up with zeros."""
        n, size = next(len(t) for t in given if t is not None), self.size
        made: list[Tensor] = []
        for first in range(0, n, size):
            piece = [None if t is None else _filled(t[first : first + size], size) for t in given]
            made.append(self._pass(piece)[: n - first])
        self._passes[size] += len(made)
        return made[0] if len(made) == 1 else torch.cat(made)

    def _pass(self, piece: Given) -> Tensor:
        if not self._capture:
            return self._model(*piece)
        size = self.size
        if size not in self._graphs:
            self._graphs[size] = self._captured(piece)
        graph = self._graphs[size]
        return self._model(*piece) if graph is None else graph(piece)

    def _captured(self, piece: Given) -> _Graph | None:
        """The pass as a graph; None where it cannot be captured."""
        try:
            return _Graph(self._model, piece)
        except RuntimeError as error:
            if exhausted(error):
                raise
            log.warning("no CUDA graph on %s, passes go kernel by kernel: %s", self.device, error)
            return None


class _Graph:
    """One pass over arrays that stay where they are."""

    def __init__(self, model: Model, piece: Given) -> None:
        self._given = [None if t is None else t.clone() for t in piece]
        aside = stream(torch.device("cuda", torch.cuda.current_device()))
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            # libraries choose kernels and take their workspaces before the capture
            for _ in range(3):
                model(*self._given)
        torch.cuda.current_stream().wait_stream(aside)
        torch.cuda.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        # other threads of the process copy and allocate meanwhile
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._made = model(*self._given)

    def __call__(self, piece: Given) -> Tensor:
        for own, t in zip(self._given, piece, strict=True):
            if own is not None and t is not None:
                own.copy_(t, non_blocking=True)
        self._graph.replay()
        return self._made.clone()


def stream(device: torch.device) -> torch.cuda.Stream:
    """A CUDA stream of its own."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def exhausted(error: BaseException) -> bool:
    """Whether the error says that a device's memory is used up."""
    return isinstance(error, torch.OutOfMemoryError) or any(word in str(error) for word in EXHAUSTED)


def _filled(piece: Tensor, size: int) -> Tensor:
    short = size - len(piece)
    return F.pad(piece, (*(0, 0) * (piece.dim() - 1), 0, short)) if short else piece
