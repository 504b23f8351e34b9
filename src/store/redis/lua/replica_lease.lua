#!lua flags=allow-oom
-- Purpose: a replica says that it lives, or others that it does not.
-- KEYS: leases
-- ARGV: replica, ms until the lease lapses, step ("join", "renew", "end")
-- Returns: 1, or 0: "join" was refused because somebody with this id lives, "renew" found that the lease had been ended, or
--          "end" that it has not lapsed
-- Atomicity: all in one step, by the server's clock.
local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lapses = redis.call("ZSCORE", KEYS[1], ARGV[1])
if ARGV[3] == "end" then return lapses and tonumber(lapses) <= now and redis.call("ZREM", KEYS[1], ARGV[1]) or 0 end
if ARGV[3] == "join" and lapses and tonumber(lapses) > now then return 0 end
redis.call("ZADD", KEYS[1], string.format("%.0f", now + ARGV[2]), ARGV[1])
return (ARGV[3] == "join" or lapses) and 1 or 0
