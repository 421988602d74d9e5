--[[
Let go of reservations that are sold or released, durable and too old to be taken anew: from then on PostgreSQL alone
has them. What is held, not durable or not old enough stays. No event, since no state changes. Repeatable.

KEYS[1] meta              the partition's meta hash
KEYS[2] cold              how far what is finished has left
KEYS[3...] reservation    the reservations here
ARGV[1] server            identity of the server this call was meant for
ARGV[2] generation        the generation the flow began in
ARGV[3] now_ms            the time in ms, or nothing for the server's own clock
ARGV[4] hot_from_ms       what began later than this stays
ARGV[5] age_max_ms        an order id older than this is refused by reserve_stock
ARGV[6] mark              how far the walk over finished reservations has come with these, or nothing
ARGV[7...] order          per reservation its order id, and when that was made in ms
Returns                   in order of precedence
  unverified
  stale, generation
  evicted, count
Event none
]]
local meta = KEYS[1]
local cold = KEYS[2]
local reservation = 3
local server = ARGV[1]
local generation = ARGV[2]
local now_ms = ARGV[3]
local hot_from_ms = ARGV[4]
local age_max_ms = ARGV[5]
local mark = ARGV[6]
local order = 7

--- @include guard_read
--- @include clock
--- @include cold

local refusal = guard_read(meta, server, generation)
if refusal then
  return refusal
end
local latest = latest_to_leave(whole(hot_from_ms, 0), whole(age_max_ms, 0), clock_ms(now_ms))
local durable = tonumber(redis.call('HGET', meta, 'durable'))
local leaving = {}
for index = reservation, #KEYS do
  local found = redis.call('HMGET', KEYS[index], 'state', 'seq')
  local is_old = whole(ARGV[order + (index - reservation) * 2 + 1], 0) <= latest
  if is_old and (found[1] == 'sold' or found[1] == 'released') and is_durable(found[2], durable) then
    leaving[#leaving + 1] = KEYS[index]
  end
end
if #leaving > 0 then
  note_cold(cold, latest)
end
for _, key in ipairs(leaving) do
  redis.call('UNLINK', key)
end
if mark ~= '' then
  redis.call('HSET', cold, 'reservations', mark)
end
return {'evicted', int(#leaving)}
