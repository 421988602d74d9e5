--[[
Let go of coupons that have expired, or were used long ago, and are durable: from then on PostgreSQL alone has them. What
may still be taken, what an order in progress has taken, and what is not durable stays. No event, since no state changes.
Repeatable.

KEYS[1] meta              the partition's meta hash
KEYS[2] cold              how far what is finished has left
KEYS[3...] coupons        per coupon its user's coupons
ARGV[1] server            identity of the server this call was meant for
ARGV[2] generation        the generation the flow began in
ARGV[3] now_ms            the time in ms, or nothing for the server's own clock
ARGV[4] hot_from_ms       what ended later than this stays
ARGV[5] age_max_ms        for how long before now nothing leaves in any case
ARGV[6] mark              how far the walk over coupons has come with these, or nothing
ARGV[7...] coupon_id      the id of each
Returns                   in order of precedence
  unverified
  stale, generation
  evicted, count
Event none
]]
local meta = KEYS[1]
local cold = KEYS[2]
local coupons = 3
local server = ARGV[1]
local generation = ARGV[2]
local now_ms = ARGV[3]
local hot_from_ms = ARGV[4]
local age_max_ms = ARGV[5]
local mark = ARGV[6]
local coupon_id = 7

--- @include guard_read
--- @include clock
--- @include cold
--- @include coupons

local refusal = guard_read(meta, server, generation)
if refusal then
  return refusal
end
local latest = latest_to_leave(whole(hot_from_ms, 0), whole(age_max_ms, 0), clock_ms(now_ms))
local durable = tonumber(redis.call('HGET', meta, 'durable'))
local leaving = {}
for index = coupons, #KEYS do
  local id = ARGV[coupon_id + index - coupons]
  local packed = not string.find(id, ':', 1, true) and redis.call('HGET', KEYS[index], id)
  local coupon = packed and unpack_coupon(packed)
  if coupon and coupon_leaves(coupon, latest, durable) then
    leaving[#leaving + 1] = {key = KEYS[index], id = id, campaign = coupon.campaign}
  end
end
if #leaving > 0 then
  note_cold(cold, latest)
end
for _, each in ipairs(leaving) do
  redis.call('HDEL', each.key, each.id, 'campaign:' .. each.campaign)
end
if mark ~= '' then
  redis.call('HSET', cold, 'coupons', mark)
end
return {'evicted', int(#leaving)}
