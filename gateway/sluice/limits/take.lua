-- Takes all claims and slots of one call, or none; or settles them; or renews slots. One run is one atomic step.
-- The arithmetic of bucket.py.
--
-- KEYS     the bucket of each claim; one may stand there twice, under the same limit; then the set of each slot, then the
--          set of each reservation
-- ARGV     "take", "settle", "again" (settle, unless it was done), "renew", "look" or "time"; the time in microseconds for tests, else
--          "" for the server's own; the lease in microseconds; the number of claims; that of slots;
--          for each claim: pace, unit, capacity (ticks, see bucket.py), the ticks to add, when what never refills expires
--          (milliseconds since the epoch, 0: never); for each slot: capacity and holder; for each reservation: the number of
--          its claim, from 1, and "holder ticks unit"
-- returns  {1 = done, 0 = refused; the backlog of each claim's bucket afterwards;
--          for each slot how many are taken under its key, and 1 where there was one for it};
--          of a look {1; backlog and reserved ticks of each claim's bucket}; of "time" {the microsecond that it is here}
--
-- A bucket is a string "at backlog pace unit" (see bucket.py) that expires when it would be full. The slots under a key
-- are a sorted set of holders by the microsecond in which their lease ends. So are a budget's reservations, whose ticks are
-- part of its backlog until they end. One whose lease has ended stays in the set for KEPT, by the time at which it was given
-- back, as a negative number: a settlement that comes late, or once more, finds out what has become of it. One that was settled
-- "again" leaves "=" and its name there as long, for the first try may still lie in the socket of a server that was stopped.
-- Everything is read before anything is written, so that a foreign value under one key leaves all as they are.
-- Doubles hold whole numbers exactly below 2^53 and are written with %.0f: tostring() would round them to 14 digits.

local MOST = 2 ^ 52
local KEPT = 3600000000
local GIVEN_BACK = 1000 -- at a time: the others are with the next call
local mode, clock, lease, claims, slots = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local first = 5 + 5 * claims + 2 * slots -- behind it come the reservations
local taking = mode == "take"
local now, margin = tonumber(clock), 3600000
if clock == "" then
  local time = redis.call("TIME")
  now, margin = time[1] * 1000000 + time[2], 1000
end

if mode == "time" then return {now} end

local function whole(number)
  return string.format("%.0f", number)
end

-- When what never refills expires, by this clock. A caller whose clock is behind may mean a time that is past here: to expire
-- then would be to count nothing.
local function not_past(expires)
  return whole(math.max(tonumber(expires), math.floor(now / 1000) + 3600000))
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
      redis.call("SET", key, state, "PXAT", not_past(bucket.expires))
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

-- Reservations: {key, claim, member, score: nil where there is none, positive while it holds}

local function in_unit(ticks, unit, to) -- rounded down: given back is never too much
  if unit == to then return tonumber(ticks) end
  return math.floor(ticks * to / unit)
end

local function ticks_of(member, unit)
  local ticks, of = string.match(member, " (%d+) (%d+)$")
  if not ticks then error("a member of a budget's set is not a reservation") end
  return in_unit(ticks, of, unit)
end

local reservations = {}
for i = claims + slots + 1, #KEYS do
  local at = first + 2 * (i - claims - slots) - 1
  local one = {key = KEYS[i], claim = tonumber(ARGV[at]), member = ARGV[at + 1]}
  local score = mode ~= "look" and redis.call("ZSCORE", one.key, one.member)
  one.score = score and tonumber(score) or nil
  reservations[#reservations + 1] = one
end

local function expire(one)
  local expires = ARGV[5 * one.claim + 5]
  if expires ~= "0" then redis.call("PEXPIREAT", one.key, not_past(expires)) end
end

if mode == "renew" then -- what cannot be renewed does not keep the others from it
  local failed
  local function try(work)
    local ok, problem = pcall(work)
    if not ok then failed = problem end
  end
  for i = 1, slots do
    try(function()
      forget_expired(KEYS[claims + i])
      hold(KEYS[claims + i], ARGV[4 + 5 * claims + 2 * i + 1])
    end)
  end
  for _, one in ipairs(reservations) do
    try(function()
      if not one.score and redis.call("ZSCORE", one.key, "=" .. one.member) then return end
      if not one.score or one.score <= 0 then
        local key = KEYS[one.claim]
        local pace, unit, capacity, ticks, expires = unpack(ARGV, 5 * one.claim + 1, 5 * one.claim + 5)
        local bucket = read(key, pace, unit, expires)
        bucket.backlog = math.min(MOST, bucket.backlog + ticks)
        write(key, bucket)
      end
      redis.call("ZADD", one.key, whole(now + lease), one.member)
      expire(one)
    end)
  end
  if failed then error(failed) end
  return {1}
end

if mode == "look" then
  local answer = {1}
  for i, one in ipairs(reservations) do
    local pace, unit, capacity, ticks, expires = unpack(ARGV, 5 * i + 1, 5 * i + 5)
    local backlog, reserved = read(KEYS[i], pace, unit, expires).backlog, 0
    local members = redis.call("ZRANGEBYSCORE", one.key, "(0", "+inf", "WITHSCORES")
    for j = 1, #members, 2 do
      local part = ticks_of(members[j], unit)
      if tonumber(members[j + 1]) <= now then backlog = backlog - part else reserved = reserved + part end
    end
    answer[#answer + 1] = math.max(0, backlog)
    answer[#answer + 1] = math.min(reserved, math.max(0, backlog))
  end
  return answer
end

if not taking and #reservations > 0 then
  local known, settled = false, false
  for _, one in ipairs(reservations) do
    known = known or one.score ~= nil
    settled = settled or (not one.score and redis.call("ZSCORE", one.key, "=" .. one.member))
  end
  if settled or (mode == "again" and not known) then -- it was done; slots may be given back as often as anybody likes
    for i = 1, slots do redis.call("ZREM", KEYS[claims + i], ARGV[4 + 5 * claims + 2 * i + 1]) end
    return {1}
  end
end

local of_claim = {}
for _, one in ipairs(reservations) do
  of_claim[one.claim] = one
  if taking then
    one.ended = redis.call("ZRANGEBYSCORE", one.key, "(0", whole(now), "LIMIT", 0, GIVEN_BACK)
    one.shortened = redis.call("ZRANGEBYSCORE", one.key, "(" .. whole(now + lease), "+inf", "LIMIT", 0, GIVEN_BACK)
  end
end

local buckets, fits = {}, true
for i = 1, claims do
  local key = KEYS[i]
  local pace, unit, capacity, ticks, expires = unpack(ARGV, 5 * i + 1, 5 * i + 5)
  local bucket = buckets[key] or read(key, pace, unit, expires)
  buckets[key] = bucket
  local one = of_claim[i]
  if one and taking then
    local given = 0
    for _, member in ipairs(one.ended) do given = given + ticks_of(member, unit) end
    if given > 0 then
      bucket.backlog = math.max(0, bucket.backlog - given)
      bucket.changed = true
    end
  elseif one and one.score and one.score > 0 then
    ticks = ticks - ticks_of(one.member, unit)
  end
  local asked = (bucket.asked or bucket.backlog) + ticks
  if taking then
    fits = fits and asked <= tonumber(capacity)
  else
    asked = math.max(0, math.min(MOST, asked))
  end
  bucket.asked = asked
end

local places, holders = {}, {}
for i = claims + 1, claims + slots do
  local key, argument = KEYS[i], 4 + 3 * claims + 2 * i
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
  for _, one in ipairs(reservations) do
    redis.call("ZREM", one.key, one.member)
    if mode == "again" then
      redis.call("ZREMRANGEBYSCORE", one.key, "(" .. whole(KEPT - now), "(0")
      redis.call("ZADD", one.key, whole(-now), "=" .. one.member)
      expire(one)
    end
  end
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
for _, one in ipairs(reservations) do
  for _, member in ipairs(one.ended) do redis.call("ZADD", one.key, whole(-now), member) end
  for _, member in ipairs(one.shortened) do redis.call("ZADD", one.key, whole(now + lease), member) end
  if #one.ended > 0 then
    redis.call("ZREMRANGEBYSCORE", one.key, "(" .. whole(KEPT - now), "(0")
    expire(one)
  end
  if fits then
    redis.call("ZADD", one.key, whole(now + lease), one.member)
    expire(one)
  end
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
