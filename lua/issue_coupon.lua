--[[
Give a user the next issue number of a campaign: first come, first served, one for each user, never more than there
are. Asked again it gives the same number. What is issued is bound to the campaign's rule of this moment.

KEYS[1] meta              the partition's meta hash
KEYS[2] events            the partition's event stream
KEYS[3] campaign_key      the campaign's hash
KEYS[4] issues            user to issue, of this campaign
ARGV[1] server            identity of the server this call was meant for
ARGV[2] generation        the generation the flow began in
ARGV[3] now_ms            the time in ms, or nothing for the server's own clock
ARGV[4] backlog_max       events that may be waiting for the writer
ARGV[5] request           id of the HTTP request that this is for, or nothing
ARGV[6] campaign          campaign id
ARGV[7] user              user id
Returns                   in order of precedence
  unverified
  stale, generation
  overloaded
  unknown                 no such campaign
  already_issued, place, issue   this user has one; the place is the campaign's last, so not before its own
  not_open, opens_at_ms, closes_at_ms, now_ms
  exhausted, quantity
  issued, place, issue    number, issued_at_ms, kind, value, minimum_order, maximum_discount, valid_days, by commas
Event coupon.issued
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

--- @include guard
--- @include clock
--- @include events

local refusal, epoch, seq = guard(meta, server, generation, backlog_max)
if refusal then
  return refusal
end
local found = redis.call('HMGET', campaign_key, 'quantity', 'issued', 'opens_at', 'closes_at', 'kind', 'value',
  'minimum_order', 'maximum_discount', 'valid_days', 'seq')
if not found[1] then
  return {'unknown'}
end
local earlier = redis.call('HGET', issues, user)
if earlier then
  return {'already_issued', found[10], earlier}
end
local now = clock_ms(now_ms)
if now < tonumber(found[3]) or now >= tonumber(found[4]) then
  return {'not_open', found[3], found[4], int(now)}
end
local number = tonumber(found[2]) + 1
if number > tonumber(found[1]) then
  return {'exhausted', found[1]}
end

local place = append(events, meta, epoch, seq, request, 'coupon.issued', now,
  'campaign', campaign, 'user', user, 'number', int(number), 'kind', found[5], 'value', found[6],
  'minimum_order', found[7], 'maximum_discount', found[8], 'valid_days', found[9])
local issue = table.concat({int(number), int(now), found[5], found[6], found[7], found[8], found[9]}, ',')
redis.call('HSET', campaign_key, 'issued', int(number), 'seq', place)
redis.call('HSET', issues, user, issue)
return {'issued', place, issue}
