"""Which views the CoCo-INR release trains on, per scan (facts from its split files); all others are held out.

As published, mistakes included: what does not fit the data is refused, never mended in silence. The lists of 4 and 16
views for DTU and five BlendedMVS scans are those of another data set, pasted in, and are left out.
"""

from typing import Dict, List, Sequence, Union

from nerfstudio_ext.engine.errors import InputError

Views = Union[Sequence[int], str]
"""Indices, or "every N": all multiples of N that the data has."""


def _even(last: int, *without: int) -> List[int]:
    return [k for k in range(0, last + 1, 2) if k not in without]


DTU_3: Dict[str, Sequence[int]] = {
    **{f"scan{k}": (8, 24, 40) for k in (24, 40, 65)},
    "scan37": (0, 22, 34),
    "scan55": (0, 28, 34),
    "scan63": (10, 23, 35),
    "scan69": (35, 30, 43),
    "scan83": (10, 21, 56),
    "scan97": (26, 33, 63),
    "scan105": (10, 50, 54),
    "scan106": (49, 61, 42),
    "scan110": (27, 44, 40),
    "scan114": (29, 43, 54),
    "scan118": (11, 59, 56),
    "scan122": (55, 59, 5),
}
BLENDED_MVS: Dict[str, Dict[int, Views]] = {
    "scan1": {3: (8, 32, 56), 8: "every 8", 32: "every 2"},
    "scan2": {3: (8, 32, 64), 8: (0, 8, 16, 24, 32, 48, 64, 72), 32: _even(72, 10, 22, 34, 46, 70)},
    "scan3": {3: (8, 24, 32), 8: (0, 8, 16, 24, 32), 32: _even(36)},
    "scan4": {
        3: (8, 32, 72),
        8: (0, 8, 16, 24, 32, 40, 64, 72),
        32: _even(82, 10, 16, 22, 28, 34, 40, 46, 58, 70, 76),
    },
    "scan5": {3: (8, 32, 56), 8: "every 8", 32: "every 2"},
    "scan6": {
        3: (8, 32, 72),
        8: (0, 16, 24, 32, 40, 64, 72, 88),
        32: _even(88, 10, 16, 22, 28, 34, 40, 46, 52, 58, 64, 70, 76, 82),
    },
    "scan7": {3: (8, 16, 24), 8: (0, 8, 16, 24), 32: "every 2"},
    "scan8": {3: (8, 24, 40), 8: "every 8", 32: "every 2"},
    "scan9": {
        3: (8, 72, 124),
        8: (8, 32, 56, 72, 88, 108, 124, 140),
        32: [k for k in range(0, 141, 4) if k not in (24, 44, 84, 104)],
        64: _even(142),
    },
}
H3DS: Dict[str, Dict[int, Views]] = {
    "1b2a8613401e42a8": {3: (0, 18, 65), 8: (0, 18, 24, 29, 41, 54, 58, 65)},
    "3b5a2eb92a501d54": {3: (1, 15, 62), 8: (1, 15, 21, 29, 38, 48, 54, 62)},
    "5ae021f2805c0854": {3: (1, 7, 54), 8: (1, 7, 13, 22, 31, 40, 48, 54)},
    "5cd49557ea450c89": {3: (0, 14, 63), 8: (0, 14, 21, 27, 40, 50, 55, 63)},
    "7dd427509fe84baa": {3: (1, 15, 64), 8: (1, 15, 22, 29, 39, 50, 56, 64)},
    "444ea0dc5e85ee0b": {3: (0, 12, 59), 8: (0, 12, 18, 25, 34, 44, 52, 59)},
    "609cc60fd416e187": {3: (0, 14, 61), 8: (0, 14, 22, 28, 38, 47, 54, 61)},
    "868765907f66fd85": {3: (0, 15, 62), 8: (0, 15, 22, 27, 38, 48, 56, 62)},
    "e98bae39fad2244e": {3: (0, 13, 61), 8: (0, 13, 21, 28, 38, 47, 54, 61)},
    "f7e930d8a9ff2091": {3: (1, 14, 61), 8: (1, 14, 20, 26, 37, 48, 54, 61)},
}
PUBLISHED: Dict[str, Dict[int, Views]] = {
    **{scan: {3: views, 8: "every 8", 32: "every 2"} for scan, views in DTU_3.items()},
    **BLENDED_MVS,
    **H3DS,
}
"""Scan, as its folder is called -> number of views -> the views."""


def published_views(scan: str, number: int, count: int) -> List[int]:
    """The published training views of a scan.

    Args:
        scan: Name of its folder: scan24 (DTU), scan1 (BlendedMVS in VolSDF's numbering) or a head of H3DS.
        number: How the list is called, which is about how many views it has.
        count: Views that the data has.

    Raises:
        InputError: There is no such scan or list, or the list names a view that the data does not have.
    """
    lists = PUBLISHED.get(scan)
    if lists is None:
        raise InputError(
            f"There are no published views for a folder called '{scan}': name it after its DTU, BlendedMVS or H3DS "
            "scan (scan24, scan1, 1b2a8613401e42a8), or use --num-views."
        )
    if number not in lists:
        known = ", ".join(map(str, lists))
        raise InputError(
            f"There is no usable published list of {number} views for {scan}, only of {known}: use --num-views "
            f"{number}."
        )
    views = lists[number]
    if isinstance(views, str):
        return list(range(0, count, int(views.split()[1])))
    beyond = [view for view in views if view >= count]
    if beyond:
        raise InputError(
            f"The published list of {number} views for {scan} names view {beyond[0]}, but the data has views 0 to "
            f"{count - 1}: give the ones you want as --train-views."
        )
    return sorted(views)
