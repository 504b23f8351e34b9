#!lua flags=allow-oom
-- Purpose: a member needs nothing up to its floor any more; what nobody needs is trimmed.
-- KEYS: entries, members of the log
-- ARGV: member, floor
-- Returns: 1, or 0 for no member
-- Atomicity: all in one step; a floor never sinks.
local entries, members = KEYS[1], KEYS[2]
local before = redis.call("ZSCORE", members, ARGV[1])
if not before then return 0 end
redis.call("ZADD", members, "XX", "GT", ARGV[2], ARGV[1])
local lowest = redis.call("ZRANGE", members, 0, 0, "WITHSCORES")[2]
if tonumber(before) < tonumber(lowest) then
	redis.call("XTRIM", entries, "MINID", "=", string.format("0-%.0f", lowest + 1))
end
return 1
