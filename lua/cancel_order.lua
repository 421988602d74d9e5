--[[
Cancel an order that awaits payment: failed with `cancelled`, its coupon free again; the caller gives the stock back.
Repeatable: a cancelled order stays cancelled.

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
ARGV[7] user              user id
ARGV[8] key               hash of the idempotency key, or nothing
ARGV[9] fingerprint       fingerprint of the request, or nothing
Returns                   in order of precedence
  unverified
  stale, generation
  overloaded
  key_reused              the key belongs to another request
  replayed, place, result   this request has had its effect before: where, and what it was
  key_in_progress         another flow of this request is under way
  unknown                 no order of this user
  completed, place, fields   paid before; the order's hash as it stands
  failed, place, fields   failed before, it may be by being cancelled
  cancelled, place, fields
Event order.failed
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
local user = ARGV[7]
local key = ARGV[8]
local fingerprint = ARGV[9]

--- @include guard
--- @include clock
--- @include orders
--- @include idempotency

local refusal, epoch, seq = guard(meta, server, generation, backlog_max)
if refusal then
  return refusal
end
local verdict = key_verdict(key_record, fingerprint, '')
if verdict then
  return verdict
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
local keyed = {key = key, fingerprint = fingerprint, result = key_record and 'cancelled ' .. order or ''}
local place = fail_order(meta, events, wallet, coupons, order_key, epoch, seq, request, order, fields, 'cancelled',
  clock_ms(now_ms), keyed)
spend_key(key_record, fingerprint, place, keyed.result)
return {'cancelled', place, redis.call('HGETALL', order_key)}
