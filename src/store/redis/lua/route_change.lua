#!lua flags=allow-oom
-- Purpose: says to all replicas that a log has come or gone.
-- KEYS: routes, version, changes
-- ARGV: log, its generation, change ("put", "remove"), number of changes to remember
-- Returns: version, generation of the route of this log at that version ("" for none)
-- Atomicity: all in one step. A put never replaces a later generation, and a remove takes only the generation that it names:
--            either may come late.
local routes, version, changes = KEYS[1], KEYS[2], KEYS[3]
local log, generation, change = ARGV[1], ARGV[2], ARGV[3]
local present = redis.call("HGET", routes, log)
if change == "put" and not (present and tonumber(present) >= tonumber(generation)) then
	redis.call("HSET", routes, log, generation)
	present = generation
elseif change == "remove" and present == generation then
	redis.call("HDEL", routes, log)
	present = ""
else
	return { tonumber(redis.call("GET", version) or 0), present or "" }
end
local number = redis.call("INCR", version)
redis.call("XADD", changes, "MAXLEN", "~", ARGV[4], number .. "-0", "log", log, "generation", present)
return { number, present }
