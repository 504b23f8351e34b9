#!lua flags=allow-oom
-- Purpose: removes all routes of a replica, and tells all replicas, itself too if it lives.
-- KEYS: replicas, version, changes, named, exact
-- ARGV: replica, mark of the change, number of changes to remember
-- Returns: version, or 0 when there were none
-- Atomicity: all in one step. May be repeated.
local replicas, version, changes, named, exact = unpack(KEYS)
local replica, mark, remembered = unpack(ARGV)
if redis.call("HDEL", replicas, replica) + redis.call("UNLINK", named, exact) == 0 then
	return 0
end
local number = redis.call("INCR", version)
redis.call("XADD", changes, "MAXLEN", "~", remembered, number .. "-0", "replica", replica, "kind", "gone", "mark", mark)
return number
