"""Loading images, where a damaged file is refused by name, and cropping boxes and corners."""

from __future__ import annotations

import numpy as np
from mmcv.image import bgr2gray
from mmcv.transforms import BaseTransform, LoadImageFromFile
from mmengine import fileio

from fgplugins.data.images import decode_image, printable
from fgplugins.errors import UserError
from fgplugins.zoo_mmpretrain.registry import TRANSFORMS, register

__all__ = ['CornerCrop', 'CropToBox', 'LoadImage']

BOX_FILES = (
    'bounding_boxes.txt (CUB-200-2011), cars_annos.mat (Stanford Cars), Annotation/ (Stanford '
    'Dogs), data/images_box.txt (FGVC-Aircraft) and bb_info.txt (UEC-Food-100)'
)
CORNERS = ('top_left', 'top_right', 'bottom_left', 'bottom_right')


class LoadImage(LoadImageFromFile):
    """``LoadImageFromFile`` that takes arrays as they come and refuses files that are cut short.

    OpenCV fills what is missing of a truncated JPEG with grey and says nothing; Pillow refuses.
    Files are read by `fgplugins.data.images`, which scales what has more than 8 bits; other
    decoders and colour types than the usual two are mmcv's.

    Args:
        imdecode_backend: the decoder.
        **kwargs: of ``LoadImageFromFile``.
    """

    def __init__(self, imdecode_backend: str = 'pillow', **kwargs: object) -> None:
        super().__init__(imdecode_backend=imdecode_backend, **kwargs)

    def transform(self, results: dict) -> dict | None:
        if 'img' in results:
            image = results['img']
            if self.color_type == 'grayscale' and image.ndim == 3 and image.shape[2] == 3:
                results['img'] = bgr2gray(image, keepdim=True)  # read by MMPretrain's inferencers
            results['img_shape'] = results['ori_shape'] = results['img'].shape[:2]
            return results
        try:
            if self.imdecode_backend != 'pillow' or self.color_type not in ('color', 'grayscale'):
                return super().transform(results)
            image = self._read(results['img_path'])
        except Exception as error:
            if self.ignore_empty:
                return None
            if isinstance(error, UserError):
                raise
            reason = printable(str(error).strip().split('\n')[0] or type(error).__name__)
            raise UserError(
                f'image {printable(results["img_path"])} cannot be read: {reason}; replace or '
                'remove it'
            ) from None
        results['img'] = image.astype(np.float32) if self.to_float32 else image
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results

    def _read(self, path: str) -> np.ndarray:
        if self.file_client_args is not None:
            content = fileio.FileClient.infer_client(self.file_client_args, path).get(path)
        else:
            content = fileio.get(path, backend_args=self.backend_args)
        if self.color_type == 'grayscale':
            return decode_image(content, path, 'L')
        return decode_image(content, path)[..., ::-1]  # mmcv works on BGR


class CropToBox(BaseTransform):
    """The part of an image in its box, as published: ``gt_box`` of `FineGrainedImages`.

    It comes right after the image is loaded, for the box counts the pixels of the file. What of the
    box lies outside the image is left away.

    Raises:
        UserError: naming the image, if it has no box, or was resized or flipped before, or nothing
            of it is in the box.
    """

    def transform(self, results: dict) -> dict:
        image, name = results['img'], printable(results.get('img_path', 'of an array'))
        box = results.pop('gt_box', None)  # it fits no longer
        if box is None:
            raise UserError(
                f'CropToBox: image {name} has no box: they are read from {BOX_FILES}; without '
                'them, leave CropToBox out of the pipeline'
            )
        H, W = image.shape[:2]
        if tuple(results['ori_shape'][:2]) != (H, W) or results.get('flip'):
            raise UserError(
                f'CropToBox: image {name} was changed before: put CropToBox right after LoadImage'
            )
        left, top, right, bottom = box
        left, top, right, bottom = max(left, 0), max(top, 0), min(right, W), min(bottom, H)
        if left >= right or top >= bottom:
            raise UserError(
                f'CropToBox: box {tuple(box)} of image {name} has no pixel of its {W} x {H}: '
                'correct the box, (left, top, right, bottom), where the data set lists it'
            )
        results['img'] = image[top:bottom, left:right]
        results['img_shape'] = results['img'].shape[:2]
        return results

    def __repr__(self) -> str:
        return 'CropToBox()'


class CornerCrop(BaseTransform):
    """The part of an image in one of its corners.

    With mmcv's ``CenterCrop``, ``RandomFlip`` and ``TestTimeAug`` it makes ten-crop testing:
    ``configs/_base_/datasets/imagenet_224.py`` has it.

    Args:
        crop_size: side of the crop, or (height, width).
        corner: 'top_left' | 'top_right' | 'bottom_left' | 'bottom_right'.

    Raises:
        UserError: if the corner is none of these, or an image is smaller than the crop.
    """

    def __init__(self, crop_size: int | tuple[int, int], corner: str) -> None:
        if corner not in CORNERS:
            raise UserError(f'CornerCrop: corner={corner!r}: must be one of {", ".join(CORNERS)}')
        size = (crop_size, crop_size) if isinstance(crop_size, int) else tuple(crop_size)
        self.crop_size, self.corner = size, corner

    def transform(self, results: dict) -> dict:
        height, width = self.crop_size
        H, W = results['img'].shape[:2]
        if height > H or width > W:
            raise UserError(
                f'CornerCrop: crop_size={self.crop_size} is larger than the image of {(H, W)}: '
                'resize it before, as by dict(type="ResizeEdge", scale=256)'
            )
        top = 0 if self.corner.startswith('top') else H - height
        left = 0 if self.corner.endswith('left') else W - width
        results['img'] = results['img'][top : top + height, left : left + width]
        results['img_shape'] = self.crop_size
        return results

    def __repr__(self) -> str:
        return f'CornerCrop(crop_size={self.crop_size}, corner={self.corner!r})'


register(TRANSFORMS, CornerCrop)
register(TRANSFORMS, CropToBox)
register(TRANSFORMS, LoadImage)
