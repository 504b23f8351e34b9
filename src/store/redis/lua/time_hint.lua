#!lua flags=allow-oom
-- Purpose: says when somebody has to look at a session: at its will, at its expiry. The session itself has the last word.
-- KEYS: wills, expiries
-- ARGV: ticket (epoch, space, client id), now (ms since 1970, or below 1e11 a distance in ms from the server's clock),
--       ms until the will ("" for none), ms until the expiry ("" for none)
-- Returns: 1
-- Atomicity: all in one step.
local wills, expiries = KEYS[1], KEYS[2]
local ticket = ARGV[1]
local now = tonumber(ARGV[2])
if now < 1e11 then
	local time = redis.call("TIME")
	now = now + time[1] * 1000 + math.floor(time[2] / 1000)
end
if ARGV[3] ~= "" then redis.call("ZADD", wills, string.format("%.0f", math.min(now + ARGV[3], 2 ^ 53)), ticket) end
if ARGV[4] ~= "" then redis.call("ZADD", expiries, string.format("%.0f", math.min(now + ARGV[4], 2 ^ 53)), ticket) end
return 1
