"""The images that a command line names, folders included, and the files that drawings are written to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path

from vlm.errors import InvalidImage, InvalidRequest

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp")
DRAWING_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_SHOWN = 5


def find_images(paths: Sequence[str], note: Callable[[str], None]) -> tuple[str, ...]:
    """The image files of ``paths`` in order; a folder stands for the images in it, sorted by name.

    Args:
        paths: Files and folders. A file is taken whatever its name ends in.
        note: Gets one line about each folder that holds other files as well.

    Raises:
        InvalidRequest: A path does not exist, or a folder holds no image. All of them are named.
    """
    missing = [path for path in paths if not Path(path).exists()]
    if missing:
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise InvalidRequest(f"there is no such file: {', '.join(missing[:_SHOWN])}{more}")
    return tuple(image for path in paths for image in (_of_folder(path, note) if Path(path).is_dir() else (path,)))


def _of_folder(path: str, note: Callable[[str], None]) -> Iterator[str]:
    entries = sorted(entry for entry in Path(path).iterdir() if entry.is_file())
    images = [entry for entry in entries if entry.suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        raise InvalidRequest(f"the folder {path} holds no images ({', '.join(IMAGE_SUFFIXES)})")
    skipped = len(entries) - len(images)
    if skipped:
        files = "1 file that is not an image" if skipped == 1 else f"{skipped} files that are not images"
        note(f"note: {path}: skipped {files}")
    yield from map(str, images)


def read(path: str) -> bytes:
    """The file's content. Raises InvalidImage."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InvalidImage(f"the file cannot be read ({error.strerror})") from error


def drawing_paths(target: Path, images: Sequence[str]) -> tuple[Path, ...]:
    """Where the drawing of each image is written.

    One image goes to ``target`` itself. Of several, ``found.png`` becomes ``found-NAME.png`` with the image's own name.
    If ``target`` is a folder, each is ``NAME.png`` in it. A name that several images share is numbered, without the
    numbers that would give the name of another image.

    Raises:
        InvalidRequest: A drawing would overwrite one of the images.
    """
    drawings = _drawings(target, images)
    originals = {Path(image).resolve() for image in images}
    for drawing in drawings:
        if drawing.resolve() in originals:
            raise InvalidRequest(f"--draw would overwrite the image {drawing}; name another file or folder")
    return drawings


def _drawings(target: Path, images: Sequence[str]) -> tuple[Path, ...]:
    if target.is_dir():
        return tuple(target / f"{name}.png" for name in _names(images))
    if len(images) == 1:
        return (target,)
    return tuple(target.with_stem(f"{target.stem}-{name}") for name in _names(images))


def _names(images: Sequence[str]) -> Iterator[str]:
    """A name of its own for each image: that of its file, numbered if other images have it too."""
    stems = [Path(image).stem for image in images]
    repeated, taken = Counter(stems), set(stems)
    for stem in stems:
        numbered = (f"{stem}-{number}" for number in count(1))
        name = next(name for name in numbered if name not in taken) if repeated[stem] > 1 else stem
        taken.add(name)
        yield name
