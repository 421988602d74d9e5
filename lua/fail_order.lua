--[[
Fail an order that awaits payment and whose stock was given back already, which only a loss of this partition can bring
about: failed with `stock_lost`, its coupon free again. Recovery alone calls it. Repeatable.

KEYS[1] meta              the partition's meta hash
KEYS[2] events            the partition's event stream
KEYS[3] wallet            the user's hash
KEYS[4] coupons           the user's coupons
KEYS[5] order_key         the order's hash
ARGV[1] server            the recovery's mark, or the identity of a trusted server
ARGV[2] generation        the generation of the recovery
ARGV[3] now_ms            the time in ms, or nothing for the server's own clock
ARGV[4] backlog_max       events that may be waiting for the writer
ARGV[5] request           nothing: a recovery is for no request
ARGV[6] order             order id
ARGV[7] user              user id
Returns                   in order of precedence
  unverified
  stale, generation
  overloaded
  unknown                 no order of this user
  completed, place        paid before
  failed, place           failed now or before
Event order.failed
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
local request = ARGV[5]
local order = ARGV[6]
local user = ARGV[7]

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
  return {'completed', fields.seq}
end
if fields.status == 'failed' then
  return {'failed', fields.seq}
end
local place = fail_order(meta, events, wallet, coupons, order_key, epoch, seq, request, order, fields, 'stock_lost',
  clock_ms(now_ms))
return {'failed', place}
