#!lua
-- Purpose: notes that a session has entries of a share group bound to it.
-- KEYS: meta, bound of the client
-- ARGV: epoch, log
-- Returns: 1; error FENCED
-- Atomicity: all in one step. The entry itself, in another slot, follows.
if redis.call("HGET", KEYS[1], "token") ~= ARGV[1] then return redis.error_reply("FENCED another connection has the session") end
redis.call("SADD", KEYS[2], ARGV[2])
return 1
