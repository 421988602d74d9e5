--[[
Let go of the units sold on days that no list of best sellers looks back at: from then on PostgreSQL alone has them. A
day that is not old enough stays. No event, since no state changes. Repeatable.

KEYS[1] meta              the partition's meta hash
KEYS[2...] sales          the sorted set of units sold, of each day
ARGV[1] server            identity of the server this call was meant for
ARGV[2] generation        the generation the flow began in
ARGV[3] now_ms            the time in ms, or nothing for the server's own clock
ARGV[4] keep_days         days before today, in UTC, that stay in any case
ARGV[5...] day            the days, yyyymmdd
Returns                   in order of precedence
  unverified
  stale, generation
  evicted, count
Event none
]]
local meta = KEYS[1]
local sales = 2
local server = ARGV[1]
local generation = ARGV[2]
local now_ms = ARGV[3]
local keep_days = ARGV[4]
local day = 5

--- @include guard_read
--- @include clock

-- The number of a day, yyyymmdd, counted from 1970-01-01: years that begin in March have their odd day at the end.
local function day_number(text)
  local date = whole(text, 10000000)
  local year, month, day_of_month = math.floor(date / 10000), math.floor(date / 100) % 100, date % 100
  if month < 3 then
    year, month = year - 1, month + 12
  end
  return 365 * year + math.floor(year / 4) - math.floor(year / 100) + math.floor(year / 400)
    + math.floor((153 * month - 457) / 5) + day_of_month - 719469
end

local refusal = guard_read(meta, server, generation)
if refusal then
  return refusal
end
local first_kept = math.floor(clock_ms(now_ms) / 86400000) - whole(keep_days, 0)
local leaving = {}
for index = sales, #KEYS do
  if day_number(ARGV[day + index - sales]) < first_kept then
    leaving[#leaving + 1] = KEYS[index]
  end
end
local evicted = 0
for _, key in ipairs(leaving) do
  evicted = evicted + redis.call('UNLINK', key)
end
return {'evicted', int(evicted)}
