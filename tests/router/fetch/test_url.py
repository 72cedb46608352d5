"""The parser: what it takes apart, and what it refuses."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.fetch.url import MAX_URL_CHARS, ImageUrl, parse_url, redirected
from vlm.errors import InvalidImage


@pytest.mark.parametrize(
    ("text", "scheme", "host", "port", "target"),
    [
        ("http://example.org", "http", "example.org", 80, "/"),
        ("https://example.org/", "https", "example.org", 443, "/"),
        ("HTTPS://EXAMPLE.org/Cat.PNG", "https", "example.org", 443, "/Cat.PNG"),
        ("http://example.org:8080/a?b=c#d", "http", "example.org", 8080, "/a?b=c"),
        ("http://example.org?b=/c?d", "http", "example.org", 80, "/?b=/c?d"),
        ("http://example.org#@evil.example/", "http", "example.org", 80, "/"),
        ("http://example.org/a@b:c/d", "http", "example.org", 80, "/a@b:c/d"),
        ("http://example.org/%41%2e%2E%00", "http", "example.org", 80, "/%41%2e%2E%00"),
        ("http://example.org/a'b(c)*!~;=,$&+", "http", "example.org", 80, "/a'b(c)*!~;=,$&+"),
        ("http://example.org/?x[0]=1&sig=a%2Bb+c==", "http", "example.org", 80, "/?x[0]=1&sig=a%2Bb+c=="),
        ("http://example.org/é/猫.png?q=ü", "http", "example.org", 80, "/%C3%A9/%E7%8C%AB.png?q=%C3%BC"),
        ('http://example.org/a"<>^`{|}', "http", "example.org", 80, "/a%22%3C%3E%5E%60%7B%7C%7D"),
        ("http://xn--mnchen-3ya.de/", "http", "xn--mnchen-3ya.de", 80, "/"),
        ("http://my_bucket.s3.example/", "http", "my_bucket.s3.example", 80, "/"),
        ("http://intranet/", "http", "intranet", 80, "/"),
        ("http://8.8.8.8/", "http", "8.8.8.8", 80, "/"),
        ("http://1.2.3.4a/", "http", "1.2.3.4a", 80, "/"),
        ("http://[2606:4700::1111]/", "http", "2606:4700::1111", 80, "/"),
        ("http://[2606:4700:0:0:0:0:0:1111]:443/", "http", "2606:4700::1111", 443, "/"),
    ],
)
def test_parts(text: str, scheme: str, host: str, port: int, target: str) -> None:
    url = parse_url(text)
    assert (url.scheme, url.host, url.port, url.target) == (scheme, host, port, target)


def test_only_addresses_have_one() -> None:
    assert parse_url("http://example.org").address is None
    assert parse_url("http://8.8.8.8").address == ip_address("8.8.8.8")
    assert parse_url("http://[::1]").address == ip_address("::1")


@pytest.mark.parametrize(
    ("text", "authority"),
    [
        ("http://example.org:80/", "example.org"),
        ("https://example.org:80/", "example.org:80"),
        ("https://[2606:4700::1111]/", "[2606:4700::1111]"),
        ("http://[2606:4700::1111]:8080/", "[2606:4700::1111]:8080"),
    ],
)
def test_the_host_header(text: str, authority: str) -> None:
    assert parse_url(text).authority == authority


def test_long_urls_are_refused() -> None:
    start = "http://example.org/"
    assert parse_url(start + "a" * (MAX_URL_CHARS - len(start)))
    with pytest.raises(InvalidImage, match="8192 characters"):
        parse_url(start + "a" * MAX_URL_CHARS)


@pytest.mark.parametrize("port", ["0", "080", "65536", "99999", "100000", "", "-1", "\uff18\uff10", "80a"])
def test_ports_that_do_not_exist(port: str) -> None:
    with pytest.raises(InvalidImage):
        parse_url(f"http://example.org:{port}/")


@given(st.text(max_size=40))
def test_any_text_is_taken_apart_or_refused(text: str) -> None:
    for url in (f"http://{text}", f"http://example.org/{text}", text):
        try:
            parts = parse_url(url)
        except InvalidImage:
            continue
        assert parts.target.isascii()
        assert parts.target.startswith("/")
        assert not set(parts.target) & set(" \r\n\t")
        assert parse_url(f"{parts.scheme}://{parts.authority}{parts.target}") == parts


BASE = parse_url("https://example.org/a/b?c")


@pytest.mark.parametrize(
    ("location", "result"),
    [
        (b"https://other.example/x", "https://other.example/x"),
        (b"//other.example/x", "https://other.example/x"),
        (b"/x", "https://example.org/x"),
        (b"x", "https://example.org/a/x"),
        (b"../x", "https://example.org/x"),
        (b"../../../x", "https://example.org/x"),
        (b"?d", "https://example.org/a/b?d"),
        ("/ü".encode(), "https://example.org/%C3%BC"),
    ],
)
def test_where_redirects_lead(location: bytes, result: str) -> None:
    assert redirected(BASE, location) == parse_url(result)


@pytest.mark.parametrize(
    "location",
    [
        b"http://example.org/", b"file:///etc/passwd", b"gopher://example.org/", b"data:image/png;base64,AAAA",
        b"javascript:alert(1)", b"/\xff", b"\\\\other.example/x", b"/\\other.example/x", b"/a b", b"/a\tb",
        b"https://user@example.org/", b"https://[::1", b"https://2130706433/", b"https://a]b/",
    ],
)  # fmt: skip
def test_where_redirects_may_not_lead(location: bytes) -> None:
    with pytest.raises(InvalidImage, match="redirects to an address that is not allowed"):
        redirected(BASE, location)


def test_a_redirect_from_http_to_https_is_followed() -> None:
    new = redirected(parse_url("http://example.org:80/"), b"https://example.org/")
    assert new == ImageUrl("https", "example.org", None, 443, "/")
