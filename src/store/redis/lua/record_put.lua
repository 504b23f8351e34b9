#!lua
-- Purpose: stores a record that operators manage.
-- KEYS: records, index, expiry of the records of its kind
-- ARGV: key, record, time in ms at which it expires ("" for never)
-- Returns: 1
-- Atomicity: all in one step. May be repeated.
local records, index, expiry = unpack(KEYS)
local key, record, expires = unpack(ARGV)
redis.call("HSET", records, key, record)
redis.call("ZADD", index, 0, key)
if expires == "" then redis.call("ZREM", expiry, key) else redis.call("ZADD", expiry, expires, key) end
return 1
