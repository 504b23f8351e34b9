#!lua flags=allow-oom
-- Purpose: removes retained messages whose expiry has passed.
-- KEYS: messages, index, expiry of the retained messages
-- ARGV: now (ms since 1970, or below 1e11 a distance in ms from the server's clock), how many at once
-- Returns: when the next one expires, in ms since 1970 ("inf" for none)
-- Atomicity: all in one step.
local messages, index, expiry = KEYS[1], KEYS[2], KEYS[3]
local now = tonumber(ARGV[1])
if now < 1e11 then
	local time = redis.call("TIME")
	now = now + time[1] * 1000 + math.floor(time[2] / 1000)
end
local topics = redis.call("ZRANGE", expiry, "-inf", string.format("%.0f", now), "BYSCORE", "LIMIT", 0, ARGV[2])
if #topics > 0 then
	redis.call("HDEL", messages, unpack(topics))
	redis.call("ZREM", index, unpack(topics))
	redis.call("ZREM", expiry, unpack(topics))
end
return redis.call("ZRANGE", expiry, 0, 0, "WITHSCORES")[2] or "inf"
