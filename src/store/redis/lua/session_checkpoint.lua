#!lua flags=allow-oom
-- Purpose: stores how far a session has come and which deliveries are under way.
-- KEYS: meta, subscriptions, kept of the client
-- ARGV: epoch, last packet id, in-flight record or "", serial of the checkpoint, then log and cursor (6 bytes) of each position
-- Returns: 1, or 0 for a session that keeps nothing; error FENCED
-- Atomicity: all in one step. The floors of the logs, in other slots, follow and may be lost: they only hold entries longer.
local meta, subscriptions, kept = KEYS[1], KEYS[2], KEYS[3]
local state = redis.call("HMGET", meta, "token", "durable")
if state[1] ~= ARGV[1] then return redis.error_reply("FENCED another connection has the session") end
if state[2] == "0" then return 0 end
redis.call("HSET", meta, "packet", ARGV[2], "serial", ARGV[4])
if ARGV[3] == "" then redis.call("HDEL", meta, "inflight") else redis.call("HSET", meta, "inflight", ARGV[3]) end
redis.call("DEL", kept)
for n = 5, #ARGV, 2 do
	local record = redis.call("HGET", subscriptions, ARGV[n])
	if record and string.byte(record, 2) % 4 > 0 then
		redis.call("HSET", subscriptions, ARGV[n], string.sub(record, 1, 6) .. ARGV[n + 1] .. string.sub(record, 13))
	end
end
return 1
