"""The images that a command line names, folders included, and the files that drawings are written to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
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
    If ``target`` is a folder, each is ``NAME.png`` in it. Names that occur twice are numbered.
    """
    if not target.is_dir() and len(images) == 1:
        return (target,)
    stems = [Path(image).stem for image in images]
    repeated, used, names = Counter(stems), Counter[str](), []
    for stem in stems:
        used[stem] += 1
        names.append(f"{stem}-{used[stem]}" if repeated[stem] > 1 else stem)
    if target.is_dir():
        return tuple(target / f"{name}.png" for name in names)
    return tuple(target.with_stem(f"{target.stem}-{name}") for name in names)
