-- Hold a session's lease for some milliseconds more; for 0, give it back, or the place in the queue for it.
-- A lease that was given back is nobody's, so that a renewal that arrives later does not hold it again.
-- KEYS: conversation, turns, lease, queue. ARGV: holder, milliseconds, seconds of FENCE
-- Returns whether it was this holder's.
local more = tonumber(ARGV[2])
if more == 0 then
    redis.call('ZREM', KEYS[4], ARGV[1])
    redis.call('HDEL', KEYS[3], 'asked:' .. ARGV[1])
end
if redis.call('HGET', KEYS[3], 'holder') ~= ARGV[1] then return 0 end
if more == 0 then
    redis.call('HSET', KEYS[3], 'holder', '', 'until', 0)
else
    local time = redis.call('TIME')
    local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
    redis.call('HSET', KEYS[3], 'until', now + more)
end
redis.call('EXPIRE', KEYS[3], ARGV[3])
return 1
