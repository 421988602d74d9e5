--[[
Raise or lower the available quantity of a stock item, never below zero. Repeatable with an idempotency key;
without one every call is an adjustment of its own.

KEYS[1] meta              the partition's meta hash
KEYS[2] events            the partition's event stream
KEYS[3] product_key       the product's hash
KEYS[4] key_record        the idempotency key's hash, left out without a key
ARGV[1] server            identity of the server this call was meant for
ARGV[2] generation        the generation the flow began in
ARGV[3] now_ms            the time in ms, or nothing for the server's own clock
ARGV[4] backlog_max       events that may be waiting for the writer
ARGV[5] request           id of the HTTP request that this is for, or nothing
ARGV[6] product           product id
ARGV[7] stock             stock id
ARGV[8] delta             units, negative lowers
ARGV[9] reason            the operator's words
ARGV[10] available_max    most units a stock item may have available
ARGV[11] key              hash of the idempotency key, or nothing
ARGV[12] fingerprint      fingerprint of the request, or nothing
Returns                   in order of precedence
  unverified
  stale, generation
  overloaded
  key_reused              the key belongs to another request
  replayed, place, result   this request has had its effect before: where, and what it was
  key_in_progress         another flow of this request is under way
  unknown
  stock_limit, available
  adjusted, place, available, option
Event stock.adjusted
]]
local meta = KEYS[1]
local events = KEYS[2]
local product_key = KEYS[3]
local key_record = KEYS[4]
local server = ARGV[1]
local generation = ARGV[2]
local now_ms = ARGV[3]
local backlog_max = ARGV[4]
local request = ARGV[5]
local product = ARGV[6]
local stock = ARGV[7]
local delta = ARGV[8]
local reason = ARGV[9]
local available_max = tonumber(ARGV[10])
local key = ARGV[11]
local fingerprint = ARGV[12]

--- @include guard
--- @include clock
--- @include events
--- @include idempotency

local refusal, epoch, seq = guard(meta, server, generation, backlog_max)
if refusal then
  return refusal
end
local verdict = key_verdict(key_record, fingerprint, '')
if verdict then
  return verdict
end
local change = whole(delta)
local item = redis.call('HMGET', product_key, 'a:' .. stock, 'o:' .. stock)
if not item[1] then
  return {'unknown'}
end
local available = tonumber(item[1]) + change
if available < 0 or available > available_max then
  return {'stock_limit', item[1]}
end
local result = key_record and 'adjusted ' .. int(available) .. ' ' .. item[2] or ''
local place = append(events, meta, epoch, seq, request, 'stock.adjusted', clock_ms(now_ms),
  'product', product, 'stock', stock, 'delta', delta, 'available', int(available), 'reason', reason,
  'key', key, 'fingerprint', fingerprint, 'result', result)
redis.call('HINCRBY', product_key, 'a:' .. stock, delta)
redis.call('HSET', product_key, 'seq', place)
spend_key(key_record, fingerprint, place, result)
return {'adjusted', place, int(available), item[2]}
