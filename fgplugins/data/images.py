"""Image files: which files are images, where they lie in a folder, and their pixels as bytes.

Both zoos' sides read through here, so that a picture means the same everywhere: its first frame,
turned upright, 8 bits a channel, without transparency. A file that has no such meaning is refused
by name.
"""

from __future__ import annotations

import io
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import StubImageFile

from fgplugins.errors import UserError

__all__ = [
    'IMAGE_SUFFIXES',
    'check_decodable',
    'check_readable',
    'decode_image',
    'find_images',
    'find_unreadable',
    'image_paths',
    'is_clutter',
    'is_image',
    'open_image',
    'printable',
    'read_image',
    'read_or_reason',
    'walk',
]

HEIF_SUFFIXES = frozenset(('.heic', '.heics', '.heif', '.heifs', '.hif'))
HEIF_BRANDS = (b'heic', b'heix', b'heim', b'heis', b'hevc', b'hevx', b'mif1', b'msf1')
# pictures that Pillow cannot decode by itself, or only in some installations
CONVERTED_SUFFIXES = frozenset((
    '.3fr', '.ai', '.arw', '.avif', '.avifs', '.bpg', '.cr2', '.cr3', '.crw', '.dcm', '.dcr',
    '.dng', '.emf', '.eps', '.erf', '.exr', '.flif', '.hdr', '.iiq', '.j2c', '.j2k', '.jls',
    '.jp2', '.jpc', '.jpf', '.jpx', '.jxl', '.jxr', '.k25', '.kdc', '.mef', '.mng', '.mos', '.mrw',
    '.nef', '.nrw', '.orf', '.pct', '.pef', '.pict', '.psb', '.psd', '.raf', '.raw', '.rw2',
    '.rwl', '.sr2', '.srf', '.srw', '.svg', '.svgz', '.webp', '.wdp', '.wmf', '.x3f', '.xcf',
))  # fmt: skip
# what operating systems and programs leave in folders; hidden files are skipped anyway
CLUTTER = frozenset(
    (
        '$recycle.bin',
        '#recycle',
        '#snapshot',
        '@eadir',
        '@recently-snapshot',
        '@recycle',
        '@tmp',
        '__macosx',
        '__pycache__',
        'found.000',
        'lost+found',
        'network trash folder',
        'recycled',
        'recycler',
        'system volume information',
        'temporary items',
    )
)
CLUTTER_FILES = frozenset(('desktop.ini', 'ehthumbs.db', 'icon\r', 'thumbs.db'))
HEADERS_ONLY_ABOVE = 50_000  # images: decoding more than these takes minutes
CHUNK = 256  # images between two reports of progress
TURNS = {  # EXIF's orientation -> how to turn the image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _decoded_formats() -> list[str]:
    """Pillow's formats that it decodes by itself, in the order in which it tries them."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        pass
    else:
        register_heif_opener()
    Image.preinit()
    Image.init()

    def decodes(name: str) -> bool:
        opener = Image.OPEN[name][0]
        stub = isinstance(opener, type) and issubclass(opener, StubImageFile)
        # EPS needs Ghostscript, and of MPEG only the size is read
        return not stub and name not in ('EPS', 'MPEG')

    return [name for name in Image.ID if name in Image.OPEN and decodes(name)]


FORMATS = _decoded_formats()
IMAGE_SUFFIXES = frozenset(
    suffix
    for suffix, name in Image.registered_extensions().items()
    if name in FORMATS or name == 'MPO'  # several JPEGs in one file, opened as JPEG
)
# what Pillow warns of is refused below, or changes no pixel
warnings.filterwarnings('ignore', module=r'PIL\.')


def printable(name: object) -> str:
    """A name for a message: as it is, but on one line and printable."""
    odd = r'[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]'
    return re.sub(odd, lambda match: repr(match[0])[1:-1], str(name))


# ------------------------------------------------------------------------------------ what is there


def is_image(path: str | os.PathLike) -> bool:
    """Whether a file's suffix is of a format that can be decoded here."""
    return Path(path).suffix.lower() in IMAGE_SUFFIXES


def _is_picture(name: str | os.PathLike) -> bool:
    """Whether a suffix is an image's, decodable here or not."""
    suffix = Path(name).suffix.lower()
    return suffix in IMAGE_SUFFIXES | HEIF_SUFFIXES | CONVERTED_SUFFIXES


def is_clutter(name: str) -> bool:
    """Whether a file or folder is one that systems and programs leave behind, or hidden."""
    return name.startswith('.') or name.lower() in CLUTTER | CLUTTER_FILES


class Folder(NamedTuple):
    """One folder of `walk`: its path, and the sorted names of what lies directly in it."""

    path: Path
    folders: list[str]
    images: list[str]
    others: list[str]


def walk(root: str | os.PathLike) -> Iterator[Folder]:
    """A folder and all in it, sorted, through links, without what is hidden or clutter.

    Files of formats that cannot be decoded here are among the images: see `check_decodable`.

    Raises:
        UserError: if a folder cannot be read, or a link leads nowhere.
    """
    real = Path(root).resolve()
    stack = [(Path(root), {real, *real.parents})]
    while stack:
        folder, above = stack.pop()
        found = Folder(folder, [], [], [])
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            raise UserError(
                f'folder {printable(folder)} cannot be read: {error.strerror}'
            ) from None
        for entry in entries:
            if is_clutter(entry.name):
                continue
            if entry.is_dir():
                # a link to a folder that it lies in leads round and round
                if not (entry.is_symlink() and Path(entry.path).resolve() in above):
                    found.folders.append(entry.name)
            elif entry.is_file():
                (found.images if _is_picture(entry.name) else found.others).append(entry.name)
            elif entry.is_symlink():
                target = printable(Path(entry.path).readlink())
                raise UserError(
                    f'{printable(entry.path)} is a link to {target}, which is not there'
                )
            else:
                found.others.append(entry.name)
        yield found
        for name in reversed(found.folders):
            stack.append((folder / name, {*above, (folder / name).resolve()}))


def check_decodable(paths: Iterable[str | os.PathLike]) -> None:
    """Refuse files of formats that cannot be decoded here.

    Raises:
        UserError: with their number, the first of them and what to do.
    """
    wrong = [path for path in paths if _is_picture(path) and not is_image(path)]
    heif = [path for path in wrong if Path(path).suffix.lower() in HEIF_SUFFIXES]
    if heif:
        raise UserError(
            f'images in HEIC: {len(heif)}, as {printable(heif[0])}: pip install pillow-heif, or '
            'convert them to JPEG'
        )
    if wrong:
        raise UserError(
            f'images that cannot be decoded: {len(wrong)}, as {printable(wrong[0])}: convert '
            f'{Path(wrong[0]).suffix} to PNG or JPEG'
        )


def find_images(folder: str | os.PathLike) -> list[Path]:
    """All images in a folder and the folders in it, sorted by path.

    Raises:
        UserError: as `walk` and `check_decodable`.
    """
    found = [inside.path / name for inside in walk(folder) for name in inside.images]
    check_decodable(found)
    return sorted(found, key=str)


# ------------------------------------------------------------------------------------------- pixels


def _open(file: BinaryIO) -> Image.Image:
    """The header of an image, in whichever decodable format its bytes are."""
    head = file.read(12)
    file.seek(0)
    if not head:
        raise UserError('it is empty')
    try:
        return Image.open(file, formats=FORMATS)
    except UnidentifiedImageError:
        if head[4:8] == b'ftyp' and head[8:12] in HEIF_BRANDS:
            raise UserError('it is HEIC: pip install pillow-heif, or convert it to JPEG') from None
        raise UserError('its content is no image that can be decoded') from None


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation; 1, upright, where EXIF is absent or damaged."""
    try:
        return image.getexif().get(0x0112, 1)
    except Exception:  # whatever a parser of binary data stumbles over
        return 1


def _eight_bits(image: Image.Image) -> Image.Image:
    """A grey image of more than 8 bits, scaled to 8.

    Raises:
        UserError: if nothing says what its values mean.
    """
    if not image.mode.startswith(('I', 'F')):
        return image
    values = np.asarray(image)
    if image.mode == 'F':
        low, high = float(values.min()), float(values.max())
        if not 0 <= low <= high <= 1:  # NaN is not, either
            raise UserError(
                f'its floating-point values are between {low:g} and {high:g}: scale them to '
                'between 0 and 1, or save it with 8 bits'
            )
        return Image.fromarray(np.rint(values * 255).astype(np.uint8))
    tags = getattr(image, 'tag_v2', {}) if image.format == 'TIFF' else {}
    top = 4095 if tags.get(258) == (12,) else 65535  # bits a sample
    if image.mode == 'I' and (
        image.format not in ('PNG', 'PPM') or values.min() < 0 or values.max() > top
    ):
        raise UserError(
            f'its integers, between {values.min()} and {values.max()}, have no known white: save '
            'it with 8 bits, or 16 without a sign'
        )
    values = np.rint(values * (255 / top)).astype(np.uint8)
    return Image.fromarray(255 - values if tags.get(262) == 0 else values)  # white is zero


def _as_shown(image: Image.Image, mode: str) -> Image.Image:
    """An image decoded, upright, and of 8 bits a channel."""
    image.load()
    turn = TURNS.get(_orientation(image))
    image.info.pop('transparency', None)  # dropped: Pillow would warn of a palette with it
    image = _eight_bits(image)
    if turn is not None:
        image = image.transpose(turn)
    if image.mode != 'RGB':
        image = image.convert('RGB')
    return image if mode == 'RGB' else image.convert(mode)


def _reason(error: Exception) -> str:
    """Why an image cannot be read, in one line without its name."""
    if isinstance(error, Image.DecompressionBombError):
        return f'{str(error).split(",")[0].lower()}: make it smaller'
    text = getattr(error, 'strerror', None) or str(error).strip().split('\n')[0]
    return printable(text or type(error).__name__)


def _refusal(name: object, reason: str) -> str:
    return f'image {printable(name)} cannot be read: {reason}; replace or remove it'


def _decode_or_reason(content: bytes, mode: str) -> np.ndarray | str:
    """The pixels of an image file's content, or why it has none."""
    try:
        with _open(io.BytesIO(content)) as image:
            return np.array(_as_shown(image, mode))
    except Exception as error:
        return _reason(error)


def read_or_reason(path: str | os.PathLike, mode: str = 'RGB') -> tuple[bytes, np.ndarray | str]:
    """An image file's content and pixels; in the place of these, why it is refused in training."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        return b'', _reason(error)
    suffix = Path(path).suffix
    if _is_picture(path) and not is_image(path):  # whatever is in it: see `check_decodable`
        cure = 'pip install pillow-heif, or ' if suffix.lower() in HEIF_SUFFIXES else ''
        return content, f'{suffix} cannot be decoded: {cure}convert it to PNG or JPEG'
    return content, _decode_or_reason(content, mode)


def decode_image(content: bytes, name: object, mode: str = 'RGB') -> np.ndarray:
    """The pixels of an image file's content.

    Args:
        content: of the file.
        name: of the file, for messages.
        mode: 'RGB' | 'L'.

    Returns:
        Bytes (H, W, 3), or (H, W) for 'L'.

    Raises:
        UserError: naming the file, if it is damaged, no image, or its values have no known range.
    """
    found = _decode_or_reason(content, mode)
    if isinstance(found, str):
        raise UserError(_refusal(name, found))
    return found


def read_image(path: str | os.PathLike, mode: str = 'RGB') -> np.ndarray:
    """The pixels of an image file: see `decode_image`."""
    return np.array(open_image(path, mode))


def open_image(path: str | os.PathLike, mode: str = 'RGB') -> Image.Image:
    """An image file as Pillow's image, with the pixels that `read_image` gives."""
    try:
        with Path(path).open('rb') as file, _open(file) as image:
            return _as_shown(image, mode)
    except Exception as error:
        raise UserError(_refusal(path, _reason(error))) from None


# ------------------------------------------------------------------------------------------- checks


def find_unreadable(
    paths: Iterable[str | os.PathLike], progress: Callable[[int, int], None] | None = None
) -> list[tuple[str, str]]:
    """All images that `read_image` would refuse, and why.

    Every image is decoded, JPEGs at an eighth of their size; of more than 50,000 only the headers
    are read.

    Args:
        paths: the image files.
        progress: called now and then with the number of images seen and of all.

    Returns:
        (path, reason) of each unreadable one.
    """
    names = [str(path) for path in paths]
    headers_only = len(names) > HEADERS_ONLY_ABOVE

    def reason(name: str) -> str | None:
        try:
            with Path(name).open('rb') as file, _open(file) as image:
                if headers_only:
                    return None
                if image.format in ('JPEG', 'MPO'):
                    image.draft('L', (1, 1))
                    image.load()
                else:
                    np.array(_as_shown(image, 'L'))
        except Exception as error:
            return _reason(error)
        return None

    found = []
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 16)) as pool:
        for start in range(0, len(names), CHUNK):
            chunk = names[start : start + CHUNK]
            reasons = zip(chunk, pool.map(reason, chunk), strict=True)
            found += [(name, text) for name, text in reasons if text is not None]
            if progress is not None:
                progress(start + len(chunk), len(names))
    return found


def image_paths(data: Any) -> Iterator[str]:
    """The local image files of a data set, or of an iterable of paths."""
    if not hasattr(data, 'get_data_info'):
        yield from map(str, data)
        return
    for index in range(len(data)):
        path = str(data.get_data_info(index).get('img_path', '://'))  # absent for arrays
        if '://' not in path:
            yield path


def check_readable(*data: Any, progress: Callable[[int, int], None] | None = None) -> None:
    """Decode all images once, so that all broken ones are named before a training.

    Args:
        *data: data sets of MMPretrain, wrapped or not, or iterables of paths.
        progress: as of `find_unreadable`.

    Raises:
        UserError: with the number of unreadable images, and the first ones and their reasons.
    """
    paths = list(dict.fromkeys(path for one in data for path in image_paths(one)))
    wrong = find_unreadable(paths, progress)
    if len(wrong) == 1:
        raise UserError(_refusal(*wrong[0]))
    if wrong:
        first = '; '.join(f'{printable(path)}: {reason}' for path, reason in wrong[:5])
        more = f'; and {len(wrong) - 5} more' if len(wrong) > 5 else ''
        raise UserError(
            f'{len(wrong)} of {len(paths)} images cannot be read (replace or remove them): '
            f'{first}{more}'
        )
