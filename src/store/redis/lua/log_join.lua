#!lua
-- Purpose: makes a subscription a member of a log, which comes into being with its first member.
-- KEYS: entries, members of the log
-- ARGV: member, shared (1 for a share group's log, else 0)
-- Returns: floor of the member (the head of the log if it is new), generation of the log, whether the member is new (1 or 0),
--          whether the log is (1 or 0)
-- Atomicity: all in one step; repeating it changes nothing. The member named "generation" has the time of the log's creation
--            in µs as its score, which is above every floor. The route, in another slot, follows.
local entries, members = KEYS[1], KEYS[2]
local generation = redis.call("ZSCORE", members, "generation")
local created = 0
if not generation then
	local time = redis.call("TIME")
	generation = string.format("%.0f", time[1] * 1e6 + time[2])
	created = 1
	redis.call("DEL", entries)
	redis.call("XGROUP", "CREATE", entries, "g", "0", "MKSTREAM")
	if ARGV[2] == "0" then redis.call("XGROUP", "DESTROY", entries, "g") end
	redis.call("ZADD", members, generation, "generation")
end
local floor = redis.call("ZSCORE", members, ARGV[1])
if floor then return { floor, generation, 0, 0 } end
local info = redis.call("XINFO", "STREAM", entries)
for n = 1, #info, 2 do
	if info[n] == "last-generated-id" then floor = string.match(info[n + 1], "%-(%d+)$") end
end
redis.call("ZADD", members, floor, ARGV[1])
return { floor, generation, 1, created }
