import pytest

from dataparsers._view_lists import PUBLISHED, published_views
from nerfstudio_ext.engine.errors import InputError

COUNTS = {
    **{f"scan{k}": 49 for k in (24, 37, 40, 55, 63, 65, 69)},
    **{f"scan{k}": 64 for k in (83, 97, 105, 106, 110, 114, 118, 122)},
    **{f"scan{k + 1}": count for k, count in enumerate((64, 74, 36, 83, 64, 90, 31, 49, 144))},
}
"""Views of the DTU and BlendedMVS scans (method card section 6.3); the heads of H3DS have 65 or more."""


@pytest.mark.parametrize("scan", PUBLISHED)
def test_lists_fit_their_scans(scan):
    count = COUNTS.get(scan, 68)
    for number in PUBLISHED[scan]:
        if (scan, number) == ("scan3", 32):
            continue
        views = published_views(scan, number, count)
        assert views == sorted(set(views)) and views[0] >= 0 and views[-1] < count
        assert len(views) < count


@pytest.mark.parametrize(
    ("scan", "number", "length"),
    [("scan24", 8, 7), ("scan83", 8, 8), ("scan24", 32, 25), ("scan110", 32, 32), ("scan2", 32, 32)]
    + [("scan4", 32, 32), ("scan6", 32, 32), ("scan9", 32, 32), ("scan9", 64, 72), ("scan7", 32, 16), ("scan1", 3, 3)],
)
def test_lengths_are_the_published_ones(scan, number, length):
    assert len(published_views(scan, number, COUNTS[scan])) == length


def test_a_published_mistake_is_named():
    with pytest.raises(InputError, match=r"scan3 names view 36.*views 0 to 35"):
        published_views("scan3", 32, 36)


@pytest.mark.parametrize(
    ("scan", "number", "sentence"),
    [("scan24", 4, "no usable published list of 4 views"), ("teapot", 8, "folder called 'teapot'")],
)
def test_other_lists_are_refused(scan, number, sentence):
    with pytest.raises(InputError, match=sentence):
        published_views(scan, number, 49)
