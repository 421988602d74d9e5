--[[
Put an issued coupon among the user's coupons, with its rule and validity. Repeatable by the campaign. A
coupon that may have left Redis is PostgreSQL's to answer.

KEYS[1] meta              the partition's meta hash
KEYS[2] events            the partition's event stream
KEYS[3] wallet            the user's hash
KEYS[4] coupons           the user's coupons
KEYS[5] cold              how far what is finished has left
KEYS[6] key_record        the idempotency key's hash, left out without a key
ARGV[1] server            identity of the server this call was meant for
ARGV[2] generation        the generation the flow began in
ARGV[3] now_ms            the time in ms, or nothing for the server's own clock
ARGV[4] backlog_max       events that may be waiting for the writer
ARGV[5] request           id of the HTTP request that this is for, or nothing
ARGV[6] user              user id
ARGV[7] campaign          campaign id
ARGV[8] terms             number, kind, value, minimum_order, maximum_discount, issued_at, valid_from, valid_until,
                          as a coupon has them, by commas
ARGV[9] issue_day         the day of the issue in the business time zone, yyyymmdd
ARGV[10] asked            what `cold` said before PostgreSQL was asked, which has no such coupon; or nothing
ARGV[11] key              hash of the idempotency key, or nothing
ARGV[12] fingerprint      fingerprint of the request, or nothing
ARGV[13] issued           position of the issue, for the key's result
Returns                   in order of precedence
  unverified
  stale, generation
  overloaded
  already_granted, place, coupon_id, packed   the coupon as it stands
  cold, times             it may be in PostgreSQL alone: ask there
  granted, place, coupon_id, packed
Event coupon.granted
]]
local meta = KEYS[1]
local events = KEYS[2]
local wallet = KEYS[3]
local coupons = KEYS[4]
local cold = KEYS[5]
local key_record = KEYS[6]
local server = ARGV[1]
local generation = ARGV[2]
local now_ms = ARGV[3]
local backlog_max = ARGV[4]
local request = ARGV[5]
local user = ARGV[6]
local campaign = ARGV[7]
local terms = ARGV[8]
local issue_day = ARGV[9]
local asked = ARGV[10]
local key = ARGV[11]
local fingerprint = ARGV[12]
local issued = ARGV[13]

--- @include guard
--- @include clock
--- @include events
--- @include cold
--- @include coupons
--- @include idempotency

local refusal, epoch, seq = guard(meta, server, generation, backlog_max)
if refusal then
  return refusal
end
local number, kind, value, minimum_order, maximum_discount, issued_at, valid_from, valid_until = read_terms(terms)
local earlier = redis.call('HGET', coupons, 'campaign:' .. campaign)
if earlier then
  local packed = redis.call('HGET', coupons, earlier)
  return {'already_granted', unpack_coupon(packed).seq, earlier, packed}
end
local times = may_be_cold(cold, tonumber(issued_at), asked)
if times then
  return {'cold', times}
end
local count = int(tonumber(redis.call('HGET', wallet, 'coupon_number') or '0') + 1)
local coupon_id = user .. '-' .. issue_day .. '-' .. count
local result = key_record and 'granted ' .. coupon_id .. ' ' .. issued or ''
local place = append(events, meta, epoch, seq, request, 'coupon.granted', clock_ms(now_ms),
  'user', user, 'coupon', coupon_id, 'campaign', campaign, 'number', number, 'kind', kind, 'value', value,
  'minimum_order', minimum_order, 'maximum_discount', maximum_discount, 'issued_at', issued_at,
  'valid_from', valid_from, 'valid_until', valid_until, 'coupon_number', count,
  'key', key, 'fingerprint', fingerprint, 'result', result)
local packed = granted_coupon(campaign, terms, place)
redis.call('HSET', wallet, 'coupon_number', count, 'seq', place)
spend_key(key_record, fingerprint, place, result)
redis.call('HSET', coupons, coupon_id, packed, 'campaign:' .. campaign, coupon_id)
return {'granted', place, coupon_id, packed}
