#!lua
-- Purpose: the life of an inbound QoS 2 packet id: reserved while its message is being stored, done when it is, free again.
-- KEYS: meta, reserved of the client
-- ARGV: epoch, packet id, step ("reserve", "done", "free"), number that reserve gave (for "done" and "free"; "" frees any)
-- Returns: reserve: the number of the message in this session, the same again until it is done, then 0; else 1; error FENCED
-- Atomicity: all in one step.
local meta, reserved = KEYS[1], KEYS[2]
local packet, step, number = ARGV[2], ARGV[3], ARGV[4]
if redis.call("HGET", meta, "token") ~= ARGV[1] then return redis.error_reply("FENCED another connection has the session") end
local state = redis.call("HGET", reserved, packet)
if step == "reserve" then
	if state == "done" then return 0 end
	if state then return tonumber(state) end
	local given = redis.call("HINCRBY", meta, "reserved", 1)
	redis.call("HSET", reserved, packet, given)
	return given
end
if step == "done" then
	if state == number then redis.call("HSET", reserved, packet, "done") end
elseif number == "" or state == number then
	redis.call("HDEL", reserved, packet)
end
return 1
