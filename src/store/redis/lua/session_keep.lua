#!lua
-- Purpose: keeps messages of deliveries under way by value, because their log may go with the subscription [MQTT-3.10.4-3].
-- KEYS: meta, kept of the client
-- ARGV: epoch, serial of the checkpoint that named the deliveries, then name and message record of each
-- Returns: 1, or 0 when a later checkpoint has replaced the list; error FENCED
-- Atomicity: all in one step.
local meta, kept = KEYS[1], KEYS[2]
local state = redis.call("HMGET", meta, "token", "serial")
if state[1] ~= ARGV[1] then return redis.error_reply("FENCED another connection has the session") end
if (state[2] or "0") ~= ARGV[2] then return 0 end
for n = 3, #ARGV, 2 do redis.call("HSET", kept, ARGV[n], ARGV[n + 1]) end
return 1
