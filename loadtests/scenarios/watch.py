"""How a shop was during a run, as an operator sees it: the writer's lag, the backlog, what was not served."""

from __future__ import annotations

from dataclasses import dataclass

import httpx

EVERY_S = 0.25


@dataclass(slots=True)
class Watch:
    """The worst of what was seen. A look that failed counts, for then nobody could have seen anything."""

    looks: int = 0
    failed_looks: int = 0
    lag_ms_max: int = 0
    backlog_max: int = 0
    recovering_max: int = 0

    def look(self, client: httpx.Client) -> None:
        """One look at `GET /admin/v1/status`."""
        self.looks += 1
        try:
            answer = client.get("/admin/v1/status").raise_for_status().json()
        except httpx.HTTPError:
            self.failed_looks += 1
            return
        self.lag_ms_max = max(self.lag_ms_max, answer["lag_ms"] or 0)
        self.backlog_max = max(self.backlog_max, answer["backlog"] or 0)
        self.recovering_max = max(self.recovering_max, len(answer["partitions"]) - answer["trusted"])

    def __str__(self) -> str:
        failed = f", {self.failed_looks} of them unanswered" if self.failed_looks else ""
        return (
            f"in {self.looks} looks{failed}: writer's lag at most {self.lag_ms_max:,} ms, backlog at most "
            f"{self.backlog_max:,} events, at most {self.recovering_max} partitions not served"
        )
