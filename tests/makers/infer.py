"""A network that is played by one that knows a few colours, so that the truth is known."""

import cv2
import numpy as np

from humanpose.skeleton import CPM14
from humanpose.spec import ModelSpec


class Dots:
    """Maps at stride 8 of where the picture has certain colours, as a CPM net would give them."""

    name, precision = "dots", "float32"

    def __init__(self, colours, stages: int = 1, background: bool = True):
        self.colours, self.stages, self.background = colours, stages, background
        self.sizes: list[tuple[int, ...]] = []

    def run(self, crops):
        self.sizes.append(crops.shape)
        n, h, w = crops.shape[:3]
        maps = np.zeros((n, len(self.colours), h // 8, w // 8), np.float32)
        for i, crop in enumerate(crops):
            for j, colour in enumerate(self.colours):
                away = np.linalg.norm(crop.astype(np.float32) - colour, axis=-1)
                near = cv2.GaussianBlur(np.exp(-((away / 25) ** 2)), (0, 0), 7)
                maps[i, j] = cv2.resize(near, (w // 8, h // 8), interpolation=cv2.INTER_AREA)
        if self.background:
            maps = np.concatenate([maps, 1 - maps.max(1, keepdims=True)], axis=1)
        stages = {f"maps_{i + 1}": maps * (i + 1) / self.stages for i in range(self.stages)}
        return {"maps": maps, **(stages if self.stages > 1 else {})}


def pose_spec(**changes) -> ModelSpec:
    known = dict(
        name="cpm", task="pose", net="cpm-vgg", options={}, skeleton=CPM14, input=(184, 184),
        multiple_of=8, channels="bgr", mean=(128,) * 3, std=(256,) * 3, context=1.57, stride=8,
        grid="centre", background=True, decode="dark",
    )  # fmt: skip
    return ModelSpec(**{**known, **changes})
