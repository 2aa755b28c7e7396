-- Put entries of a conversation in the place of those that they were made of, where these still are.
-- KEYS: conversation, turns. ARGV: last message, its new text ('' both: none), {place, message, its new text} ...
-- Returns how many messages were replaced, and whether the last message's text was.
local done, grown, last = 0, 0, 0
if ARGV[2] ~= '' and redis.call('HGET', KEYS[1], 'last') == ARGV[1] then
    redis.call('HSET', KEYS[1], 'last', ARGV[2])
    last = 1
end
for i = 3, #ARGV, 3 do
    if redis.call('LINDEX', KEYS[2], ARGV[i]) == ARGV[i + 1] then
        redis.call('LSET', KEYS[2], ARGV[i], ARGV[i + 2])
        grown = grown + #ARGV[i + 2] - #ARGV[i + 1]
        done = done + 1
    end
end
if done > 0 then redis.call('HINCRBY', KEYS[1], 'bytes', grown) end
return {done, last}
