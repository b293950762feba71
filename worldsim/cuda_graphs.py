"""Small networks on a GPU without waiting for launches: functions recorded as CUDA graphs and replayed.

A launch takes a processor longer than a small kernel takes the GPU, and a training step of a narrow transformer is
thousands of them. A CUDA graph launches all in one go: the same kernels in the same order on the same numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

EAGER_CALLS = 3  # with the same shapes, before a recording: optimizers and libraries set up what they keep
LARGEST_COUNT = 4  # of recordings that one recorder keeps: each holds the memory that its function needs

Shapes = tuple[tuple[torch.Size, torch.dtype], ...]


class Recorder:
    """Calls `function`; of shapes that it meets often it records a CUDA graph, which it replays from then on.

    The function takes and gives tensors on one GPU. It must not read one on the CPU, nor decide by what one holds, and
    what it remembers must stay where it is in memory. Its results are copies, the caller's to keep.
    """

    def __init__(
        self,
        function: Callable[..., tuple[Tensor, ...]],
        *,
        generators: Sequence[torch.Generator] = (),
        optimizers: Sequence[torch.optim.Optimizer] = (),
    ) -> None:
        """generators: on the GPU, from which the function draws; torch's own need not be told.

        optimizers: those that it steps.
        """
        self._function, self._generators, self._optimizers = function, generators, optimizers
        self._met: Counter[Shapes] = Counter()
        self._recordings: dict[Shapes, _Recording] = {}

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        shapes = tuple((tensor.shape, tensor.dtype) for tensor in inputs)
        recording = self._recordings.get(shapes)
        if recording is None:
            self._met[shapes] += 1
            if self._met[shapes] <= EAGER_CALLS or len(self._recordings) == LARGEST_COUNT:
                return self._function(*inputs)
            recording = self._recordings[shapes] = _Recording(
                self._function, inputs, self._generators, self._optimizers
            )
        return recording.replay(inputs)


class _Recording:
    def __init__(
        self,
        function: Callable[..., tuple[Tensor, ...]],
        inputs: Sequence[Tensor],
        generators: Sequence[torch.Generator],
        optimizers: Sequence[torch.optim.Optimizer],
    ) -> None:
        with torch.inference_mode(False):  # else only callers in inference mode could write into them
            self._inputs = [tensor.clone() for tensor in inputs]
        self._graph = torch.cuda.CUDAGraph()
        for generator in generators:
            self._graph.register_generator_state(generator)
        # Torch's Adam asks for this flag while a graph is recorded, and warns of it at all other times.
        groups = [group for optimizer in optimizers for group in optimizer.param_groups if "capturable" in group]
        try:
            for group in groups:
                group["capturable"] = True
            with torch.cuda.graph(self._graph):
                self._outputs = function(*self._inputs)
        finally:
            for group in groups:
                group["capturable"] = False

    def replay(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given)
        self._graph.replay()
        return tuple(tensor.clone() for tensor in self._outputs)
