"""Each check of the calibration doctor: images that show the fault, and healthy ones that do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from emb.errors import DataError
from emb.quantize import digest_of_pixels, examine_calibration
from emb.quantize._calibration_activations import Seen, dead_channels, exceeded, single_image, unseen_channels
from emb.quantize._calibration_doctor import CHECKS
from emb.quantize._calibration_findings import CalibrationFinding, differ

CLASSES = tuple("abcdefghij")


def photographs(count: int, *, seed: int, channels: int = 3) -> NDArray[np.uint8]:
    """Smooth patches with more of red than of blue, (count, 16, 16, channels)."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(110, 45, (count, 4, 4, 1)) + rng.normal(0, 12, (count, 1, 1, channels))
    if channels == 3:
        coarse = coarse + np.array([15.0, 0.0, -15.0])
    smooth = coarse.repeat(4, 1).repeat(4, 2) + rng.normal(0, 6, (count, 16, 16, channels))
    return np.clip(np.rint(smooth), 0, 255).astype(np.uint8)


TRAIN = {channels: photographs(400, seed=1, channels=channels) for channels in (1, 3)}
FIT = {channels: photographs(200, seed=2, channels=channels) for channels in (1, 3)}


def examined(images: NDArray[Any], **given_evidence: Any) -> tuple[CalibrationFinding, ...]:
    channels = given_evidence.pop("channels", 3)
    evidence: dict[str, Any] = {
        "labels": np.arange(len(images)) % 10,
        "train": TRAIN[channels],
        "class_shares": np.full(10, 0.1),
        "classes": CLASSES,
    }
    findings, _ = examine_calibration(images, **(evidence | given_evidence))
    return findings


def told(findings: tuple[CalibrationFinding, ...]) -> set[tuple[str, str]]:
    return {(one.check, one.severity) for one in findings}


@settings(max_examples=25)
@given(seed=st.integers(3, 10_000), channels=st.sampled_from([1, 3]))
def test_images_like_the_train_images_are_fit(seed: int, channels: int) -> None:
    assert examined(photographs(200, seed=seed, channels=channels), channels=channels) == ()


def letterboxed(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    boxed = images.copy()
    boxed[:, :4], boxed[:, -4:] = 114, 114
    return boxed


def without_blue(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return images * np.array([1, 1, 0], np.uint8)


FAULTS: dict[str, tuple[NDArray[Any], set[tuple[str, str]]]] = {
    "0..1": (FIT[3] / 255, {("pixel-range", "broken")}),
    "-1..1": (FIT[3] / 127.5 - 1, {("pixel-range", "broken")}),
    "standardised": ((FIT[3] - 110.0) / 45, {("pixel-range", "broken")}),
    "16 bits": (FIT[3].astype(np.uint16) * 257, {("pixel-range", "broken")}),
    "NaN": (np.where(FIT[3] == FIT[3].max(), np.nan, FIT[3]), {("pixel-range", "broken")}),
    "channels first": (np.moveaxis(FIT[3], -1, 1), {("layout", "broken")}),
    "BGR": (FIT[3][..., ::-1], {("channel-order", "broken")}),
    "planes": (np.moveaxis(FIT[3], -1, 1).reshape(FIT[3].shape), {("planes", "broken")}),
    "inverted": (255 - FIT[3], {("distribution", "broken")}),
    "one image": (FIT[3][:1].repeat(200, axis=0), {("identical", "broken")}),
    "copies": (np.concatenate([FIT[3][:150], FIT[3][:50]]), {("identical", "remark")}),
    "few": (FIT[3][:20], {("too-few", "remark")}),
    "grey": (FIT[3][..., 1:2].repeat(3, -1), {("constant-channel", "remark")}),
    "a few blank": (np.concatenate([FIT[3][:180], np.full((20, 16, 16, 3), 90, np.uint8)]), {
        ("blank-images", "remark"), ("identical", "remark"),
    }),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_told_and_no_other(name: str) -> None:
    images, wanted = FAULTS[name]
    findings = examined(images)
    assert told(findings) == wanted
    for one in findings:
        assert all((one.what, one.cause, one.remedy))


@pytest.mark.parametrize(
    ("images", "wanted"),
    [
        (FIT[3] // 3, {("distribution", "broken"), ("narrow-band", "remark")}),
        (np.clip(FIT[3].astype(int) + 40, 0, 255).astype(np.uint8), {("distribution", "remark")}),
        (np.clip(FIT[3].astype(int) * 3 - 200, 0, 255).astype(np.uint8), {("saturation", "remark")}),
        (letterboxed(FIT[3]), {("borders", "remark")}),
        (without_blue(FIT[3]), {("constant-channel", "broken"), ("saturation", "remark")}),
    ],
    ids=["dark", "bright", "contrast", "letterbox", "no blue"],
)
def test_a_fault_that_shows_in_several_ways(images: NDArray[Any], wanted: set[tuple[str, str]]) -> None:
    assert told(examined(images)) >= wanted


def test_what_is_broken_stands_first_and_says_how_to_mend_it() -> None:
    findings = examined(FIT[3][:20] / 255)
    assert [one.severity for one in findings] == ["broken", "remark"]
    assert findings[0].to_json() == {
        "check": "pixel-range",
        "severity": "broken",
        "what": f"the images hold values from {FIT[3][:20].min() / 255:.4g} to "
        f"{FIT[3][:20].max() / 255:.4g}; the model takes pixels from 0 to 255",
        "cause": "pixels that were divided by 255",
        "remedy": "give raw pixels: np.rint(images * 255).astype(np.uint8); emb takes raw pixels and scales them "
        "itself, as input.pixels of the recipe says",
    }
    assert findings[1].what == (
        "there are 20 different calibration images; about 10 % of new images will leave a tensor's range and be clipped"
    )


@pytest.mark.parametrize("name", ["0..1", "-1..1", "channels first"])
def test_what_was_put_right_is_what_was_meant(name: str) -> None:
    _, mended = examine_calibration(
        FAULTS[name][0], labels=None, train=TRAIN[3], class_shares=np.full(10, 0.1), classes=CLASSES
    )
    assert mended is not None
    np.testing.assert_allclose(mended, FIT[3], atol=1e-3)


def test_inverted_grey_images() -> None:
    dark = FIT[1] // 4
    findings = examined(255 - dark, train=TRAIN[1] // 4, channels=1)
    assert findings[0].remedy == "invert them: 255 - pixel"


def test_classes_are_counted_as_chance_would_have_them() -> None:
    some = np.arange(200) % 4
    (finding,) = examined(FIT[3], labels=some)
    assert finding.what == "6 of 10 classes have no calibration image: 'e', 'f', 'g', 'h', 'i', 'j'"
    # Nobody can say without labels; rare classes may be missing; and few images cannot hold many classes.
    assert examined(FIT[3], labels=None) == ()
    assert examined(FIT[3], labels=some, class_shares=np.array([0.25] * 4 + [1e-5] * 6)) == ()
    many = tuple(map(str, range(1000)))
    drawn = np.random.default_rng(0).integers(0, 1000, 200)
    assert examined(FIT[3], labels=drawn, classes=many, class_shares=np.full(1000, 1e-3)) == ()
    assert examined(FIT[3], labels=drawn % 50, classes=many, class_shares=np.full(1000, 1e-3)) != ()


@pytest.mark.slow
@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), classes=st.integers(2, 60))
def test_a_random_draw_covers_classes_enough(seed: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.ones(classes))
    labels = rng.choice(classes, 200, p=shares)
    findings = examined(FIT[3], labels=labels, classes=tuple(map(str, range(classes))), class_shares=shares)
    assert "class-coverage" not in {one.check for one in findings}


def test_leakage_is_told_by_pixels_alone() -> None:
    test = frozenset(map(digest_of_pixels, FIT[3]))
    (finding,) = examined(FIT[3], test_digests=test)
    assert (finding.severity, finding.what) == ("broken", "200 of 200 calibration images are in the test split")
    (stray,) = examined(FIT[3], test_digests=frozenset([digest_of_pixels(FIT[3][7])]))
    assert (stray.severity, stray.what) == ("remark", "1 of 200 calibration images is in the test split")
    assert digest_of_pixels(FIT[3][0]) == digest_of_pixels(FIT[3][0].astype(np.float64))
    assert digest_of_pixels(FIT[3][0]) != digest_of_pixels(FIT[3][0].reshape(16, 48, 1))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (
            np.zeros((5, 8, 8, 3), np.uint8),
            "the calibration images are 8x8x3, the model takes 16x16x3\n"
            "  fix: give images of the model's height, width and channels",
        ),
        (
            FIT[3][:0],
            "there are no calibration images\n  fix: give at least one; 200 are usual",
        ),
        (
            np.full((5, 16, 16, 3), "x"),
            "the calibration images are of type <U1\n  fix: save pixels as uint8, 0 to 255",
        ),
    ],
)
def test_images_that_nobody_can_look_at(images: NDArray[Any], message: str) -> None:
    with pytest.raises(DataError) as refused:
        examined(images)
    assert str(refused.value) == message


def test_a_difference_must_be_large_and_no_chance() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(0, 1, 500), rng.normal(0.05, 1, 500)
    assert not differ(one, other, least=0.0)
    assert differ(one, other + 1, least=0.5)
    assert not differ(one, other + 1, least=2.0)
    assert not differ(one[:1], other[:1] + 9, least=0.0)


def seen(
    highest: NDArray[Any], *, constant: NDArray[np.bool_] | None = None, outside: float = 0.0, layer: str = "conv"
) -> Seen:
    still = np.zeros(10, np.bool_) if constant is None else constant
    return Seen(layer=layer, lowest=np.zeros(len(highest)), highest=highest, constant=still, outside=outside)


def test_one_image_that_decides_a_range() -> None:
    usual = np.random.default_rng(0).uniform(0.8, 1.0, 100)
    assert list(single_image({"a": seen(usual)})) == []
    usual[17] = 2.5
    (finding,) = single_image({"a": seen(usual), "b": seen(usual, layer="dense")})
    assert finding.what == "calibration image 17 alone more than doubles the range of conv, dense"


def test_values_that_leave_the_range() -> None:
    values = np.ones(5)
    assert list(exceeded({"a": seen(values, outside=5e-4)}, images=9)) == []
    (finding,) = exceeded({"a": seen(values, outside=0.002), "b": seen(values, layer="dense", outside=0.01)}, images=9)
    assert finding.severity == "remark"
    assert finding.what == (
        "on 9 validation images, values leave the range of 2 of 2 tensors: dense (1 %), conv (0.2 %)"
    )
    (worse,) = exceeded({"a": seen(values, outside=0.2)}, images=9)
    assert worse.severity == "broken"


def test_channels_that_stay_still() -> None:
    still, moving = np.arange(10) < 6, np.zeros(10, np.bool_)
    quiet, loud = seen(np.ones(5), constant=still), seen(np.ones(5), constant=moving)
    (unseen,) = unseen_channels({"a": quiet}, {"a": loud})
    assert unseen.what.endswith("stay still for all calibration images: conv (6 of 10)")
    (dead,) = dead_channels({"a": quiet}, {"a": quiet})
    assert dead.what == "channels have the same value for every image: conv (6 of 10)"
    assert list(unseen_channels({"a": quiet}, {"a": quiet})) == []
    assert list(dead_channels({"a": quiet}, {"a": loud})) == []


def test_the_name_of_each_check_is_a_sentence() -> None:
    for check in CHECKS:
        sentence = (check.__doc__ or "").split("\n")[0]
        assert sentence[:1].isupper()
        assert not sentence.endswith(".")
