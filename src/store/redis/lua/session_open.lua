#!lua
-- Purpose: gives a client's session to a new connection, whoever had it, and decides what becomes of earlier wills.
-- KEYS: meta, subscriptions, reserved, wills, bound, gone, kept of the client
-- ARGV: epoch, replica, now (ms since 1970, or below 1e11 a distance in ms from the server's clock), Clean Start (1 or 0),
--       expiry in seconds, will record or "", user
-- Returns: epoch of the last owner while disconnected or "", while connected or "", its replica or "", resumed (1 or 0),
--          incarnation, durable (1 or 0), last packet id, serial of the last checkpoint, in-flight record, subscriptions (flat),
--          reserved (flat), kept (flat), gone, epochs of wills now due, epochs of cancelled pending wills, subscriptions that ended;
--          error NOTOWNER when there is a session of another user
-- Atomicity: all in one step; logs, deadlines and the sets of replicas are in other slots and follow.
local meta, subscriptions, reserved, wills, bound, gone, kept = unpack(KEYS)
local epoch, replica, clean, expiry, will, user = ARGV[1], ARGV[2], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local now = tonumber(ARGV[3])
if now < 1e11 then
	local time = redis.call("TIME")
	now = now + time[1] * 1000 + math.floor(time[2] / 1000)
end
local old = redis.call("HMGET", meta, "last", "token", "owner", "expiry", "ends", "inc", "durable", "packet", "serial", "inflight", "user")
local exists = old[1] or old[2]
local present = exists and tonumber(old[4]) > 0 and (old[2] or tonumber(old[5]) > now)
if (present or old[2]) and old[11] and old[11] ~= user then return redis.error_reply("NOTOWNER the session is another user's") end
local resumed = present and clean == "0"

local fired, cancelled = {}, {}
local armed = redis.call("HGETALL", wills)
for n = 1, #armed, 2 do
	local _, due, delay = struct.unpack("<Bdd", armed[n + 1])
	if due == 0 or due > now then
		-- Besides its delay a will waits only for a client that was sent away, and which is back in time now (P7).
		local back = due > 0 and (not exists or delay == 0)
		if back or (resumed and (due > 0 or delay > 0)) then -- [MQTT-3.1.3-9]
			redis.call("HDEL", wills, armed[n])
			if due > 0 then table.insert(cancelled, armed[n]) end
		else -- [MQTT-3.1.2-8]
			redis.call("HSET", wills, armed[n], struct.pack("<Bd", 1, now) .. string.sub(armed[n + 1], 10))
			table.insert(fired, armed[n])
		end
	end
end

local ended, list = 0, {}
if resumed then
	redis.call("HDEL", meta, "last", "ends")
	list = redis.call("HGETALL", subscriptions)
elseif exists then
	local filters = redis.call("HGETALL", subscriptions)
	for n = 1, #filters, 2 do
		ended = ended + 1
		if string.byte(filters[n + 1], 2) % 4 > 0 then redis.call("SADD", gone, "m" .. string.sub(filters[n + 1], 13) .. " " .. filters[n]) end
	end
	for _, log in ipairs(redis.call("SMEMBERS", bound)) do redis.call("SADD", gone, "b" .. old[6] .. " " .. log) end
	redis.call("DEL", meta, subscriptions, reserved, bound, kept)
end
if not resumed then
	old[6], old[7], old[8], old[9], old[10] = epoch, expiry == "0" and "0" or "1", "0", "0", ""
	redis.call("HSET", meta, "inc", epoch, "durable", old[7])
end
redis.call("HSET", meta, "token", epoch, "owner", replica, "expiry", expiry, "user", user)
if will ~= "" then redis.call("HSET", wills, epoch, will) end
return { old[1] or "", old[2] or "", old[3] or "", resumed and 1 or 0, old[6], old[7], old[8] or "0", old[9] or "0", old[10] or "", list,
	resumed and redis.call("HGETALL", reserved) or {}, resumed and redis.call("HGETALL", kept) or {}, redis.call("SMEMBERS", gone), fired, cancelled, ended }
