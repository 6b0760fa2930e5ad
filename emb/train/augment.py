"""Random affine changes of a batch of images: one resampling per image. Knows nothing of labels or training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from emb.spec.recipe import Augmentation

if TYPE_CHECKING:
    from numpy.typing import NDArray


def is_identity(augmentation: Augmentation) -> bool:
    """Whether every change is switched off."""
    return augmentation == Augmentation()


def draw_transforms(
    rng: np.random.Generator, augmentation: Augmentation, *, count: int, height: int, width: int
) -> NDArray[np.float32]:
    """(count, 6) float32 rows (a, b, c, d, e, f), one random change per image, from output to input coordinates:

        x_in = a * x_out + b * y_out + c        y_in = d * x_out + e * y_out + f        (pixels, origin top left)

    Each change is drawn uniformly within the augmentation's limits. Rotation, shear, scale and flip leave the
    image's centre where it is. Equal generators give equal rows.
    """
    # Always the same number of draws in the same order, so that one limit does not alter what another one draws.
    unit = rng.uniform(-1, 1, size=(6, count))
    angle = np.deg2rad(augmentation.rotation_degrees) * unit[0]
    shear = np.tan(np.deg2rad(augmentation.shear_degrees) * unit[1])
    scale = 1 + augmentation.scale_fraction * unit[2]
    shift_x = augmentation.shift_fraction * width * unit[3]
    shift_y = augmentation.shift_fraction * height * unit[4]
    mirror = np.where(augmentation.flip & (unit[5] < 0), -1.0, 1.0)

    # (mirror, 1) * rotation * shear / scale, written out.
    a = mirror * np.cos(angle) / scale
    b = mirror * (np.cos(angle) * shear - np.sin(angle)) / scale
    d = np.sin(angle) / scale
    e = (np.sin(angle) * shear + np.cos(angle)) / scale
    centre_x, centre_y = (width - 1) / 2, (height - 1) / 2
    c = centre_x - a * (centre_x + shift_x) - b * (centre_y + shift_y)
    f = centre_y - d * (centre_x + shift_x) - e * (centre_y + shift_y)
    rows: NDArray[np.float32] = np.stack([a, b, c, d, e, f], axis=1).astype(np.float32)
    return rows


def resample(images: NDArray[Any], transforms: NDArray[np.float32]) -> Any:
    """`images` seen through `transforms`, bilinearly; what lies outside an image is 0.

    images: (n, height, width, channels), any real dtype.  transforms: (n, 6), see draw_transforms.
    Returns a float32 tensor of the Keras backend, same shape, same range of values.
    """
    from keras import ops

    # The last two coefficients make a projective map of it; they are 0 for an affine one.
    affine = np.pad(transforms, ((0, 0), (0, 2)))
    return ops.image.affine_transform(
        images.astype(np.float32), affine, interpolation="bilinear", fill_mode="constant", fill_value=0.0
    )


def augmented(images: NDArray[Any], *, rng: np.random.Generator, augmentation: Augmentation) -> Any:
    """A batch with a random change of each image, float32, as numpy array or tensor of the Keras backend.

    images: (n, height, width, channels) raw pixels.  An augmentation that is switched off draws nothing from `rng`.
    """
    if is_identity(augmentation):
        return images.astype(np.float32)
    count, height, width, _ = images.shape
    transforms = draw_transforms(rng, augmentation, count=count, height=height, width=width)
    return resample(images, transforms)
