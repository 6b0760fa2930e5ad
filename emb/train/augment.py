"""Random changes of a batch of images and their targets, in one fixed order. Knows nothing of training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from emb.spec.recipe import Augmentation
from emb.train import affine

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # Rec. 601
_OWN_DRAWS = 8


def is_identity(augmentation: Augmentation) -> bool:
    """Whether every change is switched off."""
    return augmentation == Augmentation()


def augmented(
    images: NDArray[np.uint8], targets: NDArray[np.float32], *, rng: np.random.Generator, augmentation: Augmentation
) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """A batch with a random change of each image, and its targets.

    images: (n, height, width, channels) raw pixels.  targets: (n, classes), rows that sum to 1.
    Returns images as uint8 if every change that is on only moves or covers pixels, else float32 in [0, 255].
    The order is flip, crop, affine map, colour, cutout, mixup. An augmentation that is switched off draws nothing
    from `rng`; any other draws the same numbers in the same order, so that one setting does not alter what another
    one draws. Equal generators give equal batches.
    """
    if is_identity(augmentation):
        return images, targets
    count, height, width, _ = images.shape
    unit = rng.uniform(-1, 1, size=(_OWN_DRAWS + affine.DRAWS, count))
    own, for_affine = unit[:_OWN_DRAWS], unit[_OWN_DRAWS:]
    changed: NDArray[Any] = images
    if augmentation.flip:
        changed = flipped(changed, own[0] < 0)
    if augmentation.crop_pixels:
        changed = cropped(changed, offsets(own[1:3], augmentation.crop_pixels), pixels=augmentation.crop_pixels)
    if affine.resamples(augmentation):
        changed = affine.resample(changed, affine.transforms(for_affine, augmentation, height=height, width=width))
    changed = coloured(changed, own[3:6], augmentation)
    if augmentation.cutout_pixels:
        centres = np.stack([offsets(own[6], height - 1, scale=1), offsets(own[7], width - 1, scale=1)])
        changed = cut_out(changed, centres, pixels=augmentation.cutout_pixels)
    if augmentation.mixup_alpha:
        return mixed_up(changed, targets, rng=rng, alpha=augmentation.mixup_alpha)
    return changed, targets


def offsets(unit: NDArray[np.float64], pixels: int, *, scale: int = 2) -> NDArray[np.int64]:
    """Whole numbers from 0 to scale * pixels, equally likely, from numbers uniform in [-1, 1)."""
    return np.minimum(((unit + 1) / 2 * (scale * pixels + 1)).astype(np.int64), scale * pixels)


def flipped(images: NDArray[Any], chosen: NDArray[np.bool_]) -> NDArray[Any]:
    """The images with the chosen ones mirrored left and right. chosen: (n,)."""
    result = images.copy()
    # take is several times faster than a negative stride over pixels of three bytes.
    result[chosen] = np.take(images[chosen], np.arange(images.shape[2])[::-1], axis=2, mode="clip")
    return result


def cropped(images: NDArray[Any], corners: NDArray[np.int64], *, pixels: int) -> NDArray[Any]:
    """The images, widened by so many zeros on each side, cut back to their shape. corners: (2, n), top and left.

    A corner lies in [0, 2 * pixels]; (pixels, pixels) changes nothing. Source: Lee et al. 2015, section 4.
    """
    count, height, width, channels = images.shape
    # Rows of bytes, not of pixels: a row is then copied in one piece.
    wide = np.zeros((count, height + 2 * pixels, (width + 2 * pixels) * channels), images.dtype)
    wide[:, pixels : pixels + height, pixels * channels : (pixels + width) * channels] = images.reshape(
        count, height, width * channels
    )
    result = np.empty((count, height, width * channels), images.dtype)
    for index, (top, left) in enumerate(corners.T.tolist()):
        result[index] = wide[index, top : top + height, left * channels : (left + width) * channels]
    return result.reshape(images.shape)


def coloured(images: NDArray[Any], unit: NDArray[np.float64], augmentation: Augmentation) -> NDArray[Any]:
    """Saturation, contrast and brightness changed, in this order, and clipped to [0, 255]. unit: (3, n) in [-1, 1).

    Saturation: distance from the pixel's grey value (none if the image is grey).  Contrast: distance from the
    image's mean.  Brightness: all values. Each is multiplied by 1 + fraction * unit.
    """
    limits = (augmentation.brightness_fraction, augmentation.contrast_fraction, augmentation.saturation_fraction)
    if not any(limits):
        return images
    brightness, contrast, saturation = (
        (1 + limit * row).astype(np.float32)[:, None, None, None] for limit, row in zip(limits, unit, strict=True)
    )
    result = images.astype(np.float32)
    if augmentation.saturation_fraction and images.shape[-1] == 3:
        grey = (result @ _LUMA)[..., None]
        result = grey + (result - grey) * saturation
    if augmentation.contrast_fraction:
        mean = result.mean(axis=(1, 2, 3), keepdims=True)
        result = mean + (result - mean) * contrast
    return np.clip(result * brightness, 0, 255)


def cut_out(images: NDArray[Any], centres: NDArray[np.int64], *, pixels: int) -> NDArray[Any]:
    """A square of each image covered with the image's mean colour. centres: (2, n), y and x within the image.

    The mean is what normalised input has as its zero. Source: DeVries and Taylor 2017, section 3.
    """
    result = images.copy()
    count, height, width, channels = images.shape
    # As a product, which is several times faster than mean() over pixels of three bytes.
    flat = images.reshape(count, height * width, channels).astype(np.float32)
    colours = (np.ones(height * width, np.float32) @ flat / (height * width)).astype(images.dtype)
    for image, colour, (y, x) in zip(result, colours, centres.T.tolist(), strict=True):
        top, left = y - pixels // 2, x - pixels // 2
        image[max(top, 0) : max(top + pixels, 0), max(left, 0) : max(left + pixels, 0)] = colour
    return result


def mixed_up(
    images: NDArray[Any], targets: NDArray[np.float32], *, rng: np.random.Generator, alpha: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Each image and its target mixed with another one of the batch, shares from Beta(alpha, alpha).

    Source: Zhang et al. 2017, section 2.
    """
    partners = rng.permutation(len(images))
    share = rng.beta(alpha, alpha, size=len(images)).astype(np.float32)
    pixels, other = images.astype(np.float32), images[partners].astype(np.float32)
    mixed = other + (pixels - other) * share[:, None, None, None]
    return mixed, targets[partners] + (targets - targets[partners]) * share[:, None]
