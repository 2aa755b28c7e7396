-- Delete a conversation whose last turn is not later than a moment, or a response that was not made later.
-- KEYS: conversation, turns; or response. ARGV: seconds since the epoch, '' for any time; the field of its time
-- Returns 1: deleted; 0: there is none, or a value of another type, which is not ours; its time, as text: that is later
local at = redis.pcall('HGET', KEYS[1], ARGV[2])
if not at or type(at) == 'table' then return 0 end
if ARGV[1] ~= '' and (tonumber(at) or 0) > tonumber(ARGV[1]) then return at end
redis.call('DEL', unpack(KEYS))
return 1
