#!lua flags=allow-oom
-- Purpose: removes entries of a share group's log that were delivered or refused.
-- KEYS: entries of the log
-- ARGV: ids
-- Returns: number of entries removed
-- Atomicity: all in one step; an id that nobody has taken is left alone.
if redis.call("EXISTS", KEYS[1]) == 0 then return 0 end
local removed = 0
for _, id in ipairs(ARGV) do
	if redis.call("XACK", KEYS[1], "g", id) == 1 then removed = removed + redis.call("XDEL", KEYS[1], id) end
end
return removed
