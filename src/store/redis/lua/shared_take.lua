#!lua
-- Purpose: takes the next entries of a share group's log for a replica: given-back ones first, then new ones.
-- KEYS: entries of the log
-- ARGV: consumer, limit
-- Returns: id and fields of each entry
-- Atomicity: all in one step: nobody else gets them.
local entries, consumer, limit = KEYS[1], ARGV[1], tonumber(ARGV[2])
if redis.call("EXISTS", entries) == 0 then return {} end
local taken = {}
local free = redis.call("XPENDING", entries, "g", "-", "+", limit, "free")
if #free > 0 then
	local ids = {}
	for n, pending in ipairs(free) do ids[n] = pending[1] end
	taken = redis.call("XCLAIM", entries, "g", consumer, 0, unpack(ids))
end
if #taken < limit then
	local new = redis.call("XREADGROUP", "GROUP", "g", consumer, "COUNT", limit - #taken, "STREAMS", entries, ">")
	for _, entry in ipairs(new and new[1][2] or {}) do table.insert(taken, entry) end
end
return taken
