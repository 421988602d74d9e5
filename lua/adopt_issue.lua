--[[
Record anew an issue that was lost here while its coupon was not. The number counts as issued, and so does every lower
one: a number that was lost is never given again. Where the quantity had been raised and that was lost, it is raised as
far as the number. Recovery alone calls it. Repeatable.

KEYS[1] meta              the partition's meta hash
KEYS[2] events            the partition's event stream
KEYS[3] campaign_key      the campaign's hash
KEYS[4] issues            user to issue, of this campaign
ARGV[1] server            the recovery's mark, or the identity of a trusted server
ARGV[2] generation        the generation of the recovery
ARGV[3] now_ms            the time in ms, or nothing for the server's own clock
ARGV[4] backlog_max       events that may be waiting for the writer
ARGV[5] request           nothing: a recovery is for no request
ARGV[6] campaign          campaign id
ARGV[7] user              user id
ARGV[8] number            issue number
ARGV[9] issued_at         ms
ARGV[10] kind             amount or percent
ARGV[11] value            minor units, or percent
ARGV[12] minimum_order    lowest subtotal, minor units, or nothing
ARGV[13] maximum_discount  highest discount, minor units, or nothing
ARGV[14] valid_days       days the coupon is valid from its issue
Returns                   in order of precedence
  unverified
  stale, generation
  overloaded
  unknown                 no such campaign
  already_issued, place   this user has one; the place is the campaign's last
  adopted, place
Event coupon.adopted
]]
local meta = KEYS[1]
local events = KEYS[2]
local campaign_key = KEYS[3]
local issues = KEYS[4]
local server = ARGV[1]
local generation = ARGV[2]
local now_ms = ARGV[3]
local backlog_max = ARGV[4]
local request = ARGV[5]
local campaign = ARGV[6]
local user = ARGV[7]
local number = ARGV[8]
local issued_at = ARGV[9]
local kind = ARGV[10]
local value = ARGV[11]
local minimum_order = ARGV[12]
local maximum_discount = ARGV[13]
local valid_days = ARGV[14]

--- @include guard
--- @include clock
--- @include events

local refusal, epoch, seq = guard(meta, server, generation, backlog_max)
if refusal then
  return refusal
end
whole(issued_at, 0)
whole(value, 1)
whole_or_nothing(minimum_order, 0)
whole_or_nothing(maximum_discount, 0)
whole(valid_days, 0)
local count = whole(number, 1)
local found = redis.call('HMGET', campaign_key, 'issued', 'quantity', 'seq')
if not found[1] then
  return {'unknown'}
end
if redis.call('HGET', issues, user) then
  return {'already_issued', found[3]}
end
local issued = int(math.max(tonumber(found[1]), count))
local quantity = int(math.max(tonumber(found[2]), count))
local place = append(events, meta, epoch, seq, request, 'coupon.adopted', clock_ms(now_ms),
  'campaign', campaign, 'user', user, 'number', number, 'issued_at', issued_at, 'kind', kind, 'value', value,
  'minimum_order', minimum_order, 'maximum_discount', maximum_discount, 'valid_days', valid_days,
  'issued', issued, 'quantity', quantity)
redis.call('HSET', campaign_key, 'issued', issued, 'quantity', quantity, 'seq', place)
redis.call('HSET', issues, user,
  table.concat({number, issued_at, kind, value, minimum_order, maximum_discount, valid_days}, ','))
return {'adopted', place}
