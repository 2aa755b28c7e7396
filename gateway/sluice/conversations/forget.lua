-- Delete a conversation whose last turn is not later than a moment.
-- KEYS: conversation, turns. ARGV: seconds since the epoch; '' for a conversation of any age
-- Returns 1: deleted; 0: there is none; the time of its last turn, as text: that is later
local updated = redis.call('HGET', KEYS[1], 'updated')
if not updated then return 0 end
if ARGV[1] ~= '' and tonumber(updated) > tonumber(ARGV[1]) then return updated end
redis.call('DEL', KEYS[1], KEYS[2])
return 1
