#!lua
-- Purpose: appends a message to a log unless it was appended before under the same token.
-- KEYS: entries of the log, token
-- ARGV: limit of entries, seconds for which the token is remembered, entry
-- Returns: id of the entry, the same again for a repetition; nil without such a log
-- Atomicity: all in one step.
local seen = redis.call("GET", KEYS[2])
if seen then return seen end
local id = redis.call("XADD", KEYS[1], "NOMKSTREAM", "MAXLEN", "=", ARGV[1], "0-*", "m", ARGV[3])
if id then redis.call("SET", KEYS[2], id, "EX", ARGV[2]) end
return id
