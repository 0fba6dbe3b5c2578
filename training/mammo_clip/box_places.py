"""Where a box of a published table lies in its breast, in words that its view shows: depth, and upper or lower in an
MLO, outer or inner in a CC. The published sentences draw their places by chance.
"""

import numpy as np

from node.mammography.anatomy import Landmarks, find_landmarks, hung_orientation, place
from node.mammography.pixels import prepare_display, preset
from node.mammography.views import View
from training.cache import PRESET
from training.mammo_clip.grammar import Location, location_of
from training.mammo_clip.images import UNREADABLE, ImageFile
from training.mammo_clip.readers import CANVAS, ImageRow


def box_locations(row: ImageRow) -> tuple[tuple[str, Location], ...]:
    """Finding and location of each box of an image that hangs as usual; only the side where the image cannot be read or
    shows no breast. The published pictures are stretched to one size, so depths are those along their width.
    """
    if not row.boxes or row.laterality is None or row.position is None:
        return ()
    view = View(row.laterality, row.position)
    try:
        plane = ImageFile(row.image, row.laterality).read()
    except UNREADABLE:
        return tuple((name, Location(side=row.laterality)) for name, _ in row.boxes)
    prepared = prepare_display(plane.astype(np.float32) / np.float32(255), row.laterality, preset(PRESET))
    orientation = hung_orientation(view, prepared.chest_wall)
    landmarks: Landmarks | None = find_landmarks(prepared, view, orientation)
    rows, columns = plane.shape
    found = []
    for name, (left, top, right, bottom) in row.boxes:
        centre = ((left + right) / 2 * columns / CANVAS[0], (top + bottom) / 2 * rows / CANVAS[1])
        found.append((name, location_of(place(centre, view, landmarks, orientation), row.laterality)))
    return tuple(dict.fromkeys(found))
