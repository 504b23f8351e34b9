#!lua
-- Purpose: adds or replaces subscriptions of a session; a replaced one keeps its position while its granted QoS stays >= 1.
-- KEYS: meta, subscriptions, gone of the client
-- ARGV: epoch, then filter and record of each subscription
-- Returns: the record that each one replaced, "" for none; error FENCED
-- Atomicity: all in one step. The logs are in other slots: the caller joins them afterwards, or openSession does.
local meta, subscriptions, gone = KEYS[1], KEYS[2], KEYS[3]
if redis.call("HGET", meta, "token") ~= ARGV[1] then return redis.error_reply("FENCED another connection has the session") end
local replaced = {}
for n = 2, #ARGV, 2 do
	local filter, record = ARGV[n], ARGV[n + 1]
	local old = redis.call("HGET", subscriptions, filter)
	if old and string.byte(old, 2) % 4 > 0 then
		if string.byte(record, 2) % 4 > 0 then
			record = string.sub(record, 1, 6) .. string.sub(old, 7)
		else
			redis.call("SADD", gone, "m" .. string.sub(old, 13) .. " " .. filter)
		end
	end
	redis.call("HSET", subscriptions, filter, record)
	table.insert(replaced, old or "")
end
return replaced
