-- Hold a session's lease for some milliseconds more; for 0, give it back, or the place in the queue for it.
-- KEYS: conversation, turns, lease, queue. ARGV: holder, milliseconds, seconds of FENCE
-- Returns whether it was this holder's.
local more = tonumber(ARGV[2])
if more == 0 then
    redis.call('ZREM', KEYS[4], ARGV[1])
    redis.call('HDEL', KEYS[3], 'asked:' .. ARGV[1])
end
if redis.call('HGET', KEYS[3], 'holder') ~= ARGV[1] then return 0 end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
redis.call('HSET', KEYS[3], 'until', more > 0 and now + more or 0)
redis.call('EXPIRE', KEYS[3], ARGV[3])
return 1
