--[[
Pay an order from the user's balance. Too little balance, or a deadline that has passed, fails the order for good and
frees its coupon; the caller gives the stock back. Repeatable: a completed order stays completed.

KEYS[1] meta              the partition's meta hash
KEYS[2] events            the partition's event stream
KEYS[3] wallet            the user's hash
KEYS[4] coupons           the user's coupons
KEYS[5] order_key         the order's hash
ARGV[1] server            identity of the server this call was meant for
ARGV[2] generation        the generation the flow began in
ARGV[3] now_ms            the time in ms, or nothing for the server's own clock
ARGV[4] backlog_max       events that may be waiting for the writer
ARGV[5] order             order id
ARGV[6] user              user id
Returns                   in order of precedence
  unverified
  stale, generation
  overloaded
  unknown                 no order of this user
  completed, place, fields   paid before; the order's hash as it stands
  failed, place, fields   failed before
  expired, place, fields  the deadline had passed: failed now
  insufficient_balance, place, fields, balance   failed now
  paid, place, fields, balance
Event order.paid | order.failed
]]
local meta = KEYS[1]
local events = KEYS[2]
local wallet = KEYS[3]
local coupons = KEYS[4]
local order_key = KEYS[5]
local server = ARGV[1]
local generation = ARGV[2]
local now_ms = ARGV[3]
local backlog_max = ARGV[4]
local order = ARGV[5]
local user = ARGV[6]

--- @include guard
--- @include clock
--- @include orders

local refusal, epoch, seq = guard(meta, server, generation, backlog_max)
if refusal then
  return refusal
end
local fields = order_of(order_key, user)
if not fields then
  return {'unknown'}
end
if fields.status == 'completed' then
  return {'completed', fields.seq, redis.call('HGETALL', order_key)}
end
if fields.status == 'failed' then
  return {'failed', fields.seq, redis.call('HGETALL', order_key)}
end
local now = clock_ms(now_ms)
if now >= tonumber(fields.pay_before) then
  local place = fail_order(meta, events, wallet, coupons, order_key, epoch, seq, order, fields, 'expired', now)
  return {'expired', place, redis.call('HGETALL', order_key)}
end
local balance, total = tonumber(redis.call('HGET', wallet, 'balance') or '0'), tonumber(fields.total)
if balance < total then
  local place = fail_order(meta, events, wallet, coupons, order_key, epoch, seq, order, fields, 'insufficient_balance',
    now)
  return {'insufficient_balance', place, redis.call('HGETALL', order_key), int(balance)}
end

local coupon = fields.coupon ~= '' and unpack_coupon(redis.call('HGET', coupons, fields.coupon))
local after, at = int(balance - total), int(now)
local place = append(events, meta, epoch, seq, 'order.paid', now,
  'order', order, 'user', user, 'total', fields.total, 'balance', after, 'coupon', fields.coupon)
redis.call('HINCRBY', wallet, 'balance', int(-total))
redis.call('HDEL', wallet, 'open_order', 'open_pay_before')
redis.call('HSET', wallet, 'seq', place)
redis.call('HSET', order_key, 'status', 'completed', 'paid_at', at, 'seq', place)
if coupon then
  set_coupon(coupons, fields.coupon, coupon, 'used', order, at, place)
end
return {'paid', place, redis.call('HGETALL', order_key), after}
