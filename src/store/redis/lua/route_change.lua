#!lua flags=allow-oom
-- Purpose: says to all replicas that a log has come or gone.
-- KEYS: routes (those of exact filters, or the others), version, changes; for an exact filter the counters of its bucket's page
-- ARGV: log, its generation, change ("put", "remove"), number of changes to remember; for an exact filter its bucket, and the
--       place of that in the page
-- Returns: version, generation of the route of this log at that version ("" for none), whether its bucket has filters (1 or 0)
-- Atomicity: all in one step. A put never replaces a later generation, and a remove takes only the generation that it names:
--            either may come late. Of exact filters only the first and the last one of a bucket is told. A counter that has
--            come to its end stays there.
local routes, version, changes, counters = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local log, generation, change, place = ARGV[1], ARGV[2], ARGV[3], ARGV[6]
local present = redis.call("HGET", routes, log)
local step = 0
local changed = false
if change == "put" and not (present and tonumber(present) >= tonumber(generation)) then
	redis.call("HSET", routes, log, generation)
	step = present and 0 or 1
	present = generation
	changed = true
elseif change == "remove" and present == generation then
	redis.call("HDEL", routes, log)
	step = -1
	present = ""
	changed = true
end
local exists = 0
if counters then
	local count = redis.call("BITFIELD", counters, "GET", "u8", "#" .. place)[1]
	local after = count == 255 and 255 or math.max(count + step, 0)
	if after ~= count then redis.call("BITFIELD", counters, "SET", "u8", "#" .. place, after) end
	changed = (after == 0) ~= (count == 0)
	exists = after > 0 and 1 or 0
end
if not changed then return { tonumber(redis.call("GET", version) or 0), present or "", exists } end
local number = redis.call("INCR", version)
local what = counters and { "bucket", ARGV[5], "exists", exists, "generation", generation } or { "log", log, "generation", present }
redis.call("XADD", changes, "MAXLEN", "~", ARGV[4], number .. "-0", unpack(what))
return { number, present, exists }
