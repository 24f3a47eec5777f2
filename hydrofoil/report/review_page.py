"""One HTML file to vote on the labels of a random sample.

The page has one script, which counts the votes and writes them to votes.json; its policy allows no
other. It names neither the guess of a model nor the stratum of an image: they would bias the vote.

Axes: N images, C channels, H rows, W columns.
"""

import json
from dataclasses import dataclass

from hydrofoil.check.review import Review
from hydrofoil.data.listing import shown
from hydrofoil.data.pictures import Pictures
from hydrofoil.report.check_text import shown_text
from hydrofoil.report.page import render, with_script
from hydrofoil.report.sections import Inlined, as_uri
from hydrofoil.report.sheet import as_image, png, scale_of
from hydrofoil.run.commands import command_line
from hydrofoil.wording import plural

SIDE = 288  # pixels of the page that an image is wide or high


@dataclass(frozen=True)
class ReviewImage:
    """An image to vote on, with its label."""

    index: int
    inlined: Inlined
    label: str


def review_page(pictures: Pictures, review: Review) -> bytes:
    """Return the page on which a person votes on the images of a review.

    Args:
        pictures: The set.
        review: The sample, from `draw_review`.
    """
    source = shown(pictures.source)
    count = len(review.images)
    likely = next((len(one.images) for one in review.strata if one.name == "likely"), 0)
    among = f", {likely:,} of them among the labels that models doubt" if likely else ""
    return render(
        "review.html",
        review=review,
        source=source,
        lead=f"A random sample of {plural(count, 'image')} of {len(pictures):,}{among}",
        images=[_image(pictures, at) for at in review.images],
        strata=json.dumps(review.as_dict()["strata"]),
        command=command_line(["hydrofoil", "check", source, "--votes", "votes.json"]),
        **with_script("review.js"),
    )


def _image(pictures: Pictures, at: int) -> ReviewImage:
    picture_CHW = pictures.pictures_NCHW[at].cpu()
    image = as_image(picture_CHW)
    scale = scale_of(picture_CHW.shape, SIDE)
    alt = f"Image {at}"
    inlined = Inlined(as_uri(png(image)), alt, image.width * scale, image.height * scale)
    return ReviewImage(at, inlined, shown_text(pictures.classes[int(pictures.labels_N[at])]))
