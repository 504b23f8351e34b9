#!lua flags=allow-oom
-- Purpose: makes the staged routes the routes of a replica, instead of all it had before, and tells all replicas.
-- KEYS: replicas, version, changes, named, exact, staged named, staged exact
-- ARGV: replica, name of its process, number of this commit, mark of the change, number of changes to remember
-- Returns: version, or -1 when the process has made a later commit: this one was held up on its way
-- Atomicity: all in one step, so that nobody misses a route that was there before and is there after.
local replicas, version, changes, named, exact, staged_named, staged_exact = unpack(KEYS)
local replica, process, commit, mark, remembered = unpack(ARGV)
local present = redis.call("HGET", replicas, replica)
if present then
	local other, later = string.match(present, "^(%S+) (%d+)$")
	if other == process and tonumber(later) > tonumber(commit) then
		return -1
	end
end
redis.call("UNLINK", named, exact)
for staged, key in pairs({ [staged_named] = named, [staged_exact] = exact }) do
	if redis.call("EXISTS", staged) == 1 then
		redis.call("RENAME", staged, key)
		redis.call("PERSIST", key)
	end
end
redis.call("HSET", replicas, replica, process .. " " .. commit)
local number = redis.call("INCR", version)
redis.call("XADD", changes, "MAXLEN", "~", remembered, number .. "-0", "replica", replica, "kind", "all", "mark", mark)
return number
