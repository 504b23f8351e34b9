#!lua flags=allow-oom
-- Purpose: removes what a replica has read from its inbox, all but the last of it.
-- KEYS: inbox
-- ARGV: id of the last entry that was read, how it begins
-- Returns: number of entries removed, -1 when that entry is not there: the inbox is not the one that was read
-- Atomicity: all in one step. One that comes late, to a server that has lost entries, must not take those that came instead.
local inbox, last, head = KEYS[1], ARGV[1], ARGV[2]
local entry = redis.call("XRANGE", inbox, last, last)[1]
if not entry or string.sub(entry[2][2], 1, #head) ~= head then
	return -1
end
return redis.call("XTRIM", inbox, "MINID", "=", last)
