"""What `firstcome doctor` finds out about one thing, and what to do about it."""

from dataclasses import dataclass

CONNECT_TIMEOUT_S = 5
CLOCK_DIFFERENCE_MS_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at. A remedy says that it is wrong, and what to do about it; advice, that it could be better.

    With one that is ``decisive`` wrong nothing begins: data would be lost, or nothing would work.
    """

    name: str
    found: str
    remedy: str = ""
    advice: str = ""
    decisive: bool = False

    @property
    def failed(self) -> bool:
        return bool(self.remedy)


def clock_check(name: str, theirs_ms: int, began: float, ended: float) -> Check:
    """Compares a server's clock with ours as of the middle of the call that read it."""
    difference_ms = round(theirs_ms - (began + ended) / 2 * 1000)
    remedy = "" if abs(difference_ms) <= CLOCK_DIFFERENCE_MS_MAX else "keep both machines' clocks right, by NTP"
    return Check(name, f"{difference_ms:+d} ms from ours", remedy)
