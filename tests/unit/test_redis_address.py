"""Where Redis is: what a URL may say."""

import pytest

from engine.redis_address import RedisAddress, names_a_cluster, parse_cluster_url


def test_a_cluster_is_named_by_some_of_its_nodes() -> None:
    url = "redis+cluster://shop:p%40ss@a.example:7001,10.0.0.2,[::1]:7003/0"
    assert names_a_cluster(url)
    assert parse_cluster_url(url) == (
        RedisAddress("a.example", 7001, username="shop", password="p@ss"),
        RedisAddress("10.0.0.2", 6379, username="shop", password="p@ss"),
        RedisAddress("::1", 7003, username="shop", password="p@ss"),
    )


def test_every_node_of_a_cluster_is_reached_with_the_same_certificates() -> None:
    first, second = parse_cluster_url("rediss+cluster://:secret@a:1,b:2?ssl_ca_certs=/ca.pem")
    assert (first.tls, first.tls_authorities_file, first.password) == (True, "/ca.pem", "secret")
    assert (second.host, second.port, second.tls_authorities_file) == ("b", 2, "/ca.pem")


@pytest.mark.parametrize(
    "url", ["redis+cluster://", "redis+cluster://a:1,,b:2", "redis+cluster://user:pw@", "redis://a"]
)
def test_a_cluster_without_nodes_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"begins with|one node or more"):
        parse_cluster_url(url)


def test_a_refusal_does_not_show_the_password() -> None:
    with pytest.raises(ValueError, match="only database 0") as refused:
        parse_cluster_url("redis+cluster://user:s3cret@a:1,b:2/3")
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("url", ["redis://a", "rediss://a", "unix:///a"])
def test_one_server_is_no_cluster(url: str) -> None:
    assert not names_a_cluster(url)
