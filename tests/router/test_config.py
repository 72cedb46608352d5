"""Settings are read strictly."""

from __future__ import annotations

from typing import Any

import pytest

from router.config import RouterConfig
from vlm.errors import ConfigError
from vlm.image.decode import ImageLimits


def test_defaults() -> None:
    config = RouterConfig.from_args({})
    assert config == RouterConfig()
    assert config.max_body_bytes == 30 * 1024 * 1024
    assert config.request_timeout_s == 120
    assert config.max_body_bytes > config.max_image_bytes * 4 / 3  # an image at its limit fits into a body


def test_values_from_yaml() -> None:
    config = RouterConfig.from_args(
        {"request_timeout_s": 5, "required_models": ["a", "b"], "max_image_bytes": 7, "min_image_side": 2}
    )
    assert (config.request_timeout_s, config.required_models) == (5, ("a", "b"))
    assert config.image_limits == ImageLimits(max_bytes=7, max_pixels=40_000_000, min_side=2)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"prices": {"a": 0.094}}, "prices.a must be text; in YAML, put it in quotes."),
        ({"prices": {"a": "-1"}}, 'prices.a must be a decimal string in US dollars, as "0.094".'),
        ({"prices": {"a": {}}}, "prices.a.image is missing."),
        (
            {"prices": {"a": {"image": "1", "imag": "1"}}},
            "prices.a.imag is not a known setting; did you mean prices.a.image? "
            "Known keys of prices.a: image, cached_image, tasks.",
        ),
        (
            {"prices": {"a": {"image": "1", "tasks": {"query": {"eac": "1"}}}}},
            "prices.a.tasks.query.eac is not a known setting; did you mean prices.a.tasks.query.each? "
            "Known keys of prices.a.tasks.query: each, output.",
        ),
        (
            {"key_limits": {"*": {"request": 60}}},
            "key_limits.*.request is not a known setting; did you mean key_limits.*.requests? "
            "Known keys of key_limits.*: requests, images, tokens, concurrent.",
        ),
        (
            {"auto": [{"models": ["a"], "wen": {}}]},
            "auto[0].wen is not a known setting; did you mean auto[0].when? Known keys of auto[0]: when, models, why.",
        ),
    ],
)
def test_what_is_wrong_within_a_setting_is_named_with_its_path(args: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RouterConfig.from_args(args)
    assert caught.value.message == message


def test_prices_are_decimal_strings() -> None:
    assert RouterConfig.from_args({"prices": {"a": "0.094", "b": "12"}}).prices == {"a": "0.094", "b": "12"}


def test_an_unknown_key_is_named_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="request_timeout is not a known setting") as caught:
        RouterConfig.from_args({"request_timeout": 5})
    assert "did you mean request_timeout_s?" in caught.value.message
    assert "Known keys: max_body_bytes, max_total_body_bytes, " in caught.value.message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("max_body_bytes", 0),
        ("max_body_bytes", "30MB"),
        ("max_body_bytes", 1.5),
        ("max_body_bytes", None),
        ("max_image_pixels", True),
        ("request_timeout_s", -1),
        ("request_timeout_s", float("nan")),
        ("request_timeout_s", float("inf")),
        ("keep_alive_s", "15"),
        ("required_models", "blip-large"),
        ("required_models", [1]),
        ("required_models", [""]),
        ("system_fingerprint", 7),
        ("image_urls", "maybe"),
        ("image_urls", 1),
        ("allowed_image_hosts", "example.org"),
        ("allowed_image_hosts", ["https://example.org"]),
        ("allowed_image_hosts", ["example.org:80"]),
        ("allowed_image_hosts", ["Example.org"]),
        ("allowed_image_hosts", ["*"]),
        ("allowed_image_hosts", ["*example.org"]),
        ("allowed_image_hosts", ["a.*.example"]),
        ("allowed_image_hosts", ["münchen.de"]),
        ("allowed_image_hosts", [""]),
        ("allowed_image_networks", "10.0.0.0/8"),
        ("allowed_image_networks", ["10.0.0.1/8"]),
        ("allowed_image_networks", ["10.0.0.0/33"]),
        ("allowed_image_networks", ["intranet"]),
        ("listen", "8000"),
        ("listen", "localhost:8000"),
        ("listen", "127.0.0.1:0"),
        ("listen", "127.0.0.1:65536"),
        ("listen", 8000),
        ("image_ports", 80),
        ("image_ports", []),
        ("image_ports", [0]),
        ("image_ports", [65_536]),
        ("image_download_timeout_s", 0),
        ("max_image_downloads", 0),
        ("prices", "0.094"),
        ("prices", ["0.094"]),
        ("prices", {"a": 0.094}),
        ("prices", {"a": "cheap"}),
        ("prices", {"a": "-1"}),
        ("prices", {"a": "NaN"}),
        ("prices", {"": "1"}),
        ("files_url", "files"),
        ("files_url", "./files"),
        ("files_url", "~/files"),
        ("files_url", ""),
        ("files_url", "ftp://host/files"),
        ("files_url", "https://host/files"),
        ("files_url", "file:///srv/files"),
        ("files_url", "memory:///"),
        ("files_url", "s3://key:secret@bucket/files"),
        ("files_url", "s3://bucket/files?aws_secret_access_key=secret"),
        ("files_without_key", "yes"),
        ("max_files", 0),
        ("max_file_store_bytes", 1.5),
        ("max_file_ttl_s", 367 * 86_400),
        ("file_ttl_s", 0),
        ("file_ttl_s", 31 * 86_400),
    ],
)
def test_an_impossible_value_names_its_key(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"\b{key}\b.* must "):
        RouterConfig.from_args({key: value})


@pytest.mark.parametrize("name", ["max_image_bytes", "max_image_pixels"])
def test_image_limits_are_never_looser_than_the_models(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        RouterConfig.from_args({name: 10**9})


@pytest.mark.parametrize(("written", "read"), [(True, "on"), (False, "off"), ("on", "on"), ("off", "off")])
def test_on_and_off_need_no_quotes_in_yaml(written: object, read: str) -> None:
    assert RouterConfig.from_args({"image_urls": written}).image_urls == read


@pytest.mark.parametrize(
    "url", ["/srv/a folder", "s3://bucket", "s3://bucket/a/b", "gs://b/c", "az://c/d", "temporary"]
)
def test_where_files_may_be_kept(url: str) -> None:
    assert RouterConfig.from_args({"files_url": url}).files_url == url


def test_files_are_not_kept_longer_than_any_may_be() -> None:
    with pytest.raises(ConfigError, match="file_ttl_s must be at most max_file_ttl_s, which is 60"):
        RouterConfig.from_args({"max_file_ttl_s": 60})
    assert RouterConfig.from_args({"max_file_ttl_s": 60, "file_ttl_s": 60}).file_ttl_s == 60


def test_where_images_may_come_from() -> None:
    config = RouterConfig.from_args(
        {
            "image_urls": "allowed",
            "allowed_image_hosts": ["example.org", "*.cdn.example", "10.20.0.7"],
            "allowed_image_networks": ["10.20.0.0/16", "fd12::/32"],
            "image_ports": [443],
        }
    )
    assert config.allowed_image_hosts == ("example.org", "*.cdn.example", "10.20.0.7")
    assert (config.allowed_image_networks, config.image_ports) == (("10.20.0.0/16", "fd12::/32"), (443,))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"image_urls": "allowed"}, "allowed_image_hosts must have a host while image_urls is allowed"),
        ({"allowed_image_hosts": ["example.org"]}, "has no effect while image_urls is on"),
        ({"image_urls": "off", "allowed_image_hosts": ["example.org"]}, "has no effect while image_urls is off"),
    ],
)
def test_a_list_of_hosts_that_would_not_be_used_is_an_error(args: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RouterConfig.from_args(args)
