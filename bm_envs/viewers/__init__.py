"""Who shows the robot: a window, pictures for videos, and a page in the browser.

All of them draw configurations `qpos [36]` of one robot, and none simulates. `scene` is what the
window and the pictures draw; `page` needs the extra `web` and is imported on its own.
"""

from bm_envs.viewers.scene import FAR_VIEW, GHOST_RGBA, Decor, View
from bm_envs.viewers.video import OffscreenRenderer, camera_smoothing
from bm_envs.viewers.window import HumanViewer, has_display

__all__ = [
    "FAR_VIEW",
    "GHOST_RGBA",
    "Decor",
    "HumanViewer",
    "OffscreenRenderer",
    "View",
    "camera_smoothing",
    "has_display",
]
