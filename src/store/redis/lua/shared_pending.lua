#!lua flags=allow-oom
-- Purpose: lists what a consumer of a share group has taken.
-- KEYS: entries of the log
-- ARGV: consumer
-- Returns: ids
-- Atomicity: reads only.
if redis.call("EXISTS", KEYS[1]) == 0 then return {} end
local ids = {}
local from = "-"
repeat
	local page = redis.call("XPENDING", KEYS[1], "g", from, "+", 1000, ARGV[1])
	for _, pending in ipairs(page) do table.insert(ids, pending[1]) end
	if #page > 0 then from = "(" .. page[#page][1] end
until #page < 1000
return ids
