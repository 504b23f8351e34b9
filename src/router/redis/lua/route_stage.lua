#!lua flags=allow-oom
-- Purpose: puts one page of a replica's routes where nobody reads them yet.
-- KEYS: staged named, staged exact
-- ARGV: time to live in ms, buckets with a filter (4 bytes each, little-endian), or instead all of them as bits, then for each named
--       filter: filter, members
-- Returns: 1
-- Atomicity: all in one step. May be repeated.
local named, exact = unpack(KEYS)
local ttl, buckets, bits = unpack(ARGV)
if bits ~= "" then
	redis.call("SET", exact, bits)
end
for at = 1, #buckets, 4 do
	redis.call("SETBIT", exact, struct.unpack("<I4", buckets, at), 1)
end
for at = 4, #ARGV, 2 do
	redis.call("HSET", named, ARGV[at], ARGV[at + 1])
end
redis.call("PEXPIRE", named, ttl)
redis.call("PEXPIRE", exact, ttl)
return 1
