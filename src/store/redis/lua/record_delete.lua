#!lua flags=allow-oom
-- Purpose: removes a record that operators manage.
-- KEYS: records, index, expiry of the records of its kind
-- ARGV: key
-- Returns: the record, or nil when there was none
-- Atomicity: all in one step.
local records, index, expiry = unpack(KEYS)
local key = ARGV[1]
local record = redis.call("HGET", records, key)
redis.call("HDEL", records, key)
redis.call("ZREM", index, key)
redis.call("ZREM", expiry, key)
return record
