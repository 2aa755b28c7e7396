-- Takes all claims and slots of one call, or none; or settles them; or renews slots. One run is one atomic step.
-- The arithmetic of bucket.py.
--
-- KEYS     the bucket of each claim; one may stand there twice, under the same limit; then the set of each slot
-- ARGV     "take", "settle" or "renew"; the time in microseconds for tests, else "" for the server's own; the lease in
--          microseconds; the number of claims;
--          for each claim: pace, unit, capacity (ticks, see bucket.py), the ticks to add, when what never refills expires
--          (milliseconds since the epoch, 0: never); for each slot: capacity and holder
-- returns  {1 = done, 0 = refused; the backlog of each claim's bucket afterwards;
--          for each slot how many are taken under its key, and 1 where there was one for it}
--
-- A bucket is a string "at backlog pace unit" (see bucket.py) that expires when it would be full. The slots under a key
-- are a sorted set of holders by the microsecond in which their lease ends.
-- Everything is read before anything is written, so that a foreign value under one key leaves all as they are.
-- Doubles hold whole numbers exactly below 2^53 and are written with %.0f: tostring() would round them to 14 digits.

local MOST = 2 ^ 52
local mode, clock, lease, claims = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local taking = mode == "take"
local now, margin = tonumber(clock), 3600000
if clock == "" then
  local time = redis.call("TIME")
  now, margin = time[1] * 1000000 + time[2], 1000
end

local function whole(number)
  return string.format("%.0f", number)
end

-- A server short of memory refuses a script whose first write needs some, so taking begins with SET or ZADD and the
-- others, which must not fail for that, with what frees some.

local function write(key, bucket)
  if not taking then redis.call("DEL", key) end
  if bucket.backlog > 0 then
    local state = string.format("%.0f %.0f %s %s", now, bucket.backlog, bucket.pace, bucket.unit)
    if bucket.pace ~= "0" then
      redis.call("SET", key, state, "PX", whole(math.ceil(bucket.backlog / bucket.pace / 1000) + margin))
    elseif bucket.expires ~= "0" then
      redis.call("SET", key, state, "PXAT", bucket.expires)
    else
      redis.call("SET", key, state)
    end
  elseif taking then
    redis.call("DEL", key)
  end
end

local function read(key, pace, unit, expires)
  local bucket = {backlog = 0, pace = pace, unit = unit, expires = expires, changed = false}
  local state = redis.call("GET", key)
  if not state then return bucket end
  local at, backlog, old_pace, old_unit = string.match(state, "^(%d+) (%d+) (%d+) (%d+)$")
  if not at then error("the value of a bucket's key is not a bucket") end
  local elapsed = (now - at) * old_pace
  bucket.backlog = math.max(0, backlog - math.max(0, elapsed))
  if old_unit ~= unit or old_pace ~= pace then -- what has been used counts against the new limit, in units
    bucket.backlog = math.min(MOST, math.ceil(bucket.backlog / old_unit * unit))
    bucket.changed = true
  end
  bucket.changed = bucket.changed or elapsed < 0 -- refilling goes on from the earlier time
  return bucket
end

local function forget_expired(key)
  redis.call("ZREMRANGEBYSCORE", key, "-inf", whole(now))
end

local function hold(key, holder)
  redis.call("ZADD", key, whole(now + lease), holder)
  redis.call("PEXPIRE", key, whole(math.ceil(lease / 1000) + margin))
end

if mode == "renew" then -- what cannot be renewed does not keep the others from it
  local failed
  for i, key in ipairs(KEYS) do
    local ok, problem = pcall(function()
      forget_expired(key)
      hold(key, ARGV[4 + 2 * i])
    end)
    if not ok then failed = problem end
  end
  if failed then error(failed) end
  return {1}
end

local buckets, fits = {}, true
for i = 1, claims do
  local key = KEYS[i]
  local pace, unit, capacity, ticks, expires = unpack(ARGV, 5 * i, 5 * i + 4)
  local bucket = buckets[key] or read(key, pace, unit, expires)
  buckets[key] = bucket
  local asked = (bucket.asked or bucket.backlog) + ticks
  if taking then
    fits = fits and asked <= tonumber(capacity)
  else
    asked = math.max(0, math.min(MOST, asked))
  end
  bucket.asked = asked
end

local places, holders = {}, {}
for i = claims + 1, #KEYS do
  local key, argument = KEYS[i], 3 + 3 * claims + 2 * i
  local capacity, holder = tonumber(ARGV[argument]), ARGV[argument + 1]
  local place = {key = key, holder = holder, room = 1}
  local lasts = redis.call("ZSCORE", key, holder)
  if taking then
    local set = places[key]
    if not set then
      set = {taken = redis.call("ZCOUNT", key, "(" .. whole(now), "+inf"), asked = 0, entered = {}}
      places[key] = set
    end
    if not (lasts and tonumber(lasts) > now) and not set.entered[holder] then
      if set.taken + set.asked >= capacity then place.room, set.full, fits = 0, true, false end
      set.asked = set.asked + 1
      set.entered[holder] = true
    end
  end
  holders[i - claims] = place
end

if not taking then
  for _, place in ipairs(holders) do redis.call("ZREM", place.key, place.holder) end
end
for key, bucket in pairs(buckets) do
  if fits and bucket.asked ~= bucket.backlog then
    bucket.backlog = bucket.asked
    bucket.changed = true
  end
  if bucket.changed then write(key, bucket) end
end
if not taking then return {1} end

if fits then
  for _, place in ipairs(holders) do hold(place.key, place.holder) end
end
for key, set in pairs(places) do
  if not fits and set.full then -- a lease that the clock has stepped back before is cut to its length
    for _, holder in ipairs(redis.call("ZRANGEBYSCORE", key, "(" .. whole(now + lease), "+inf")) do hold(key, holder) end
  end
  forget_expired(key)
end

local answer = {fits and 1 or 0}
for i = 1, claims do
  answer[#answer + 1] = buckets[KEYS[i]].backlog
end
for _, place in ipairs(holders) do
  local set = places[place.key]
  answer[#answer + 1] = set.taken + (fits and set.asked or 0)
  answer[#answer + 1] = place.room
end
return answer
