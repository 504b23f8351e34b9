#!lua flags=allow-oom
-- Purpose: gives entries that one consumer of a share group has to another: back to all, or to a session for good.
-- KEYS: entries of the log
-- ARGV: consumer that has them, consumer that gets them, then ids
-- Returns: number of entries moved; those that the first consumer does not have stay where they are
-- Atomicity: all in one step.
local entries, from, to = KEYS[1], ARGV[1], ARGV[2]
if redis.call("EXISTS", entries) == 0 then return 0 end
local moved = 0
for n = 3, #ARGV do
	local id = ARGV[n]
	if #redis.call("XPENDING", entries, "g", id, id, 1, from) > 0 then
		moved = moved + #redis.call("XCLAIM", entries, "g", to, 0, id, "JUSTID")
	end
end
return moved
