#!lua flags=allow-oom
-- Purpose: stores what has changed in a replica's routes, and tells all replicas.
-- KEYS: replicas, version, changes, named, exact
-- ARGV: replica, token of its routes, mark of the change, number of changes to remember, changed buckets (4 bytes each, little-endian:
--       bucket * 2, plus 1 when it has a filter now), then for each named filter: filter, members
-- Returns: version, or -1 when the stored routes are not those of the token: the replica has to store all of them again
-- Atomicity: all in one step.
local replicas, version, changes, named, exact = unpack(KEYS)
local replica, token, mark, remembered, buckets = unpack(ARGV)
if redis.call("HGET", replicas, replica) ~= token then
	return -1
end
for at = 1, #buckets, 4 do
	local bucket = struct.unpack("<I4", buckets, at)
	redis.call("SETBIT", exact, math.floor(bucket / 2), bucket % 2)
end
local number = redis.call("INCR", version)
local entry = { "replica", replica, "kind", "part", "mark", mark, "exact", buckets }
for at = 6, #ARGV, 2 do
	local filter, members = ARGV[at], ARGV[at + 1]
	if members == "0" then
		redis.call("HDEL", named, filter)
	else
		redis.call("HSET", named, filter, members)
	end
	entry[#entry + 1] = filter
	entry[#entry + 1] = members
end
redis.call("XADD", changes, "MAXLEN", "~", remembered, number .. "-0", unpack(entry))
return number
