#!lua flags=allow-oom
-- Purpose: the connection of a session has ended, and the session goes on without one.
-- KEYS: meta, wills of the client
-- ARGV: epoch, now (ms since 1970, or below 1e11 a distance in ms from the server's clock), expiry in seconds (not 0),
--       time in ms after which the session expires, will ("keep" or "discard")
-- Returns: 1; error FENCED
-- Atomicity: all in one step. The deadlines are in another slot: they were announced there before.
local meta, wills = KEYS[1], KEYS[2]
local epoch, will = ARGV[1], ARGV[5]
if redis.call("HGET", meta, "token") ~= epoch then return redis.error_reply("FENCED another connection has the session") end
local now = tonumber(ARGV[2])
if now < 1e11 then
	local time = redis.call("TIME")
	now = now + time[1] * 1000 + math.floor(time[2] / 1000)
end
local ends = math.min(now + tonumber(ARGV[4]), 2 ^ 53)
local record = redis.call("HGET", wills, epoch)
if record and will == "keep" then
	local _, _, delay = struct.unpack("<Bdd", record)
	redis.call("HSET", wills, epoch, struct.pack("<Bd", 1, math.min(now + delay, ends)) .. string.sub(record, 10)) -- [MQTT-3.1.2-8]
elseif record then
	redis.call("HDEL", wills, epoch)
end
redis.call("HDEL", meta, "token", "owner")
redis.call("HSET", meta, "last", epoch, "expiry", ARGV[3], "ends", string.format("%.0f", ends))
return 1
