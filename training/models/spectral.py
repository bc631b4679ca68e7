"""Large kernels without their cost: a 75x75 kernel is 5,625 multiply-adds per pixel and channel pair.

Training uses `torch.fft`, which torch cannot export to ONNX. Serving uses matrix products. On one CPU thread,
matrix products take 1.23 times as long as FFT to train on 32 faces. On ONNX Runtime, direct convolutions take
14 times as long as matrix products.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class SameConv2d(nn.Conv2d):
    """Convolution with Keras' "same" padding: an even kernel has one more pixel right and below.

    [N,C,H,W] -> [N,C',H,W], by differentiable transforms.
    """

    def __init__(self, channels_in: int, channels_out: int, kernel: int) -> None:
        super().__init__(channels_in, channels_out, kernel)
        self.before = (kernel - 1) // 2
        self.after = kernel - 1 - self.before

    def forward(self, x: Tensor) -> Tensor:
        assert self.bias is not None
        height, width = x.shape[2], x.shape[3]
        side = transform_side(max(height, width), self.kernel_size[0])
        # Networks compute a correlation, which is a convolution with the flipped kernel.
        spectrum = torch.fft.rfft2(self.weight.flip(2, 3).float(), s=(side, side))
        product = torch.einsum("nchw,ochw->nohw", torch.fft.rfft2(x.float(), s=(side, side)), spectrum)
        whole: Tensor = torch.fft.irfft2(product, s=(side, side))
        # Output (0, 0) of "same" is at (after, after) in the convolution with the flipped kernel.
        same = whole[:, :, self.after : self.after + height, self.after : self.after + width]
        return same + self.bias[:, None, None]


class SpectralConv2d(nn.Module):
    """`conv` for one input size, as products with constants. [N,C,S,S] -> [N,C',S,S].

    It can be scripted and exported, but not trained. A real matrix transforms every column of pixels to F
    frequencies. Each frequency has a convolution of its own along the rows, and a second matrix turns the
    frequencies back into pixels.
    """

    def __init__(self, conv: SameConv2d, size: int) -> None:
        super().__init__()
        assert conv.bias is not None
        kernel = conv.kernel_size[0]
        self.size, self.channels_in, self.channels_out = size, conv.in_channels, conv.out_channels
        self.padding = kernel // 2
        # The shortest period in which a "same" output never reads beyond the zeros after the pixels.
        period = size + kernel // 2
        self.frequencies = period // 2 + 1

        pixels = _waves(torch.arange(size), period)
        matrix = torch.stack([pixels.real, -pixels.imag], dim=1).flatten(0, 1)  # [2*F,S]
        # A frequency also represents its negative, except the first and the last of an even period.
        share = torch.full((self.frequencies,), 2 / period, dtype=torch.float64)
        share[0] = 1 / period
        if period % 2 == 0:
            share[-1] = 1 / period
        self.transform = _constant(matrix)
        self.inverse = _constant((matrix * share.repeat_interleave(2).unsqueeze(1)).t())

        taps = _waves(torch.arange(kernel) - conv.before, period)
        weight = conv.weight.detach().to(torch.complex128)
        weight = functional.pad(weight, (1 - kernel % 2, 0))  # an even kernel pads one less on the left
        kernels = torch.einsum("fk,oikl->foil", taps, weight)
        real, imaginary = kernels.real, kernels.imag
        # A complex product as a real one, with real and imaginary parts as channels: [F*2*C',2*C,K].
        rows = [torch.cat([real, -imaginary], dim=2), torch.cat([imaginary, real], dim=2)]
        self.kernels = _constant(torch.cat(rows, dim=1).flatten(0, 1))
        self.bias = _constant(conv.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        columns = x.transpose(1, 2).reshape(-1, self.size, self.channels_in * self.size)
        spectrum = torch.matmul(self.transform, columns)
        spectrum = spectrum.reshape(-1, 2 * self.frequencies * self.channels_in, self.size)
        spectrum = functional.conv1d(spectrum, self.kernels, padding=self.padding, groups=self.frequencies)
        spectrum = spectrum.reshape(-1, 2 * self.frequencies, self.channels_out * self.size)
        columns = torch.matmul(self.inverse, spectrum)
        columns = columns.reshape(-1, self.size, self.channels_out, self.size)
        return columns.transpose(1, 2) + self.bias[:, None, None]


def _waves(positions: Tensor, period: int) -> Tensor:
    """exp(2 pi i f p / period) for all frequencies f up to half of the period: complex [F,P]."""
    frequencies = torch.arange(period // 2 + 1, dtype=torch.float64)
    return torch.exp(2j * math.pi / period * torch.outer(frequencies, positions.double()))


def _constant(values: Tensor) -> nn.Parameter:
    return nn.Parameter(values.float().contiguous(), requires_grad=False)


def transform_side(size: int, kernel: int) -> int:
    """The smallest side of a transform whose wrapped border does not change "same" output.

    Rounded up to an even number without prime factors above 3: other sides take 1.2 to 1.4 times as long.
    """
    # Powers of 6 have no prime factors above 3, and nor have their divisors.
    sides = itertools.count(size + kernel // 2)
    return next(side for side in sides if side % 2 == 0 and 6**20 % side == 0)
