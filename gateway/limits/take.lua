-- Takes all claims of one call, or none; or settles them. One run is one atomic step. The arithmetic of bucket.py.
--
-- KEYS     the bucket of each claim; one may stand there twice, under the same limit
-- ARGV     "take" or "settle"; the time in microseconds for tests, else "" for the server's own;
--          then for each claim: pace, unit, capacity (ticks, see bucket.py) and the ticks to add
-- returns  {1 = done, 0 = refused; then the backlog of each claim's bucket afterwards}
--
-- A bucket is a string "at backlog pace unit" (see bucket.py) that expires when it would be full.
-- Doubles hold whole numbers exactly below 2^53 and are written with %.0f: tostring() would round them to 14 digits.

local MOST = 2 ^ 52
local taking, clock = ARGV[1] == "take", ARGV[2]
local now, margin = tonumber(clock), 3600000
if clock == "" then
  local time = redis.call("TIME")
  now, margin = time[1] * 1000000 + time[2], 1000
end

local function write(key, bucket)
  if bucket.backlog > 0 then
    local state = string.format("%.0f %.0f %s %s", now, bucket.backlog, bucket.pace, bucket.unit)
    local lifetime = math.ceil(bucket.backlog / bucket.pace / 1000) + margin
    redis.call("SET", key, state, "PX", string.format("%.0f", lifetime))
  else
    redis.call("DEL", key)
  end
end

local function read(key, pace, unit)
  local bucket = {backlog = 0, pace = pace, unit = unit, changed = false}
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

local buckets, fits = {}, true
for i, key in ipairs(KEYS) do
  local pace, unit, capacity, ticks = unpack(ARGV, 4 * i - 1, 4 * i + 2)
  local bucket = buckets[key] or read(key, pace, unit)
  buckets[key] = bucket
  local asked = (bucket.asked or bucket.backlog) + ticks
  if taking then
    fits = fits and asked <= tonumber(capacity)
  else
    asked = math.max(0, math.min(MOST, asked))
  end
  bucket.asked = asked
end

for key, bucket in pairs(buckets) do
  if fits and bucket.asked ~= bucket.backlog then
    bucket.backlog = bucket.asked
    bucket.changed = true
  end
  if bucket.changed then write(key, bucket) end
end

local answer = {fits and 1 or 0}
for i, key in ipairs(KEYS) do
  answer[i + 1] = string.format("%.0f", buckets[key].backlog)
end
return answer
