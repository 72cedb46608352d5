"""The pixels of decoded images: those that Pillow gives, on white where they are transparent, and all of them."""

from __future__ import annotations

import io
import struct
import zlib

import pytest
from PIL import Image, ImageOps

from tests.hostile_images import EOI, chunk, good, photo, png_of, small_png
from tests.images import COLOURS, encoded, exif_of, halves
from vlm.errors import InvalidImage
from vlm.image.decode import decode
from vlm.image.limits import ImageLimits

WHITE, BLACK = (255, 255, 255), (0, 0, 0)
OPAQUE = sorted(
    name for name in good() if not name.endswith(("-alpha", "-16", "-palette", "-index", "-transparent", "-key"))
)


def refusal(data: bytes) -> InvalidImage:
    with pytest.raises(InvalidImage) as caught:
        decode(data)
    return caught.value


# Ordinary images.


@pytest.mark.parametrize("name", OPAQUE)
def test_opaque_images_are_those_of_pillow(name: str) -> None:
    data = good()[name]
    with Image.open(io.BytesIO(data)) as image:
        expected = ImageOps.exif_transpose(image).convert("RGB")
    assert decode(data).tobytes() == expected.tobytes()


@pytest.mark.parametrize("image_format", ["PNG", "WEBP"])
def test_alpha_that_hides_nothing_changes_nothing(image_format: str) -> None:
    data = encoded(photo().convert("RGBA"), image_format, lossless=True)
    assert decode(data).tobytes() == photo().tobytes()


# Transparency.


@pytest.mark.parametrize(("image_format", "settings"), [("PNG", {}), ("WEBP", {"lossless": True, "exact": True})])
def test_what_alpha_hides_is_white(image_format: str, settings: dict[str, bool]) -> None:
    image = halves().convert("RGBA")
    image.paste((9, 9, 9, 0), (0, 0, 4, 4))
    image.paste((0, 0, 0, 51), (8, 8, 12, 12))
    found = decode(encoded(image, image_format, **settings))
    assert [found.getpixel(at) for at in ((1, 1), (9, 9), (7, 7))] == [WHITE, (204,) * 3, COLOURS["red"]]


def test_grey_with_alpha_is_put_on_white() -> None:
    image = Image.new("LA", (2, 1), (0, 0))
    image.putpixel((1, 0), (100, 255))
    found = decode(encoded(image, "PNG"))
    assert [found.getpixel((x, 0)) for x in (0, 1)] == [WHITE, (100,) * 3]


@pytest.mark.parametrize(("transparency", "expected"), [(1, WHITE), (b"\xff\0", WHITE), (b"\xff\x33", (212, 214, 216))])
def test_a_colour_of_a_palette_may_be_transparent(transparency: int | bytes, expected: tuple[int, int, int]) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    found = decode(encoded(image, "PNG", transparency=transparency))
    assert [found.getpixel((x, 0)) for x in (0, 1)] == [(10, 20, 30), expected]


def test_a_transparent_colour_of_a_gif_is_white_also_beside_the_frame() -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([200, 0, 0, 0, 0, 0])
    image.putpixel((0, 0), 0)
    gif = encoded(image, "GIF", transparency=1)
    found = decode(gif[:6] + struct.pack("<HH", 12, 8) + gif[10:])
    assert found.size == (12, 8)
    assert [found.getpixel(at) for at in ((0, 0), (5, 5), (11, 5))] == [(200, 0, 0), WHITE, WHITE]


@pytest.mark.parametrize(
    ("bits", "pixels"), [(1, b"\x40"), (2, b"\x10"), (4, b"\x01"), (8, b"\0\1"), (16, b"\0\0\0\1")]
)
def test_a_transparent_grey_of_any_depth(bits: int, pixels: bytes) -> None:
    """Two pixels of 0 and 1, the second of which is transparent."""
    data = png_of(2, 1, bits=bits, colour=0, before=chunk(b"tRNS", b"\0\1"), rows=b"\0" + pixels)
    found = decode(data)
    assert [found.getpixel((x, 0)) for x in (0, 1)] == [BLACK, WHITE]


@pytest.mark.parametrize(("bits", "pixels"), [(8, b"\1\2\3\3\2\1"), (16, b"\1\0\2\0\3\0\3\0\2\0\1\0")])
def test_a_transparent_colour(bits: int, pixels: bytes) -> None:
    key = b"\0\1\0\2\0\3" if bits == 8 else pixels[:6]
    found = decode(png_of(2, 1, bits=bits, before=chunk(b"tRNS", key), rows=b"\0" + pixels))
    assert [found.getpixel((x, 0)) for x in (0, 1)] == [WHITE, (3, 2, 1)]


def test_sixteen_bits_with_alpha() -> None:
    found = decode(png_of(2, 1, bits=16, colour=6, rows=b"\0" + b"\x80\0" * 3 + b"\0\0" + b"\x80\0" * 3 + b"\xff\xff"))
    assert [found.getpixel((x, 0)) for x in (0, 1)] == [WHITE, (128,) * 3]


@pytest.mark.parametrize(("alpha", "expected"), [((0, 0), COLOURS["red"]), ((0, 255), WHITE)])
def test_a_bmp_without_any_alpha_is_opaque(alpha: tuple[int, int], expected: tuple[int, int, int]) -> None:
    """Many programs leave the fourth byte at zero, whatever the masks say."""
    red, green, blue = COLOURS["red"]
    pixels = b"".join(bytes([blue, green, red, value]) for value in alpha)
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header = struct.pack("<IiiHHIIiiII", 108, 2, -1, 1, 32, 3, 8, 0, 0, 0, 0) + masks + bytes(52)
    data = b"BM" + struct.pack("<IHHI", 14 + 108 + 8, 0, 0, 122) + header + pixels
    assert decode(data).getpixel((0, 0)) == expected
    assert decode(data).getpixel((1, 0)) == COLOURS["red"]


# Odd bytes around good pixels.


@pytest.mark.parametrize(
    "kind", [b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf", b"gAMA", b"tIME", b"sPLT", b"bKGD", b"acTL"]
)
@pytest.mark.parametrize("body", [b"", b"abc", bytes(2_000_000), b"a\0\0" + zlib.compress(bytes(5_000_000))])
def test_ancillary_chunks_do_not_spoil_an_image(kind: bytes, body: bytes) -> None:
    for data in (small_png(chunk(kind, body)), small_png(chunk(kind, body, 0)), small_png(b"", chunk(kind, body, 0))):
        assert decode(data).tobytes() == bytes(16 * 16 * 3)


@pytest.mark.parametrize("pieces", [1, 3, 400])
def test_pixels_in_any_number_of_chunks(pieces: int) -> None:
    data = encoded(photo(), "PNG")
    start = data.index(b"IDAT") - 4
    body = data[start + 8 : start + 8 + int.from_bytes(data[start : start + 4])]
    step = -(-len(body) // pieces)
    chunks = [chunk(b"IDAT", body[at : at + step]) + chunk(b"IDAT", b"") for at in range(0, len(body), step)]
    assert decode(data[:start] + b"".join(chunks) + data[-12:]).tobytes() == photo().tobytes()


def test_a_png_without_its_end_is_read() -> None:
    assert decode(encoded(photo(), "PNG")[:-12]).tobytes() == photo().tobytes()


@pytest.mark.parametrize("settings", [{}, {"progressive": True}, {"restart_marker_rows": 1}, {"subsampling": 0}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("behind", [b"", bytes(300), b"\xff", b"\xff\xff\xff", b"\xff\x7f", b"\xff\xe1\xff"])
def test_a_jpeg_without_its_end_is_read_when_its_pixels_are_there(
    settings: dict[str, int], mode: str, behind: bytes
) -> None:
    data = encoded(photo().convert(mode), "JPEG", **settings)
    assert decode(data[:-2] + behind).tobytes() == decode(data).tobytes()


# Pixels that are not there.


@pytest.mark.parametrize("settings", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("ending", [b"", EOI])
def test_a_jpeg_cut_within_its_pixels_is_refused(settings: dict[str, int], mode: str, ending: bytes) -> None:
    data = encoded(photo().convert(mode), "JPEG", **settings)
    start = data.index(b"\xff\xda")
    # With an end marker, only the grey of missing blocks gives the cut away, which the last one may not have.
    cuts = range(start + 20, len(data) - (200 if ending else 12), 97)
    read = [cut for cut in cuts if _is_read(data[:cut] + ending)]
    if not ending or not settings.get("progressive"):
        assert not read
    else:  # and then the first scan of colours is an image, if a coarse one
        assert read


def _is_read(data: bytes) -> bool:
    try:
        decode(data)
    except InvalidImage:
        return False
    return True


def test_a_grey_corner_is_not_taken_for_missing_pixels() -> None:
    for mode, colour in (("RGB", (128, 128, 128)), ("L", 128), ("CMYK", (127, 127, 127, 127))):
        image = Image.new(mode, (64, 48), colour)
        for settings in ({}, {"progressive": True}):
            assert decode(encoded(image, "JPEG", **settings)).size == (64, 48)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("there", [0, 1, 700, 49 * 16 - 1])
def test_a_png_whose_rows_end_early_is_refused(there: int, interlaced: bool) -> None:
    """Its compressed data is whole, but too little: Pillow leaves the rest black."""
    data = png_of(16, 16, rows=bytes(there))
    assert refusal(_interlaced(data) if interlaced else data).code == "image_parse_error"


def _interlaced(data: bytes) -> bytes:
    header = data[16:28] + b"\1"
    return data[:8] + chunk(b"IHDR", header) + data[33:]


@pytest.mark.parametrize(("width", "height"), [(1, 1), (3, 2), (16, 16), (17, 5)])
def test_a_black_png_is_whole(width: int, height: int) -> None:
    assert decode(png_of(width, height, rows=bytes((1 + 3 * width) * height))).getextrema() == ((0, 0),) * 3


def test_an_interlaced_png_is_read() -> None:
    """8 x 8 pixels of white: seven passes, whose rows have a byte for a filter each."""
    passes = ((1, 1), (1, 1), (1, 2), (2, 2), (2, 4), (4, 4), (4, 8))
    rows = b"".join((b"\0" + b"\xff" * width) * height for height, width in passes)
    found = decode(_interlaced(png_of(8, 8, colour=0, rows=rows)))
    assert found.getextrema() == ((255, 255),) * 3
    assert refusal(_interlaced(png_of(8, 8, colour=0, rows=rows[:-9]))).code == "image_parse_error"


@pytest.mark.parametrize("before", [b"", chunk(b"PLTE", bytes(3), 0)])
def test_indices_into_no_table_of_colours_are_refused(before: bytes) -> None:
    assert refusal(png_of(2, 2, colour=3, before=before, rows=bytes(6))).code == "image_parse_error"


@pytest.mark.parametrize("side", [10_000, 20_000])
def test_limits_above_those_of_pillow_do_not_lift_them(side: int) -> None:
    with pytest.raises(InvalidImage) as caught:
        decode(png_of(side, side), ImageLimits(max_pixels=side**2, max_side=side))
    assert caught.value.code == "image_too_large"


def test_two_sizes_in_one_file_are_refused() -> None:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    for data in (small_png(header), small_png(b"", header)):
        assert refusal(data).code == "image_parse_error"


def test_the_orientation_is_applied_by_us() -> None:
    turned = photo().transpose(Image.Transpose.ROTATE_90)
    assert decode(encoded(turned, "PNG", exif=exif_of(6))).tobytes() == photo().tobytes()
