#!lua flags=allow-oom
-- Purpose: gives a replica the deadlines that have passed, those that wait longest first.
-- KEYS: wills, claims on them, expiries, claims on them
-- ARGV: replica, now (ms since 1970, or below 1e11 a distance in ms from the server's clock), ms for which a claim keeps
--       others out, how many of each at most
-- Returns: now in ms since 1970, time of the first deadline that is left ("inf" for none), tickets of wills, of expiries
-- Atomicity: all in one step. The same replica gets its own again until they are done; others get them when the claim lapses.
local replica, limit = ARGV[1], tonumber(ARGV[4])
local now = tonumber(ARGV[2])
if now < 1e11 then
	local time = redis.call("TIME")
	now = now + time[1] * 1000 + math.floor(time[2] / 1000)
end
local first = "inf"
local function claim(deadlines, claims)
	local due = {}
	for _, ticket in ipairs(redis.call("ZRANGE", deadlines, "-inf", string.format("%.0f", now), "BYSCORE", "LIMIT", 0, 1000)) do
		if #due == limit then break end
		local lapses, holder = string.match(redis.call("HGET", claims, ticket) or "", "^(%d+) (.*)$")
		if not lapses or holder == replica or tonumber(lapses) <= now then
			redis.call("HSET", claims, ticket, string.format("%.0f %s", now + ARGV[3], replica))
			table.insert(due, ticket)
		end
	end
	local left = redis.call("ZRANGE", deadlines, 0, 0, "WITHSCORES")[2] or "inf"
	if tonumber(left) < tonumber(first) then first = left end
	return due
end
local wills = claim(KEYS[1], KEYS[2])
local expiries = claim(KEYS[3], KEYS[4])
return { string.format("%.0f", now), first, wills, expiries }
