#!lua
-- Purpose: sets or removes the retained message of a topic.
-- KEYS: messages, index, expiry, revision of the retained messages; token, if a repetition is to change nothing
-- ARGV: topic, record ("" removes), limit of topics, time in ms at which it expires ("" for never), seconds for the token
-- Returns: its revision; error FULL
-- Atomicity: all in one step.
local messages, index, expiry, token = KEYS[1], KEYS[2], KEYS[3], KEYS[5]
local topic, record = ARGV[1], ARGV[2]
if record ~= "" and redis.call("HLEN", messages) >= tonumber(ARGV[3]) and redis.call("HEXISTS", messages, topic) == 0 then
	return redis.error_reply("FULL as many topics as the limit allows have a retained message")
end
local done = token and redis.call("GET", token)
if done then return tonumber(done) end
local revision = redis.call("INCR", KEYS[4])
if token then redis.call("SET", token, revision, "EX", ARGV[5]) end
if record == "" then -- [MQTT-3.3.1-6]
	redis.call("HDEL", messages, topic)
	redis.call("ZREM", index, topic)
	redis.call("ZREM", expiry, topic)
	return revision
end
if redis.call("HSET", messages, topic, record .. struct.pack("<d", revision)) == 1 then redis.call("ZADD", index, 0, topic) end
if ARGV[4] == "" then redis.call("ZREM", expiry, topic) else redis.call("ZADD", expiry, ARGV[4], topic) end
return revision
