#!lua flags=allow-oom
-- Purpose: ends a membership. A log without members goes; otherwise what only this member held back goes.
-- KEYS: entries, members of the log
-- ARGV: member, shared (1 for a share group's log, else 0)
-- Returns: the generation of the log that went with it, "" while the log stays, "none" when there was none
-- Atomicity: all in one step; repeating it changes nothing. The route, in another slot, follows.
local entries, members = KEYS[1], KEYS[2]
local generation = redis.call("ZSCORE", members, "generation")
if not generation then return "none" end
redis.call("ZREM", members, ARGV[1])
local lowest = redis.call("ZRANGE", members, 0, 0, "WITHSCORES")
if lowest[1] == "generation" then
	redis.call("UNLINK", entries, members)
	return generation
end
if ARGV[2] == "0" then redis.call("XTRIM", entries, "MINID", "=", string.format("0-%.0f", lowest[2] + 1)) end
return ""
