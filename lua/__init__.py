"""Lua scripts: one file per action, shared functions in ``include/``; nothing but Lua and this marker."""
