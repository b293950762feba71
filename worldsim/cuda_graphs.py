"""Small networks on a GPU without waiting for launches: functions recorded as CUDA graphs and replayed.

A launch takes a processor longer than a small kernel takes the GPU, and a training step of a narrow transformer is
thousands of them. A CUDA graph launches all in one go: the same kernels in the same order on the same numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

LARGEST_COUNT = 4  # of recordings that one recorder keeps: each holds the memory that its function needs

Shapes = tuple[tuple[torch.Size, torch.dtype], ...]


class Recorder:
    """Calls `function`; of shapes that it meets often it records a CUDA graph, which it replays from then on.

    The function takes and gives tensors on one GPU. It must not read one on the CPU, nor decide by what one holds, and
    what it remembers must stay where it is in memory. Its results are copies, the caller's to keep.
    """

    def __init__(
        self, function: Callable[..., tuple[Tensor, ...]], after: int, generators: Sequence[torch.Generator] = ()
    ) -> None:
        """after: calls with the same shapes before a recording; what the function sets up at first is no part of it.

        generators: on the GPU, from which the function draws; torch's own need not be told.
        """
        self._function, self._after, self._generators = function, after, tuple(generators)
        self._met: Counter[Shapes] = Counter()
        self._recordings: dict[Shapes, _Recording] = {}

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        shapes = tuple((tensor.shape, tensor.dtype) for tensor in inputs)
        recording = self._recordings.get(shapes)
        if recording is None:
            self._met[shapes] += 1
            if self._met[shapes] <= self._after or len(self._recordings) == LARGEST_COUNT:
                return self._function(*inputs)
            recording = self._recordings[shapes] = _Recording(self._function, inputs, self._generators)
        return recording.replay(inputs)


class _Recording:
    def __init__(
        self,
        function: Callable[..., tuple[Tensor, ...]],
        inputs: Sequence[Tensor],
        generators: Sequence[torch.Generator],
    ) -> None:
        with torch.inference_mode(False):  # else only callers in inference mode could write into them
            self._inputs = [tensor.clone() for tensor in inputs]
        self._graph = torch.cuda.CUDAGraph()
        for generator in generators:
            self._graph.register_generator_state(generator)
        with torch.cuda.graph(self._graph):
            self._outputs = function(*self._inputs)

    def replay(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given)
        self._graph.replay()
        return tuple(tensor.clone() for tensor in self._outputs)


@contextmanager
def recordable(optimizers: Sequence[torch.optim.Optimizer]) -> Iterator[None]:
    """Around the steps of optimizers that a graph may be recorded of.

    Torch's Adam asks for a flag while one is recorded, and warns of it at all other times.
    """
    groups = [group for optimizer in optimizers for group in optimizer.param_groups if "capturable" in group]
    recording = torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()
    for group in groups:
        group["capturable"] = group["capturable"] or recording
    yield
    for group in groups:
        group["capturable"] = group["capturable"] and not recording
