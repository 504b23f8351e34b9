#!lua flags=allow-oom
-- Purpose: removes records whose time has passed for a while by the server's clock, so that no replica's clock can be behind it.
-- KEYS: records, index, expiry of the records of a kind
-- ARGV: for how long it has passed in ms, how many at once
-- Returns: number of records removed
-- Atomicity: all in one step. May be repeated.
local records, index, expiry = unpack(KEYS)
local time = redis.call("TIME")
local before = time[1] * 1000 + math.floor(time[2] / 1000) - ARGV[1]
local keys = redis.call("ZRANGE", expiry, "-inf", string.format("%.0f", before), "BYSCORE", "LIMIT", 0, ARGV[2])
if #keys > 0 then
	redis.call("HDEL", records, unpack(keys))
	redis.call("ZREM", index, unpack(keys))
	redis.call("ZREM", expiry, unpack(keys))
end
return #keys
