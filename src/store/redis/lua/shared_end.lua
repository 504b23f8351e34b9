#!lua flags=allow-oom
-- Purpose: a consumer of a share group is gone: its entries are dropped (a session's) or given back (a replica's).
-- KEYS: entries of the log
-- ARGV: consumer, what becomes of its entries ("drop", "return"), how many at once
-- Returns: number of entries looked at; call again until it is 0
-- Atomicity: each call is one step; repeating it changes nothing.
local entries, consumer = KEYS[1], ARGV[1]
if redis.call("EXISTS", entries) == 0 then return 0 end
local ids = {}
for n, pending in ipairs(redis.call("XPENDING", entries, "g", "-", "+", ARGV[3], consumer)) do ids[n] = pending[1] end
if #ids == 0 then
	redis.call("XGROUP", "DELCONSUMER", entries, "g", consumer)
elseif ARGV[2] == "drop" then -- [MQTT-4.8.2-5]
	redis.call("XACK", entries, "g", unpack(ids))
	redis.call("XDEL", entries, unpack(ids))
else
	table.insert(ids, "JUSTID")
	redis.call("XCLAIM", entries, "g", "free", 0, unpack(ids))
end
return #ids
