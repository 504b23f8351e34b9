#!lua flags=allow-oom
-- Purpose: removes subscriptions of a session.
-- KEYS: meta, subscriptions, gone of the client
-- ARGV: epoch, then filters
-- Returns: number of subscriptions removed; error FENCED
-- Atomicity: all in one step. The places in the logs, which are in other slots, are named in gone until they are given up.
local meta, subscriptions, gone = KEYS[1], KEYS[2], KEYS[3]
if redis.call("HGET", meta, "token") ~= ARGV[1] then return redis.error_reply("FENCED another connection has the session") end
local removed = 0
for n = 2, #ARGV do
	local old = redis.call("HGET", subscriptions, ARGV[n])
	if old then
		removed = removed + redis.call("HDEL", subscriptions, ARGV[n])
		if string.byte(old, 2) % 4 > 0 then redis.call("SADD", gone, "m" .. string.sub(old, 13) .. " " .. ARGV[n]) end
	end
end
return removed
