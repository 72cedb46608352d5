"""Addresses and URLs that must never be connected to, as far as they are known from published attacks."""

# ruff: noqa: RUF001 - characters that look like others are the point

from __future__ import annotations

METADATA = (
    "169.254.169.254", "169.254.170.2", "169.254.170.23", "169.254.0.23", "100.100.100.200", "168.63.129.16",
    "192.0.0.192", "fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254", "::ffff:169.254.169.254", "::ffff:a9fe:a9fe",
    "64:ff9b::a9fe:a9fe", "64:ff9b:1::a9fe:a9fe", "2002:a9fe:a9fe::", "2002:a9fe:a9fe::1", "::a9fe:a9fe",
    "::ffff:168.63.129.16", "64:ff9b::a83f:8110", "2001:0:a9fe:a9fe::1", "::ffff:0:a9fe:a9fe",
)  # fmt: skip
"""Of metadata services, with every wrapping of the best known."""

REFUSED = (
    *METADATA,
    # This machine
    "127.0.0.1", "127.0.0.2", "127.1.1.1", "127.255.255.255", "0.0.0.0", "0.0.0.1", "0.255.255.255", "::", "::1",
    "::ffff:127.0.0.1", "::ffff:0.0.0.0", "::127.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b:1::7f00:1", "2002:7f00:1::",
    "2001:0:7f00:1::", "2001::f5ff:fffe", "::ffff:0:127.0.0.1",
    # Private
    "10.0.0.0", "10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.0.1", "192.168.255.255",
    "::ffff:10.0.0.1", "::ffff:192.168.1.1", "64:ff9b::10.0.0.1", "2002:c0a8:101::1", "2002:a00:1::",
    "2001:0:53aa:64c:0:0:f5ff:fffe", "fc00::1", "fd00::1", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    # The link, and the site
    "169.254.0.1", "169.254.255.255", "fe80::1", "fe80::1%eth0", "febf::1", "fec0::1", "feff::1",
    # Shared, benchmarking, documentation, protocols
    "100.64.0.1", "100.127.255.255", "198.18.0.1", "198.19.255.255", "2001:2::1", "192.0.2.1", "198.51.100.7",
    "203.0.113.9", "2001:db8::1", "3fff::1", "192.0.0.1", "192.0.0.8", "192.0.0.9", "192.0.0.10", "192.0.0.170",
    "192.31.196.1", "192.52.193.1", "192.88.99.1", "192.175.48.1", "2001:1::1", "2001:3::1", "2001:4:112::1",
    "2001:10::1", "2001:20::1", "2001:30::1", "2620:4f:8000::1", "100::1", "100:0:0:1::1", "5f00::1",
    # Many, none, and not yet
    "224.0.0.1", "239.255.255.250", "255.255.255.255", "240.0.0.1", "254.1.2.3", "ff02::1", "ff05::1:3", "ff0e::1",
    "ff02::fb", "4000::1", "8000::1", "::8.8.8.8", "64:ff9b:1::8.8.8.8", "2002:808:808::",
    # Tunnels by the interface id
    "2a00:1450::5efe:7f00:1", "2a00:1450::200:5efe:a9fe:a9fe",
)  # fmt: skip

SPELLINGS = (
    # Loopback and metadata in numbers that a resolver would read
    "2130706433", "0x7f000001", "0x7F000001", "017700000001", "0177.0.0.1", "0177.0.0.01", "127.1", "127.0.1",
    "0x7f.0.0.1", "0x7f.1", "0x7f.0x0.0x0.0x1", "127.0.0.0x1", "127.00.0.1", "127.0.0.01", "0127.0.0.1", "0", "0x0",
    "00", "1", "0.0", "127.0.0.1.", "2852039166", "0xa9fea9fe", "0xA9.0xFE.0xA9.0xFE", "0251.0376.0251.0376",
    "169.254.43518", "169.16689662", "0251.254.169.254", "0xa9.254.0251.254", "169.254.169.254.", "169.254.169.0xfe",
    "0xa83f8110", "0xA8.0x3F.0x81.0x10", "0300.0250.0.1", "3232235521", "0x100000001", "4294967297", "256.0.0.1",
    "127.0.0.257", "127.0.0.1.1", "1.2.3.4.5", "127..0.1", "127.0.0.-1", "+127.0.0.1",
    # Digits, dots and letters that only look like ASCII or become it
    "１２７.0.0.1", "127。0。0。1", "127．0．0．1", "①②⑦.0.0.1", "𝟏𝟐𝟕.𝟎.𝟎.𝟏", "١٢٧.0.0.1", "ⓁⓄⒸⒶⓁⒽⓄⓈⓉ", "localhost。",
    "ｌocalhost", "loca\u00adlhost", "local\u200bhost", "ℓocalhost", "\u212ahost", "münchen.de", "①⑥⑨.②⑤④.①⑥⑨.②⑤④",
    # Names that are none
    "", ".", "..", "localhost.", "localhost..", ".localhost", "-a.example", "a-.example", "a..example", "%6cocalhost",
    "127.0.0.1%00.example.org", "127%2e0%2e0%2e1", "a" * 64 + ".example", "a." * 130 + "example", "exa mple.org",
    "example.org,127.0.0.1", "*", "example.org;127.0.0.1", "(127.0.0.1)", "127.0.0.1$", "a!b", "a|b", "a`id`",
    # Addresses of IPv6 in spellings of their own
    "[", "[]", "[::1", "::1", "[::1]]", "[[::1]]", "[::1%25lo]", "[fe80::1%eth0]", "[fe80::1%25eth0]", "[v1.x]",
    "[::1%lo]", "[0:0:0:0:0:0:0:0:1]", "[::ffff:0x7f.0.0.1]", "[::ffff:127.1]", "[::ffff:0177.0.0.1]", "[::1]a",
    "[127.0.0.1]", "[localhost]", "[::g]", "[:]", "[1]",
)  # fmt: skip
"""Texts in the place of a host that are not hosts."""

URLS = (
    # Schemes
    "file:///etc/passwd", "file://localhost/etc/passwd", "FILE:///etc/passwd", "gopher://127.0.0.1:6379/_INFO",
    "dict://127.0.0.1:11211/stats", "ftp://127.0.0.1/", "ftps://127.0.0.1/", "sftp://127.0.0.1/", "tftp://127.0.0.1/",
    "ldap://127.0.0.1/", "jar:http://127.0.0.1!/", "netdoc:///etc/passwd", "ws://127.0.0.1/", "unix:///var/run/x.sock",
    "http+unix://%2Fvar%2Frun%2Fdocker.sock/info", "phar://x", "php://filter", "blob:http://127.0.0.1/x", "about:blank",
    "view-source:http://127.0.0.1/", "httpx://127.0.0.1/", "https+http://127.0.0.1/", "//127.0.0.1/", "/etc/passwd",
    "127.0.0.1", "localhost/x", "", " ", "http", "http:", "http:/", "http://", "http:///", "http:////127.0.0.1/",
    "http:127.0.0.1", "http:/127.0.0.1/", "http:@127.0.0.1/", "http:///127.0.0.1/", "http://?x", "http://#x",
    "http://:80/", "http://:@/",
    # Who is the host, for which parser?
    "http://user@127.0.0.1/", "http://user:pass@127.0.0.1/", "http://example.org@127.0.0.1/", "http://@127.0.0.1/",
    "http://example.org:80@127.0.0.1/", "http://127.0.0.1@example.org/", "http://example.org%40127.0.0.1/",
    "http://127.0.0.1:80@example.org:80/", "http://a:b@c:d@127.0.0.1/", "http://example.org&@127.0.0.1#@other.example/",
    "http://example.org\\@127.0.0.1/", "http://127.0.0.1\\@example.org/", "http:\\\\127.0.0.1\\", "http:/\\127.0.0.1/",
    "http://127.0.0.1\\.example.org/", "http://example.org\\/127.0.0.1", "http://example.org/\\x", "\\\\127.0.0.1\\c$",
    "http://example.org\t.127.0.0.1/", "http://exa\nmple.org/", "http://example.org\r\n/", "ht\ntp://127.0.0.1/",
    "http://example.org/ HTTP/1.1\r\nX: y", "http://example.org/\r\nHost: 127.0.0.1", "http://example.org/\x00",
    "http://127.0.0.1\x00.example.org/", "\x00http://127.0.0.1/", " http://127.0.0.1/", "http://127.0.0.1/ ",
    "http:// 127.0.0.1/", "http://127.0.0.1 /", "http://127.0.0.1\u3000/", "http://example.org/a b",
    "http://example.org/\x7f", "http://example.org/\u2028", "http://example.org/\u202e", "http://example.org/\ufeff",
    "http://example.org/\ud800", "ｈttp://127.0.0.1/", "http：//127.0.0.1/", "http:／／127.0.0.1/", "hſtp://127.0.0.1/",
    # Ports
    "http://example.org:/", "http://example.org:0/", "http://example.org:00080/", "http://example.org:080/",
    "http://example.org:65536/", "http://example.org:99999/", "http://example.org:-80/", "http://example.org:+80/",
    "http://example.org:80:80/", "http://example.org:8o/", "http://example.org:８０/", "http://example.org:80.5/",
    "http://example.org:22/", "http://example.org:25/", "http://example.org:6379/", "http://example.org:8265/",
    "http://example.org:8080/", "https://example.org:2375/", "http://example.org:65616/", "http://[::1]:/",
)  # fmt: skip
"""URLs that are refused as they stand."""
