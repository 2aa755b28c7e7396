-- Store the messages of one turn, and give its lease back.
-- KEYS: conversation, turns, lease, queue
-- ARGV: holder ('': stored without a lease), seconds to keep, most messages, most bytes, seconds of FENCE,
--       id, tenant, session, created, updated, last message, message ...
-- Returns 1; 2: it is the conversation's first turn; 0: it was stored before; -1: another turn has begun since
local holder, keep, most, bytes, fence = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
if holder ~= '' then
    if redis.call('HGET', KEYS[1], 'done') == holder then return 0 end
    local now = redis.call('HGET', KEYS[3], 'holder')
    if now and now ~= holder then return -1 end
end

-- What may fail because of somebody else's value comes before `done`: a turn that was not stored must not seem stored.
local size, count = tonumber(redis.call('HGET', KEYS[1], 'bytes') or 0), 0
if not size or not (size >= 0 and size < 2 ^ 52) then size = 0 end
for i = 12, #ARGV do
    size = size + #ARGV[i]
    count = redis.call('RPUSH', KEYS[2], ARGV[i])
end
if holder ~= '' then
    redis.call('HSET', KEYS[1], 'done', holder)
    redis.call('HSET', KEYS[3], 'holder', '', 'until', 0)  -- nobody's: a renewal may be late
    redis.call('EXPIRE', KEYS[3], fence)
end
local first = redis.call('HSETNX', KEYS[1], 'id', ARGV[6])
redis.call('HSETNX', KEYS[1], 'tenant', ARGV[7])
redis.call('HSETNX', KEYS[1], 'session', ARGV[8])
redis.call('HSETNX', KEYS[1], 'created', ARGV[9])
redis.call('HSET', KEYS[1], 'updated', ARGV[10], 'last', ARGV[11])
local added = #ARGV - 11
while count > added and (count > most or size > bytes) do
    size = size - #redis.call('LPOP', KEYS[2])
    count = count - 1
end
redis.call('HSET', KEYS[1], 'bytes', size)
redis.call('EXPIRE', KEYS[1], keep)
redis.call('EXPIRE', KEYS[2], keep)
return 1 + first
