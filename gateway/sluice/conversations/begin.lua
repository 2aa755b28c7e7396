-- Take a session's lease, if nobody has it and nobody waits since longer, and read its last messages.
-- KEYS: conversation, turns, lease, queue
-- ARGV: holder, milliseconds of a lease, milliseconds that a place in the queue lasts, seconds of FENCE, messages
-- Returns {0} (another has it), or {1, the conversation's id or '', {message ...}}
local holder, length, waiting, fence, limit = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

-- A time that lies further ahead than it can have been set (the clock was set back, or it is not ours) is cut, else a
-- session would wait for it for as long.
local function bounded(field, text, latest)
    local at = tonumber(text) or 0
    if at <= latest then return at end
    redis.call('HSET', KEYS[3], field, latest)
    return latest
end

local lease = redis.call('HMGET', KEYS[3], 'holder', 'until')
local free = not lease[1] or lease[1] == holder or bounded('until', lease[2], now + length) <= now
for _, other in ipairs(redis.call('ZRANGE', KEYS[4], 0, -1)) do
    if other == holder then break end
    local asked = redis.call('HGET', KEYS[3], 'asked:' .. other)
    if asked and bounded('asked:' .. other, asked, now) + waiting > now then
        free = false
        break
    end
    redis.call('ZREM', KEYS[4], other)  -- who no longer asks
    redis.call('HDEL', KEYS[3], 'asked:' .. other)
end

if not free then
    redis.call('ZADD', KEYS[4], 'NX', now, holder)
    redis.call('HSET', KEYS[3], 'asked:' .. holder, now)
    redis.call('EXPIRE', KEYS[3], fence)
    redis.call('EXPIRE', KEYS[4], fence)
    return {0}
end
redis.call('ZREM', KEYS[4], holder)
redis.call('HDEL', KEYS[3], 'asked:' .. holder)
redis.call('HSET', KEYS[3], 'holder', holder, 'until', now + length)
redis.call('EXPIRE', KEYS[3], fence)
local found = limit > 0 and redis.call('LRANGE', KEYS[2], -limit, -1) or {}
return {1, redis.call('HGET', KEYS[1], 'id') or '', found}
