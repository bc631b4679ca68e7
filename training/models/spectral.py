"""Large kernels as exact FFT convolutions.

A 75x75 kernel costs 5,625 multiply-adds per pixel and channel pair directly, but a few dozen by its spectrum.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

# From this kernel on the spectrum is the faster way on a CPU.
SMALLEST_SPECTRAL_KERNEL = 9


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
        kernel = torch.view_as_real(spectrum(conv.weight.detach(), self.side)).contiguous()
        # Real numbers: a cast of the module, as to half precision, would drop a complex one's phase.
        self.kernel = nn.Parameter(kernel, requires_grad=False)
        self.bias = nn.Parameter(conv.bias.detach().clone(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return spectral(x, torch.view_as_complex(self.kernel), self.bias, self.after, self.side)


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

    Rounded up to an even number without large prime factors, which transforms are slow at.
    """
    side = size + kernel // 2
    while not _smooth(side):
        side += 1
    return side


def _smooth(number: int) -> bool:
    if number % 2:
        return False
    for prime in (2, 3, 5, 7):
        while number % prime == 0:
            number //= prime
    return number == 1


def spectrum(weight: Tensor, side: int) -> Tensor:
    """[C',C,K,K] -> complex [C,C',F] with F = side * (side // 2 + 1) frequencies, for correlation."""
    # "Convolution" in networks is correlation: the flipped kernel's convolution.
    transformed: Tensor = torch.fft.rfft2(weight.flip(2, 3).float(), s=(side, side))
    return transformed.flatten(2).transpose(0, 1).contiguous()


def spectral(x: Tensor, kernel: Tensor, bias: Tensor, after: int, side: int) -> Tensor:
    """x: [N,C,H,W]; kernel: as `spectrum` gives it; after: how far "same" pads right and below."""
    count, channels, height, width = x.shape
    frequencies = torch.fft.rfft2(x.float(), s=(side, side)).flatten(2)
    if channels <= 16 or count < 8:
        # Each spectrum is read once and nothing is copied: the fastest way for few images or channels.
        product = frequencies[:, 0].unsqueeze(1) * kernel[0]
        for channel in range(1, channels):
            product.addcmul_(frequencies[:, channel].unsqueeze(1), kernel[channel])
    else:
        product = torch.bmm(frequencies.permute(2, 0, 1), kernel.permute(2, 0, 1)).permute(1, 2, 0)
    full: Tensor = torch.fft.irfft2(
        product.reshape(count, bias.shape[0], side, side // 2 + 1), s=(side, side)
    )
    # Output (0, 0) of "same" is what the flipped kernel's convolution has at (after, after).
    return full[:, :, after : after + height, after : after + width] + bias[:, None, None]
