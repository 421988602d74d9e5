"""The same shop as others build it.

Each answers the same two requests in the same way, checks the
same things, and is served by the same uvicorn with as many processes."""
