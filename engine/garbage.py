"""The garbage collector of a process that serves: rare, and blind to what stays for good.

What a request makes is freed when its last reference goes; the collector is for cycles alone, as a traceback makes.
Python's default looks after every 700 new objects, and now and then at all that was imported too.
"""

import gc

NEW_OBJECTS = 50_000
"""New objects, less those freed, between two looks at the young ones: requests in flight are not looked at again and
again, and the cycles of refusals come to a few MiB."""


def settle() -> None:
    """Call once all is loaded: what is there now is never looked at again, and what comes is looked at rarely."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS, 10, 10)
