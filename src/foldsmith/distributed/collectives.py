"""Collective operations of a training's processes, with the results of a single process.

Each process has its share of a batch. What its model gives of it is gathered from all of them
(:func:`gathered`) before the loss, so that every process has the loss of the whole batch, whatever
that compares; BatchNorm takes its statistics over the whole batch (:func:`synchronised`); and the
gradients are added up (:func:`sum_gradients`). With one process these are the tensors as they are.

Every process back-propagates the whole loss, and the gradient of a gathered tensor is the sum of
all processes' gradients: :func:`sum_gradients` divides by their number.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional

from foldsmith.distributed import process_group

M = TypeVar("M", bound=nn.Module)

# Gradients travel in pieces of this many bytes.
_PIECE = 64 * 2**20

# Images of the batch that all processes are at, by rank.
_counts: list[int] = []


@contextmanager
def batch_of(n: int) -> Iterator[None]:
    """Say how many images the batch has that all processes are at, for :func:`gathered`."""
    before = _counts[:]
    _counts[:] = [_length(process_group.share(n, of)) for of in range(process_group.size())]
    try:
        yield
    finally:
        _counts[:] = before


def gathered(tensor: torch.Tensor, counts: Sequence[int] | None = None) -> torch.Tensor:
    """Return the rows of all processes, in the order of the batch.

    Args:
        tensor: The rows of this one, shape (n_own, ...).
        counts: Rows of each process; those of :func:`batch_of` if None.

    Returns:
        Shape (n, ...); its gradient is the gradient of the sum of all processes' losses.
    """
    if process_group.alone():
        return tensor
    counts = list(_counts if counts is None else counts)
    assert counts[process_group.rank()] == len(tensor), (counts, len(tensor))
    rows: torch.Tensor = _Gather.apply(tensor, counts)
    return rows


def own(rows: torch.Tensor) -> torch.Tensor:
    """Return this process's share of the rows of a batch."""
    return rows[process_group.share(len(rows))]


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Sum the gradients of all processes into the gradients of the whole batch.

    Args:
        parameters: Those with a gradient have one in every process.
    """
    if process_group.alone():
        return
    waiting: list[torch.Tensor] = []
    size = 0
    for parameter in parameters:
        if parameter.grad is None:
            continue
        if waiting and (parameter.grad.dtype != waiting[0].dtype or size >= _PIECE):
            _sum_in_place(waiting)
            waiting, size = [], 0
        waiting.append(parameter.grad)
        size += parameter.grad.nbytes
    if waiting:
        _sum_in_place(waiting)


def synchronised(model: M) -> M:
    """Let the processes begin with the same weights, and BatchNorm see the whole batch.

    Args:
        model: On its device. Its weights have the names and values they had, those of rank 0.

    Returns:
        The model; with one process as it is.
    """
    if process_group.alone():
        return model
    # Here, not above: timm takes a second to import.
    from timm.layers.norm_act import SyncBatchNormAct, convert_sync_batchnorm

    class HostSyncBatchNormAct(SyncBatchNormAct, HostSyncBatchNorm):
        """The same with timm's activation behind it."""

    on_host = next(model.parameters()).device.type == "cpu"
    model = convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    for module in model.modules() if on_host else ():
        if isinstance(module, SyncBatchNormAct):
            module.__class__ = HostSyncBatchNormAct
        elif isinstance(module, nn.SyncBatchNorm):
            module.__class__ = HostSyncBatchNorm
    return same_weights(model)


def same_weights(model: M) -> M:
    """Return a model with the weights and statistics that rank 0 has."""
    if not process_group.alone():
        for tensor in (*model.parameters(), *model.buffers()):
            dist.broadcast(tensor.detach(), 0)
    return model


class HostSyncBatchNorm(nn.SyncBatchNorm):
    """BatchNorm over all processes' images on CPUs, which torch's refuses to do.

    Its state dict equals that of torch's BatchNorm.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Normalise; in training by the mean and variance of the whole batch.

        Args:
            input: Floating, shape (n_own, channels, ...); n_own may be 0.

        Returns:
            The same shape and type.

        Raises:
            ValueError: The whole batch has one value per channel, as torch's.
        """
        if not self.training:
            return functional.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        mean, variance, n = _statistics(input.detach())
        if n <= 1:
            raise ValueError("Expected more than 1 value per channel when training")
        self._track(mean, variance * (n / (n - 1)))
        weight = torch.ones_like(mean) if self.weight is None else self.weight
        bias = torch.zeros_like(mean) if self.bias is None else self.bias
        normal: torch.Tensor = _Normalise.apply(input, weight, bias, mean, variance, n, self.eps)
        return normal

    @torch.no_grad()
    def _track(self, mean: torch.Tensor, variance: torch.Tensor) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum = self.momentum
        if momentum is None:
            momentum = 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance, momentum)


def _length(piece: slice) -> int:
    return int(piece.stop - piece.start)


def _sum_in_place(gradients: list[torch.Tensor]) -> None:
    """Replace gradients by their sums over all processes, divided by the number of these."""
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(flat)
    flat /= process_group.size()
    start = 0
    for gradient in gradients:
        end = start + gradient.numel()
        gradient.copy_(flat[start:end].view_as(gradient))
        start = end


def _statistics(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Return mean and variance per channel, and the number of values, of all processes' values."""
    n_own = values.numel() // values.shape[1]
    rows = values.new_zeros((3, values.shape[1]), dtype=torch.float32)
    if n_own:
        dims = [dim for dim in range(values.ndim) if dim != 1]
        rows[1], rows[0] = torch.var_mean(values.float(), dims, correction=0)
        rows[2] = n_own
    parts = [torch.empty_like(rows) for _ in range(process_group.size())]
    dist.all_gather(parts, rows)
    means, variances, counts = torch.stack(parts, dim=1)
    n = counts.sum(0)
    mean = (means * counts).sum(0) / n
    # Of the parts' variances and their means' distances: the difference of two large sums is no
    # number to rely on.
    variance = ((variances + (means - mean).square()) * counts).sum(0) / n
    return mean, variance, float(n[0])


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, counts: list[int]) -> torch.Tensor:
        ctx.counts = counts
        # All have to send as much: the shares of a batch differ by one image.
        layout = torch.contiguous_format
        if tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last):
            layout = torch.channels_last
        padded = tensor.new_zeros((max(counts), *tensor.shape[1:]))
        padded[: len(tensor)] = tensor
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        rows = torch.cat([part[:n] for part, n in zip(parts, counts, strict=True)])
        return rows.contiguous(memory_format=layout)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        start = sum(ctx.counts[: process_group.rank()])
        return total[start : start + ctx.counts[process_group.rank()]], None


class _Normalise(torch.autograd.Function):
    """BatchNorm with statistics of all processes (Ioffe and Szegedy 2015, section 3)."""

    @staticmethod
    def forward(
        ctx: Any,
        values: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        mean: torch.Tensor,
        variance: torch.Tensor,
        n: float,
        eps: float,
    ) -> torch.Tensor:
        ctx.save_for_backward(values, weight, mean, variance)
        ctx.n, ctx.eps = n, eps
        return functional.batch_norm(values, mean, variance, weight, bias, eps=eps)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        values, weight, mean, variance = ctx.saved_tensors
        # As if the statistics were constants ...
        of_values, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            *(gradient, values, weight, mean, variance, None, None, False, ctx.eps),
            [True, True, True],
        )
        # ... and what flows through them, from all processes' values.
        totals = torch.stack([of_weight, of_bias])
        dist.all_reduce(totals)
        inverse = (variance + ctx.eps).rsqrt()
        slope = weight * inverse.square() * totals[0] / ctx.n
        offset = weight * inverse * totals[1] / ctx.n - mean * slope
        shape = [1, -1, *[1] * (values.ndim - 2)]
        through = values.float() * slope.view(shape) + offset.view(shape)
        return (of_values - through).to(values.dtype), of_weight, of_bias, None, None, None, None
