"""A folder of real images without a download: handwritten digits in clutter, as PNG files."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from fgplugins.data.cluttered_digits import SPLITS, cluttered_digits

__all__ = ['COUNTS', 'DIGITS', 'NUM_CLASSES', 'write_digits']

DIGITS = 'digits'  # the folder's name on the command line
NUM_CLASSES = 10
COUNTS = {'train': 600, 'val': 200, 'test': 600}
CLUTTER, SIDE = 2, 40


def write_digits(folder: Path) -> None:
    """Write ``train/3/0001.png`` and so on, unless the folder is there.

    Each part is made of its own digits, of those that scikit-learn ships.

    Args:
        folder: to make.
    """
    if folder.is_dir():
        return
    made = folder.with_name(f'{folder.name}.part')
    for part in SPLITS:
        images, labels = cluttered_digits(part, COUNTS[part], CLUTTER, SIDE, seed=0)
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            file = made / part / str(label) / f'{i:04}.png'
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.squeeze()).save(file)
    made.replace(folder)
