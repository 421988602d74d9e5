"""The scenarios of `loadtests/locustfile.py`, what they need of a shop, and how their outcome is checked."""
