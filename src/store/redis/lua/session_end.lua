#!lua flags=allow-oom
-- Purpose: ends a session, with its connection or because its time is over.
-- KEYS: meta, subscriptions, reserved, wills, bound, gone, kept of the client
-- ARGV: epoch, now (ms since 1970, or below 1e11 a distance in ms from the server's clock), will ("keep", "discard"),
--       condition ("connected": the epoch owns it; "expired": it was closed by the epoch and its time is over)
-- Returns: outcome (1 ended, 0 it is not this epoch's any more, else the negative time at which to look again), subscriptions
--          that ended, gone; error FENCED when the condition is "connected" and does not hold
-- Atomicity: all in one step. What the session leaves in other slots is named in gone until it is cleaned up there.
local meta, subscriptions, reserved, wills, bound, gone, kept = unpack(KEYS)
local epoch, will, condition = ARGV[1], ARGV[3], ARGV[4]
local now = tonumber(ARGV[2])
if now < 1e11 then
	local time = redis.call("TIME")
	now = now + time[1] * 1000 + math.floor(time[2] / 1000)
end
local state = redis.call("HMGET", meta, "token", "last", "ends", "inc")
if condition == "connected" then
	if state[1] ~= epoch then return redis.error_reply("FENCED another connection has the session") end
else
	if state[1] == epoch then return { -(now + 5000), 0, {} } end -- the close that announced its expiry is still to come
	if state[2] ~= epoch then return { 0, 0, redis.call("SMEMBERS", gone) } end
	if tonumber(state[3]) > now then return { -tonumber(state[3]), 0, {} } end
end

local record = redis.call("HGET", wills, epoch)
if record and will == "discard" then
	redis.call("HDEL", wills, epoch)
elseif record and condition == "connected" then
	redis.call("HSET", wills, epoch, struct.pack("<Bd", 1, now) .. string.sub(record, 10)) -- [MQTT-3.1.2-8]
end
local ended = 0
local filters = redis.call("HGETALL", subscriptions)
for n = 1, #filters, 2 do
	ended = ended + 1
	if string.byte(filters[n + 1], 2) % 4 > 0 then redis.call("SADD", gone, "m" .. string.sub(filters[n + 1], 13) .. " " .. filters[n]) end
end
for _, log in ipairs(redis.call("SMEMBERS", bound)) do redis.call("SADD", gone, "b" .. state[4] .. " " .. log) end
redis.call("DEL", meta, subscriptions, reserved, bound, kept)
return { 1, ended, redis.call("SMEMBERS", gone) }
