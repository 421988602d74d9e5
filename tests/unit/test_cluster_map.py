"""The map of a cluster's slots, from what nodes say of themselves and of each other."""

from engine.cluster_map import Endpoint, merge, moving_slots, read_endpoint, read_view

A, B, C = (letter * 40 for letter in "abc")
ASKED = Endpoint("10.0.0.1", 6379)


def line(node_id: str, address: str, flags: str, epoch: int, *slots: str, primary: str = "-") -> str:
    return " ".join([node_id, address, flags, primary, "0", "0", str(epoch), "connected", *slots])


def nodes(*lines: str) -> bytes:
    return ("\n".join(lines) + "\n").encode()


def test_a_slot_is_at_the_primary_that_claims_it() -> None:
    said = nodes(
        line(A, "10.0.0.1:6379@16379", "myself,master", 1, "0-5", "9"),
        line(B, "10.0.0.2:6379@16379,b.example", "master", 2, "6-8"),
        line(C, "10.0.0.3:6379@16379", "slave", 2, primary=B),
    )
    cluster = merge([read_view(said, [], ASKED)])

    assert [owner.node_id if (owner := cluster.owner(slot)) else None for slot in (0, 5, 6, 8, 9, 10)] == [
        A, A, B, B, A, None,
    ]  # fmt: skip
    assert set(cluster.primaries) == {A, B}
    assert Endpoint("10.0.0.3", 6379) in cluster.endpoints


def test_of_two_claims_the_one_of_the_higher_epoch_counts() -> None:
    """The node that was cut off still thinks that it has its slots, and that nothing has happened."""
    old = nodes(line(A, "10.0.0.1:1@2", "myself,master", 1, "0-9"), line(C, "10.0.0.3:1@2", "slave", 1, primary=A))
    new = nodes(line(A, "10.0.0.1:1@2", "master,fail", 1), line(C, "10.0.0.3:1@2", "myself,master", 4, "0-9"))
    for views in ([old, new], [new, old]):
        cluster = merge(read_view(said, [], ASKED) for said in views)
        owner = cluster.owner(7)
        assert owner is not None
        assert owner.node_id == C


def test_a_primary_that_failed_keeps_its_slots_until_another_has_them() -> None:
    cluster = merge([read_view(nodes(line(A, "10.0.0.1:1@2", "master,fail", 1, "0-9")), [], ASKED)])
    assert cluster.owner(0) is not None
    cluster = merge([read_view(nodes(line(A, "10.0.0.1:1@2", "master,fail", 1)), [], ASKED)])
    assert cluster.primaries == {}


def test_clients_reach_nodes_under_the_names_that_are_announced_to_them() -> None:
    said = nodes(
        line(A, "10.0.0.1:6379@16379", "myself,master", 1, "0-5"),
        line(B, ":6379@16379", "master", 2, "6-8"),
        line(C, "[::1]:7000@17000".replace("[::1]", "::1"), "master", 3, "9"),
    )
    slots = [[0, 5, [b"a.example", 7001, A.encode(), []]], [6, 8, [None, 7002, B.encode(), []]]]
    cluster = merge([read_view(said, slots, ASKED)])

    assert {node_id: node.endpoint for node_id, node in cluster.primaries.items()} == {
        A: Endpoint("a.example", 7001),
        B: Endpoint("10.0.0.1", 7002),
        C: Endpoint("::1", 7000),
    }


def test_a_redirection_without_a_host_means_the_host_that_was_asked() -> None:
    assert read_endpoint(":7003", ASKED) == Endpoint("10.0.0.1", 7003)
    assert read_endpoint("?:7003", ASKED) == Endpoint("10.0.0.1", 7003)
    assert read_endpoint("b.example:7003", ASKED) == Endpoint("b.example", 7003)


def test_slots_on_their_way_are_those_that_a_node_gives_or_takes_itself() -> None:
    said = nodes(line(A, "10.0.0.1:1@2", "myself,master", 1, "0-9", f"[7->-{B}]", f"[12-<-{B}]"))
    assert moving_slots(said) == {7, 12}
    view = read_view(said, [], ASKED)
    assert view.moving == {7, 12}
    assert view.nodes[0].slots == ((0, 9),)


def test_nodes_that_are_not_met_yet_are_none() -> None:
    said = nodes(line(A, "10.0.0.1:1@2", "handshake", 0), line(B, ":0@0", "master,noaddr", 0))
    assert merge([read_view(said, [], ASKED)]).endpoints == set()
