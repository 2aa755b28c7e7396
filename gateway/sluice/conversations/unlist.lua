-- Take names out of a list, or give them another time, where their time is still the one that was read: a turn
-- that was stored meanwhile has given them a later one.
-- KEYS: list. ARGV: {name, its time, its new time or '' to take it out} ...
for i = 1, #ARGV, 3 do
    local at = redis.call('ZSCORE', KEYS[1], ARGV[i])
    if at and tonumber(at) == tonumber(ARGV[i + 1]) then
        if ARGV[i + 2] == '' then
            redis.call('ZREM', KEYS[1], ARGV[i])
        else
            redis.call('ZADD', KEYS[1], ARGV[i + 2], ARGV[i])
        end
    end
end
