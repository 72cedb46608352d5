"""The published cases of two libraries for the same purpose, as far as they are about an address or the text of a URL.

Microsoft's AntiSSRF (nodejs, dotnet and microsoft-antissrf 1.0.0) and ssrfguard 0.4.1. What these allow and this server
refuses all the same is in ``STRICTER``.
"""

# ruff: noqa: RUF001 - characters that look like others are the point

from __future__ import annotations

ANTISSRF_NETWORKS = (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "168.63.129.16/32", "169.254.0.0/16", "172.16.0.0/12",
    "192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16",
    "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4", "::1/128",
    "::/128", "64:ff9b:1::/48", "100::/64", "100:0:0:1::/64", "2001::/23", "2001:db8::/32", "2002::/16",
    "2620:4f:8000::/48", "3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8",
)  # fmt: skip
"""AntiSSRF's recommended list, without 64:ff9b::/96: addresses there are refused or allowed as what they lead to."""

ANTISSRF_URLS = (
    "https://169.254.169.254/latest/meta-data/", "https://0xA9.0xFE.0xA9.0xFE/latest/meta-data/",
    "https://[::ffff:169.254.169.254]/latest/meta-data/", "https://[::ffff:A9FE:A9FE]/latest/meta-data/",
    "http://169.254.169.254:443", "http://0xA9.0Xfe.0xA9.0xFe/", "http://[::FFFF:169.254.169.254]/",
    "http://168.63.129.16/", "http://0xA8.0x3F.0x81.0x10/", "http://0xA8.0X3F.0x81.0x10/",
    "http://[::ffff:168.63.129.16]/", "http://[::ffff:A83F:8110]/", "http://[::FFFF:168.63.129.16]/",
    "http://127.0.0.1/", "http://0x7F.0x0.0x0.0x1/", "http://[::ffff:127.0.0.1]/", "http://[::ffff:7F00:1]/",
    "http://127.0.0.3/", "http://[0::1]/", "http://100.64.0.10/", "http://[::FFFF:100.64.0.10]/", "http://169.254.0.2/",
    "http://192.168.0.0/", "http://[1:2:3:4:5:6:7:8]/",
    "http://username@bing.com:/", "http://username:password@bing.com", "http:/\\bing.com", "http:\\/bing.com",
    "http:/accountname.vault.azure.net", "https:accountname.vault.azure.net", "http://bing.com:badPort",
    "http://:bing.com", "http://evil.c℁.core.azure.net", "http://español.test.net/", "http://你好/", "http://bing.hı.com/",
    "http://bing.hí.com/", "http://😉", "https://сontoso.vault.usgovcloudapi.net", "https://データ.vault.azure.net",
    "ws://bing.com", "wss://bing.com", "wSS://test.net", "ftp://bing.com", "file://bing.com", "gopher://bing.com",
    "mailto:bing.com", "data://bing.com", "javascript:alert('XSS')", "evil.com://bing.com",
    "c:\\foo\\bar", "file:///filepath", "CCCCCCCCCCCCCCCCCCCCCCC:\\\\\\\\\\foo\\bar", "/foo/bar", "//////////////////",
    "\\\\.\\a\\a\\a\\", "\\\\\\.\\a\\a\\a\\", "google.com:60", "google.com/path", "username@sup.com", "#fragment",
)  # fmt: skip

SSRFGUARD_ADDRESSES = (
    "127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "255.255.255.255", "::1", "::",
    "fe80::1", "fc00::1", "100.64.0.1", "192.88.99.1", "fec0::1", "ff02::1", "224.0.0.1", "239.255.255.250", "5f00::1",
    "100:0:0:1::1", "2001:2::1", "198.18.0.1", "192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1", "3fff::1",
    "240.0.0.1", "100::1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::",
    "2002:a9fe:a9fe::", "::ffff:127.0.0.1", "::7f00:1", "::a00:1", "64:ff9b:1::7f00:1",
)  # fmt: skip

STRICTER = (
    "2002:808:808::", "192.0.0.9", "192.0.0.10", "192.31.196.1", "192.52.193.1", "2001:1::1", "2001:4:112::1",
    "2620:4f:8000::1",
)  # fmt: skip
"""ssrfguard permits these: they are global, but no image is there."""

PERMITTED = ("8.8.8.8", "1.1.1.1", "223.6.7.8", "::ffff:223.6.7.8", "2606:4700:4700::1111", "64:ff9b::808:808",
             "::ffff:8.8.8.8")  # fmt: skip
"""Both libraries permit these, except that AntiSSRF refuses all of NAT64; they must go on working."""

SSRFGUARD_URLS = (
    "file:///etc/passwd", "gopher://example.com/", "ftp://example.com/", "//example.com/", "/just/a/path",
    "example.com", "http://evil.com@127.0.0.1/", "http://user:pass@example.com/", "http://", "http:///path",
    "http://[::1", "http://a b.com/", "http://-example.com/", "http://%65xample.com/", "http://[fe80::1%25lo]/",
    "http://exa\nmple.com/", "http://example.com\t/", "http://example.com\r/", "http://exam ple.com/",
    "http://example.com:8080/", "http://example.com:22/", "http://example.com:0/", "http://example.com:99999/",
    "http://example.com:-1/", "http://example.com:abc/", "http://127.0.0.1/", "http://169.254.169.254/",
    "http://[::1]/", "http://10.0.0.1/", "http://[64:ff9b::7f00:1]/", "http://0.0.0.0/", "http://0177.0.0.1/",
    "http://2130706433/", "http://127.1/", "http://1.2.3.4.5/", "http://0/", "http://1/", "http://127.0.0.1./",
    "http://0x7f.0.0.1/", "http://localhost。/", "http://①②⑦.0.0.1/", "http://①②⑦。0。0。1/", "http://127。0。0。1/",
    "http://ⓁⓄⒸⒶⓁⒽⓄⓈⓉ/", "http://[::ffff:127.0.0.1]/", "http://[0000:0000::1]/", "http://example.com./",
    "http://münchen.de/",
)  # fmt: skip
"""Also the last two, which ssrfguard permits: a client has to write them in their ordinary spelling. Not
``http://exa_mple.com/``, which it refuses: buckets of object stores have such names."""

NAMES = {
    "localhost": ["127.0.0.1", "::1"],
    "metadata.google.internal": ["169.254.169.254"],
    "imds.example": ["169.254.169.254"],
    "wireserver.example": ["168.63.129.16"],
    "mapped.example": ["::ffff:169.254.169.254"],
}
"""Names that lead to an address that is not public."""
