#!lua flags=allow-oom
-- Purpose: a replica says that it lives, or others that it does not, and learns when there is something to do.
-- KEYS: leases, wills, expiries, newest format that was ever written, formats that the replicas read
-- ARGV: replica, ms until the lease lapses, step ("join", "renew", "end"), newest format that the caller reads, format that it writes
-- Returns: outcome (1, or 0: "join" was refused because somebody with this id lives, "renew" found that the lease had been
--          ended, or "end" that it has not lapsed), time in µs since 1970, when the first lease of another lapses and when
--          the first deadline comes, in ms since 1970 ("inf" for none), format to write: without a lease for the caller if it
--          cannot read that, number of leases
-- Atomicity: all in one step, by the server's clock: no replica can join between the last look at what all read and a newer format.
local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local outcome = 1
local lapses = redis.call("ZSCORE", KEYS[1], ARGV[1])
local format = math.max(tonumber(redis.call("GET", KEYS[4]) or 1), tonumber(ARGV[5]))
if ARGV[3] == "end" then
	outcome = lapses and tonumber(lapses) <= now and redis.call("ZREM", KEYS[1], ARGV[1]) or 0
	if outcome == 1 then redis.call("HDEL", KEYS[5], ARGV[1]) end
elseif format > tonumber(ARGV[4]) or ARGV[3] == "join" and lapses and tonumber(lapses) > now then
	outcome = 0
else
	redis.call("ZADD", KEYS[1], string.format("%.0f", now + ARGV[2]), ARGV[1])
	redis.call("HSET", KEYS[5], ARGV[1], ARGV[4])
	-- Not when it joins: one that ends at once should leave no trace.
	if ARGV[3] == "renew" then
		if not lapses then outcome = 0 end
		local lowest = tonumber(ARGV[4])
		for _, id in ipairs(redis.call("ZRANGE", KEYS[1], 0, -1)) do
			lowest = math.min(lowest, tonumber(redis.call("HGET", KEYS[5], id) or 1))
		end
		format = math.max(format, lowest)
	end
	if format > 1 then redis.call("SET", KEYS[4], format) end
end
local leases = redis.call("ZRANGE", KEYS[1], 0, 1, "WITHSCORES")
local other = leases[1] == ARGV[1] and leases[4] or leases[1] ~= ARGV[1] and leases[2] or "inf"
local will = redis.call("ZRANGE", KEYS[2], 0, 0, "WITHSCORES")[2] or "inf"
local expiry = redis.call("ZRANGE", KEYS[3], 0, 0, "WITHSCORES")[2] or "inf"
local next = tonumber(will) < tonumber(expiry) and will or expiry
return { outcome, string.format("%.0f", time[1] * 1e6 + time[2]), other, next, format, redis.call("ZCARD", KEYS[1]) }
