import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hydrofoil import HydrofoilError, Pictures, Split, draw_split, load
from hydrofoil.data.batches import epoch_order
from hydrofoil.data.split import PARTS


def some_pictures(labels: list[int], published_test: int = 0, classes: int = 4) -> Pictures:
    pictures = torch.zeros(len(labels), 1, 1, 1, dtype=torch.uint8)
    names = tuple(map(str, range(classes)))
    return Pictures(pictures, torch.tensor(labels), names, "made", published_test)


@settings(max_examples=60)
@given(
    labels=st.lists(st.integers(0, 3), min_size=30, max_size=300),
    valid=st.sampled_from([0.0, 0.1, 0.2, 1 / 3]),
    test=st.sampled_from([0.0, 0.1, 0.25]),
    seed=st.integers(0, 5),
)
def test_parts_are_disjoint_whole_and_drawn_by_class(
    labels: list[int], valid: float, test: float, seed: int
) -> None:
    pictures = some_pictures(labels)
    split = draw_split(pictures, valid=valid, test=test, seed=seed)
    together = torch.cat([split.train, split.valid, split.test]).sort().values
    assert torch.equal(together, torch.arange(len(labels)))
    for part, share in (("valid", valid), ("test", test)):
        index_N = getattr(split, part)
        small = sum(0 < count < 4 for count in np.bincount(labels))  # one of them stays in training
        assert round(share * len(labels)) - small <= len(index_N) <= round(share * len(labels))
        for k, count in enumerate(np.bincount(labels, minlength=4)):
            assert abs(pictures.counts(index_N)[k] - share * count) < 2


def test_a_share_of_equal_classes_is_equal() -> None:
    split = draw_split(load("cifar10"), valid=0.2)
    assert load("cifar10").counts(split.valid) == [12] * 10
    assert load("cifar10").counts(split.train) == [48] * 10


def test_a_published_test_split_stays_whole_unless_merged() -> None:
    pictures = load("cifar10")
    split = draw_split(pictures, valid=0.2)
    assert split.test.tolist() == list(range(600, 700))
    merged = draw_split(pictures, valid=0.1, test=0.1, merge=True)
    assert (len(merged.train), len(merged.valid), len(merged.test)) == (560, 70, 70)
    assert bool((merged.train >= 600).any())


def test_drawing_beside_a_published_test_split_is_refused() -> None:
    with pytest.raises(HydrofoilError, match=r"data.merge=true"):
        draw_split(load("cifar10"), test=0.1)


def test_a_fraction_that_gives_no_picture_is_refused() -> None:
    with pytest.raises(HydrofoilError, match=r"data\.valid = 0\.01"):
        draw_split(some_pictures([0, 1, 2, 3]), valid=0.01)


def test_another_seed_draws_another_split_and_the_same_seed_the_same() -> None:
    pictures = load("digits")
    drawn = [draw_split(pictures, valid=0.1, test=0.2, seed=seed).valid for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_the_global_generators_state_plays_no_part() -> None:
    torch.manual_seed(1)
    first = draw_split(load("digits"), valid=0.1)
    torch.manual_seed(2)
    assert torch.equal(draw_split(load("digits"), valid=0.1).valid, first.valid)


def test_a_split_reads_back_and_is_the_same_bytes_twice() -> None:
    split = draw_split(load("digits"), valid=0.1, test=0.2)
    again = Split.from_bytes(split.to_bytes())
    assert all(torch.equal(getattr(again, part), getattr(split, part)) for part in PARTS)
    assert again.to_bytes() == split.to_bytes()
    again.check(load("digits"))


def test_a_split_of_other_pictures_is_refused() -> None:
    split = draw_split(load("digits"), valid=0.1)
    with pytest.raises(HydrofoilError, match="not the images that the run was trained on"):
        split.check(load("mnist"))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_order_depends_on_seed_and_epoch_and_on_no_thread_count(threads: int) -> None:
    index_N = torch.arange(1000)
    torch.set_num_threads(1)
    alone = epoch_order(index_N, seed=3, epoch=7)
    torch.set_num_threads(threads)
    assert torch.equal(epoch_order(index_N, seed=3, epoch=7), alone)
    assert not torch.equal(epoch_order(index_N, seed=3, epoch=8), alone)
    assert not torch.equal(epoch_order(index_N, seed=4, epoch=7), alone)
    assert torch.equal(alone.sort().values, index_N)


@given(
    st.lists(st.integers(0, 3), min_size=30, max_size=200),
    st.integers(0, 5),
    st.data(),
)
def test_fewer_training_images_are_stratified_and_a_part_of_more(
    labels: list[int], seed: int, data: st.DataObject
) -> None:
    pictures = some_pictures(labels)
    everything = draw_split(pictures, valid=0.2, test=0.1, seed=seed)
    sizes = pictures.counts(everything.train)
    less, more = sorted(data.draw(st.integers(1, len(everything.train))) for _ in range(2))
    try:
        small, large = (
            draw_split(pictures, train=count, valid=0.2, test=0.1, seed=seed)
            for count in (less, more)
        )
    except HydrofoilError as error:
        assert "would leave none of class" in str(error)
        return
    assert len(small.train) == less
    assert set(small.train.tolist()) <= set(large.train.tolist()) <= set(everything.train.tolist())
    for split in (small, large):
        assert torch.equal(split.valid, everything.valid)
        assert torch.equal(split.test, everything.test)
    for size, count in zip(sizes, pictures.counts(small.train), strict=True):
        assert abs(count - size * less / len(everything.train)) <= 1.5
        assert bool(count) == bool(size)


def test_a_part_of_the_training_split_that_cannot_be_is_refused() -> None:
    pictures = some_pictures([0] * 50 + [1] * 5)
    assert len(draw_split(pictures, train=0.5).train) == 28
    with pytest.raises(HydrofoilError, match=r"data\.train = 56: expected at most 55"):
        draw_split(pictures, train=56)
    with pytest.raises(HydrofoilError, match="none of class '1'") as caught:
        draw_split(pictures, train=3)
    least = int(str(caught.value).split("at least ")[1].split()[0])
    assert pictures.counts(draw_split(pictures, train=least).train)[1] == 1
    with pytest.raises(HydrofoilError, match="none of class"):
        draw_split(pictures, train=least - 1)
