-- Delete a conversation whose last turn is not later than a moment.
-- KEYS: conversation, turns. ARGV: seconds since the epoch
-- Returns whether it was there and is deleted.
local updated = redis.call('HGET', KEYS[1], 'updated')
if not updated or tonumber(updated) > tonumber(ARGV[1]) then return 0 end
redis.call('DEL', KEYS[1], KEYS[2])
return 1
