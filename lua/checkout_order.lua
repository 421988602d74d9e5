--[[
Place an order and pay it in one step. Its stock is held already. With too little balance the order is on record as
failed, and its coupon stays free. Repeatable by the order id.

KEYS[1] meta              the partition's meta hash
KEYS[2] events            the partition's event stream
KEYS[3] wallet            the user's hash
KEYS[4] coupons           the user's coupons
KEYS[5] order_key         the order's hash
KEYS[6] key_record        the idempotency key's hash, left out without a key
ARGV[1] server            identity of the server this call was meant for
ARGV[2] generation        the generation the flow began in
ARGV[3] now_ms            the time in ms, or nothing for the server's own clock
ARGV[4] backlog_max       events that may be waiting for the writer
ARGV[5] request           id of the HTTP request that this is for, or nothing
ARGV[6] order             order id
ARGV[7] created_ms        when the order id was made
ARGV[8] age_max_ms        an order id older than this is refused
ARGV[9] user              user id
ARGV[10] lines            the order's lines as JSON, passed through
ARGV[11] subtotal         sum of the lines, minor units
ARGV[12] coupon_id        coupon id, or nothing
ARGV[13] payment_max      highest total allowed, minor units
ARGV[14] discount_min     lowest discount allowed, minor units
ARGV[15] discount_max     highest discount allowed, minor units
ARGV[16] key              hash of the idempotency key, or nothing
ARGV[17] fingerprint      fingerprint of the request, or nothing
ARGV[18] claim            the flow that has claimed the key, or nothing
ARGV[19] held             positions of what the order holds elsewhere, for the key's result
Returns                   in order of precedence
  unverified
  stale, generation
  overloaded
  exists, place, status   the order is on record already, or void
  key_reused              the key belongs to another request
  replayed, place, result   this request has had its effect before: where, and what it was
  key_in_progress         another flow of this request is under way
  too_old
  order_in_progress, order, pay_before_ms
  coupon_not_valid, reason
  payment_limit, total
  insufficient_balance, place, discount, total, ordered_at_ms, balance
  completed, place, discount, total, ordered_at_ms, balance
Event order.checked_out
]]
local meta = KEYS[1]
local events = KEYS[2]
local wallet = KEYS[3]
local coupons = KEYS[4]
local order_key = KEYS[5]
local key_record = KEYS[6]
local server = ARGV[1]
local generation = ARGV[2]
local now_ms = ARGV[3]
local backlog_max = ARGV[4]
local request = ARGV[5]
local order = ARGV[6]
local created_ms = tonumber(ARGV[7])
local age_max_ms = tonumber(ARGV[8])
local user = ARGV[9]
local lines = ARGV[10]
local subtotal = ARGV[11]
local coupon_id = ARGV[12]
local payment_max = tonumber(ARGV[13])
local discount_min = tonumber(ARGV[14])
local discount_max = tonumber(ARGV[15])
local key = ARGV[16]
local fingerprint = ARGV[17]
local claim = ARGV[18]
local held = ARGV[19]

--- @include guard
--- @include new_order

local refusal, epoch, seq = guard(meta, server, generation, backlog_max)
if refusal then
  return refusal
end
local now = clock_ms(now_ms)
local limits = {
  age_max_ms = age_max_ms, payment_max = payment_max, discount_min = discount_min, discount_max = discount_max,
}
local refused, price = price_order(wallet, coupons, order_key, coupon_id, whole(subtotal, 0), limits, created_ms, now,
  key_record, fingerprint, claim)
if refused then
  return refused
end

local paid = price.balance >= price.total
local status, failure = 'completed', ''
local balance, paid_at = int(price.balance - price.total), int(now)
if not paid then
  status, failure = 'failed', 'insufficient_balance'
  balance, paid_at = int(price.balance), ''
end
local result = ''
if key_record then
  result = paid and 'completed ' .. order or 'insufficient_balance ' .. order .. ' ' .. balance
  result = result .. ' ' .. held
end
local discount, total, at = int(price.discount), int(price.total), int(now)
local place = append(events, meta, epoch, seq, request, 'order.checked_out', now,
  'order', order, 'user', user, 'lines', lines, 'subtotal', subtotal, 'discount', discount, 'total', total,
  'coupon', coupon_id, 'rule', price.rule, 'status', status, 'failure', failure, 'balance', balance,
  'key', key, 'fingerprint', fingerprint, 'result', result)
redis.call('HSET', order_key, 'user', user, 'status', status, 'failure', failure, 'lines', lines,
  'subtotal', subtotal, 'discount', discount, 'total', total, 'coupon', coupon_id, 'ordered_at', at,
  'pay_before', '', 'paid_at', paid_at, 'seq', place)
spend_key(key_record, fingerprint, place, result)
if not paid then
  redis.call('HSET', wallet, 'last_order', order, 'seq', place)
  return {'insufficient_balance', place, discount, total, at, balance}
end
redis.call('HSET', wallet, 'balance', balance, 'last_order', order, 'seq', place)
if price.coupon then
  set_coupon(coupons, coupon_id, price.coupon, 'used', order, at, place)
end
return {'completed', place, discount, total, at, balance}
