--[[
Let go of orders that are finished and durable, each with the coupon that it used, or that came back to it too late: from
then on PostgreSQL alone has them. What is not finished, not durable or not old enough stays. No event, since no state
changes: it is where it is read that does. Repeatable.

KEYS[1] meta              the partition's meta hash
KEYS[2] cold              how far what is finished has left
KEYS[3...] order_key      per order three keys: the order's hash, its user's hash, its user's coupons
ARGV[1] server            identity of the server this call was meant for
ARGV[2] generation        the generation the flow began in
ARGV[3] now_ms            the time in ms, or nothing for the server's own clock
ARGV[4] hot_from_ms       what began or ended later than this stays
ARGV[5] age_max_ms        an order id older than this is refused by reserve_stock, place_order and checkout_order
ARGV[6...] order          per order its id, and when that was made in ms
Returns                   in order of precedence
  unverified
  stale, generation
  evicted, count
Event none
]]
local meta = KEYS[1]
local cold = KEYS[2]
local order_key = 3
local server = ARGV[1]
local generation = ARGV[2]
local now_ms = ARGV[3]
local hot_from_ms = ARGV[4]
local age_max_ms = ARGV[5]
local order = 6

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
local finished = {completed = true, failed = true, void = true}
local leaving = {}
for index = order, #ARGV, 2 do
  local at = order_key + (index - order) / 2 * 3
  local found = redis.call('HMGET', KEYS[at], 'status', 'seq', 'coupon')
  if whole(ARGV[index + 1], 0) <= latest and finished[found[1]] and is_durable(found[2], durable) then
    leaving[#leaving + 1] = {
      id = ARGV[index], key = KEYS[at], wallet = KEYS[at + 1], coupons = KEYS[at + 2], coupon_id = found[3],
    }
  end
end
if #leaving > 0 then
  note_cold(cold, latest)
end
for _, each in ipairs(leaving) do
  redis.call('UNLINK', each.key)
  if redis.call('HGET', each.wallet, 'last_order') == each.id then
    redis.call('HDEL', each.wallet, 'last_order')
  end
  local packed = each.coupon_id and each.coupon_id ~= '' and redis.call('HGET', each.coupons, each.coupon_id)
  local coupon = packed and unpack_coupon(packed)
  if coupon and coupon_leaves(coupon, latest, durable) then
    redis.call('HDEL', each.coupons, each.coupon_id, 'campaign:' .. coupon.campaign)
  end
end
return {'evicted', int(#leaving)}
