"""A seeded simulation of the whole shop in one process and in virtual time, on the real scripts, writer and recovery.

What is real: every Lua script on a real server, the engine's flows, the writer, the settler, the sweeper and the
recovery with their SQL on a real PostgreSQL. What is simulated: time, the network between them, whoever stops or is
lost, and the order of everything. `python -m tests.simulation --seed N` replays a seed.
"""
