"""Random affine changes of images, as coefficients and as one bilinear resampling. Knows nothing of labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from emb.spec.recipe import Augmentation

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Of the numbers that draw_transforms takes for each image.
DRAWS = 9
_WIDEST_CROP = 4 / 3


def resamples(augmentation: Augmentation) -> bool:
    """Whether any of the changes needs values between the pixels."""
    return bool(
        augmentation.shift_fraction
        or augmentation.rotation_degrees
        or augmentation.shear_degrees
        or augmentation.scale_fraction
        or augmentation.crop_area_fraction
    )


def transforms(
    unit: NDArray[np.float64], augmentation: Augmentation, *, height: int, width: int
) -> NDArray[np.float32]:
    """(n, 6) float32 rows (a, b, c, d, e, f), one change per image, from output to input coordinates:

        x_in = a * x_out + b * y_out + c        y_in = d * x_out + e * y_out + f        (pixels, origin top left)

    unit: (DRAWS, n), drawn uniformly from [-1, 1); each change lies uniformly within the augmentation's limits.
    Rotation, shear and scale leave the image's centre where it is; the crop is cut out of what they make.
    """
    angle = np.deg2rad(augmentation.rotation_degrees) * unit[0]
    shear = np.tan(np.deg2rad(augmentation.shear_degrees) * unit[1])
    scale = 1 + augmentation.scale_fraction * unit[2]
    shift_x = augmentation.shift_fraction * width * unit[3]
    shift_y = augmentation.shift_fraction * height * unit[4]

    # rotation * shear / scale, written out.
    a = np.cos(angle) / scale
    b = (np.cos(angle) * shear - np.sin(angle)) / scale
    d = np.sin(angle) / scale
    e = (np.sin(angle) * shear + np.cos(angle)) / scale
    centre_x, centre_y = (width - 1) / 2, (height - 1) / 2
    c = centre_x - a * (centre_x + shift_x) - b * (centre_y + shift_y)
    f = centre_y - d * (centre_x + shift_x) - e * (centre_y + shift_y)
    if augmentation.crop_area_fraction:
        zoom_x, zoom_y, left, top = _crops(unit[5:], augmentation.crop_area_fraction, height=height, width=width)
        c, f = a * left + b * top + c, d * left + e * top + f
        a, b, d, e = a * zoom_x, b * zoom_y, d * zoom_x, e * zoom_y
    rows: NDArray[np.float32] = np.stack([a, b, c, d, e, f], axis=1).astype(np.float32)
    return rows


def resample(images: NDArray[Any], rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """`images` seen through `rows`, bilinearly; what lies outside an image is 0.

    images: (n, height, width, channels), any real dtype.  rows: (n, 6), see transforms.
    Returns float32, same shape, same range of values.
    """
    from keras import ops

    # The last two coefficients make a projective map of it; they are 0 for an affine one.
    affine = np.pad(rows, ((0, 0), (0, 2)))
    result = ops.image.affine_transform(
        images.astype(np.float32), affine, interpolation="bilinear", fill_mode="constant", fill_value=0.0
    )
    return np.asarray(ops.convert_to_numpy(result))


def _crops(unit: NDArray[np.float64], smallest: float, *, height: int, width: int) -> tuple[NDArray[np.float64], ...]:
    """Zoom in x and y and the left and top edge of a crop for each image; unit: (4, n).

    The crop's outermost pixels are the result's outermost pixels, so that nothing from outside comes in.
    Source: Szegedy et al. 2014, section 6. A side that would be longer than the image is as long as the image.
    """
    area = smallest + (1 - smallest) * (unit[0] + 1) / 2
    ratio = _WIDEST_CROP ** unit[1]
    zoom_x = np.minimum(np.sqrt(area * ratio), 1)
    zoom_y = np.minimum(np.sqrt(area / ratio), 1)
    left = (1 - zoom_x) * (width - 1) * (unit[2] + 1) / 2
    top = (1 - zoom_y) * (height - 1) * (unit[3] + 1) / 2
    return zoom_x, zoom_y, left, top
