#!lua flags=allow-oom
-- Purpose: tells all replicas something that is not about routes.
-- KEYS: version, changes
-- ARGV: replica that says it, mark of the change, number of changes to remember, notice
-- Returns: version
-- Atomicity: all in one step. May be repeated: it is told twice then.
local version, changes = unpack(KEYS)
local replica, mark, remembered, notice = unpack(ARGV)
local number = redis.call("INCR", version)
redis.call("XADD", changes, "MAXLEN", "~", remembered, number .. "-0", "replica", replica, "kind", "notice", "mark", mark, "notice", notice)
return number
