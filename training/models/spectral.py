"""Large kernels as exact FFT convolutions.

A 75x75 kernel costs 5,625 multiply-adds per pixel and channel pair directly, but a few dozen by its spectrum.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

# From this kernel on the spectrum is the faster way on a CPU.
SMALLEST_SPECTRAL_KERNEL = 9
# From so many input channels on a product per frequency is faster than one per channel.
MANY_CHANNELS = 32


class SameConv2d(nn.Conv2d):
    """Convolution with Keras' "same" padding, which for an even kernel is one more right and below.

    [N,C,H,W] -> [N,C',H,W]. In training it runs directly, or through differentiable transforms if the kernel
    is large.
    """

    def __init__(self, channels_in: int, channels_out: int, kernel: int) -> None:
        super().__init__(channels_in, channels_out, kernel)
        self.before = (kernel - 1) // 2
        self.after = kernel - 1 - self.before

    def forward(self, x: Tensor) -> Tensor:
        assert self.bias is not None
        if self.kernel_size[0] >= SMALLEST_SPECTRAL_KERNEL:
            height, width = x.shape[2], x.shape[3]
            side = transform_side(max(height, width), self.kernel_size[0])
            return spectral(x, spectrum(self.weight, side), self.bias, self.after, side)
        padded = functional.pad(x, (self.before, self.after, self.before, self.after))
        return functional.conv2d(padded, self.weight, self.bias)


class SpectralConv2d(nn.Module):
    """The same convolution for one input size, its spectrum computed once. [N,C,S,S] -> [N,C',S,S]."""

    def __init__(self, conv: SameConv2d, size: int) -> None:
        super().__init__()
        assert conv.bias is not None
        self.after = conv.after
        self.side = transform_side(size, conv.kernel_size[0])
        self.kernel = nn.Parameter(spectrum(conv.weight.detach(), self.side), requires_grad=False)
        self.bias = nn.Parameter(conv.bias.detach().clone(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return spectral(x, self.kernel, self.bias, self.after, self.side)


def for_inference(conv: SameConv2d, size: int) -> nn.Module:
    """What computes the same for inputs of `size` px, and can be scripted but not trained."""
    kernel = conv.kernel_size[0]
    if kernel >= SMALLEST_SPECTRAL_KERNEL or kernel % 2 == 0:
        return SpectralConv2d(conv, size)
    plain = nn.Conv2d(conv.in_channels, conv.out_channels, kernel, padding=kernel // 2)
    plain.load_state_dict(conv.state_dict())
    return plain


def transform_side(size: int, kernel: int) -> int:
    """The least side of a transform whose wrapped-around border "same" output does not see.

    Rounded up to an even number without other prime factors than 2 and 3: transforms are fast at those.
    """
    side = size + kernel // 2
    while not _smooth(side):
        side += 1
    return side


def _smooth(number: int) -> bool:
    if number % 2:
        return False
    for prime in (2, 3):
        while number % prime == 0:
            number //= prime
    return number == 1


def spectrum(weight: Tensor, side: int) -> Tensor:
    """A kernel [C',C,K,K] at F = side * (side // 2 + 1) frequencies, for correlation, as real numbers.

    Real and imaginary parts lie beside each other, [C,C',F,2], or one after the other where there are many
    channels: [F,C,2*C'].
    """
    # "Convolution" in networks is correlation: the flipped kernel's convolution.
    transformed = torch.fft.rfft2(weight.flip(2, 3).float(), s=(side, side)).flatten(2)
    # Real: a cast of the module, as to half precision, would drop a complex number's phase.
    if weight.shape[1] < MANY_CHANNELS:
        return torch.view_as_real(transformed.transpose(0, 1).contiguous())
    return torch.cat([transformed.real, transformed.imag]).permute(2, 1, 0).contiguous()


def spectral(x: Tensor, kernel: Tensor, bias: Tensor, after: int, side: int) -> Tensor:
    """x: [N,C,H,W]; kernel: as `spectrum` gives it; after: how far "same" pads right and below."""
    count, channels, height, width = x.shape
    frequencies = torch.fft.rfft2(x.float(), s=(side, side)).flatten(2)
    if kernel.dim() == 4:
        # Each channel's spectrum is read once, and nothing is copied.
        weights = torch.view_as_complex(kernel)
        product = frequencies[:, 0].unsqueeze(1) * weights[0]
        for channel in range(1, channels):
            product.addcmul_(frequencies[:, channel].unsqueeze(1), weights[channel])
    else:
        # Per frequency one product of real matrices gives all four of (real, imaginary) x (real, imaginary).
        parts = torch.view_as_real(frequencies).permute(2, 3, 0, 1).reshape(-1, 2 * count, channels)
        four = torch.bmm(parts, kernel).view(-1, 2, count, 2, bias.shape[0])
        real, imaginary = four[:, 0, :, 0] - four[:, 1, :, 1], four[:, 0, :, 1] + four[:, 1, :, 0]
        product = torch.complex(real, imaginary).permute(1, 2, 0)
    # Output (0, 0) of "same" is what the flipped kernel's convolution has at (after, after).
    columns = torch.fft.ifft(product.reshape(count, bias.shape[0], side, side // 2 + 1), dim=2)
    rows: Tensor = torch.fft.irfft(columns[:, :, after : after + height], n=side, dim=3)
    return rows[:, :, :, after : after + width] + bias[:, None, None]
