"""What the lanes of a process have met with: plain integers, for whoever shows them."""

from typing import Protocol


class Counted(Protocol):
    """Where calls wait, as far as it is counted: a lane, or the lanes of a cluster for those that are put off."""

    @property
    def under_way(self) -> int: ...


class LaneCounts:
    """All lanes of a process together. They only ever add here, so the cost is that of an addition."""

    __slots__ = ("connections", "lanes", "sent", "sent_again", "shed", "silences")

    def __init__(self) -> None:
        self.lanes: list[Counted] = []
        self.sent = 0
        """Calls written to a server."""
        self.sent_again = 0
        """Calls put in line once more, as the server had not executed them."""
        self.connections = 0
        """Connections that were made and could be used, the first ones among them."""
        self.silences = 0
        """Connections given up because their server owed replies and sent nothing."""
        self.shed = 0
        """Calls refused because too many were under way."""

    @property
    def in_flight(self) -> int:
        """Calls that wait to be written or answered."""
        return sum(lane.under_way for lane in self.lanes)
