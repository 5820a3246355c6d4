"""Loading images so that a damaged file is named, not guessed at."""

from __future__ import annotations

from mmcv.transforms import LoadImageFromFile

from fgplugins.errors import UserError
from fgplugins.zoo_mmpretrain.registry import TRANSFORMS, register

__all__ = ['LoadImage']


class LoadImage(LoadImageFromFile):
    """``LoadImageFromFile`` that takes arrays as they come and refuses files that are cut short.

    OpenCV fills what is missing of a truncated JPEG with grey and says nothing; Pillow refuses.

    Args:
        imdecode_backend: mmcv's decoder.
        **kwargs: of ``LoadImageFromFile``.
    """

    def __init__(self, imdecode_backend: str = 'pillow', **kwargs: object) -> None:
        super().__init__(imdecode_backend=imdecode_backend, **kwargs)

    def transform(self, results: dict) -> dict | None:
        if 'img' in results:
            results['img_shape'] = results['ori_shape'] = results['img'].shape[:2]
            return results
        try:
            return super().transform(results)
        except Exception as error:
            reason = str(error).strip().split('\n')[0] or type(error).__name__
            raise UserError(
                f'image {results["img_path"]} cannot be read: {reason}; replace or remove it'
            ) from None


register(TRANSFORMS, LoadImage)
