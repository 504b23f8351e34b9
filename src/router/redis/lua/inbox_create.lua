#!lua flags=allow-oom
-- Purpose: makes a replica's inbox, without which nobody can send it anything.
-- KEYS: inbox
-- ARGV: first entry, "fresh" to remove an inbox that is there
-- Returns: 1 when it was made, 0 when it was there
-- Atomicity: all in one step.
local inbox = KEYS[1]
if ARGV[2] == "fresh" then
	redis.call("DEL", inbox)
elseif redis.call("EXISTS", inbox) == 1 then
	return 0
end
redis.call("XADD", inbox, "0-*", "b", ARGV[1])
return 1
