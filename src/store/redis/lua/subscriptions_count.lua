#!lua flags=allow-oom
-- Purpose: counts stored subscriptions, also on a full server, where it is part of making room.
-- KEYS: number of subscriptions
-- ARGV: change
-- Returns: the number
-- Atomicity: all in one step; a crash between this and what it counts leaves it wrong, and nothing depends on it.
return redis.call("INCRBY", KEYS[1], ARGV[1])
