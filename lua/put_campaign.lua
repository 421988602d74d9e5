--[[
Make a coupon campaign or change it. The quantity never falls below what is issued; coupons keep the rule they were
issued with.

KEYS[1] meta              the partition's meta hash
KEYS[2] events            the partition's event stream
KEYS[3] campaigns         the partition's campaign ids
KEYS[4] campaign_key      the campaign's hash
ARGV[1] server            identity of the server this call was meant for
ARGV[2] generation        the generation the flow began in
ARGV[3] now_ms            the time in ms, or nothing for the server's own clock
ARGV[4] backlog_max       events that may be waiting for the writer
ARGV[5] request           id of the HTTP request that this is for, or nothing
ARGV[6] campaign          campaign id
ARGV[7] name              display name
ARGV[8] kind              amount or percent
ARGV[9] value             minor units, or percent
ARGV[10] minimum_order    lowest subtotal, minor units, or nothing
ARGV[11] maximum_discount  highest discount, minor units, or nothing
ARGV[12] quantity         coupons there are
ARGV[13] opens_at         ms
ARGV[14] closes_at        ms
ARGV[15] valid_days       days a coupon is valid from its issue
Returns                   in order of precedence
  unverified
  stale, generation
  overloaded
  quantity_below_issued, issued
  created, place, issued
  updated, place, issued
Event campaign.put
]]
local meta = KEYS[1]
local events = KEYS[2]
local campaigns = KEYS[3]
local campaign_key = KEYS[4]
local server = ARGV[1]
local generation = ARGV[2]
local now_ms = ARGV[3]
local backlog_max = ARGV[4]
local request = ARGV[5]
local campaign = ARGV[6]
local name = ARGV[7]
local kind = ARGV[8]
local value = ARGV[9]
local minimum_order = ARGV[10]
local maximum_discount = ARGV[11]
local quantity = ARGV[12]
local opens_at = ARGV[13]
local closes_at = ARGV[14]
local valid_days = ARGV[15]

--- @include guard
--- @include clock
--- @include events

local refusal, epoch, seq = guard(meta, server, generation, backlog_max)
if refusal then
  return refusal
end
whole(value, 1)
whole_or_nothing(minimum_order, 0)
whole_or_nothing(maximum_discount, 0)
whole(opens_at, 0)
whole(closes_at, 0)
whole(valid_days, 1)
local known = redis.call('HGET', campaign_key, 'issued')
local issued = known or '0'
if whole(quantity, 0) < tonumber(issued) then
  return {'quantity_below_issued', issued}
end
local place = append(events, meta, epoch, seq, request, 'campaign.put', clock_ms(now_ms),
  'campaign', campaign, 'name', name, 'kind', kind, 'value', value, 'minimum_order', minimum_order,
  'maximum_discount', maximum_discount, 'quantity', quantity, 'opens_at', opens_at, 'closes_at', closes_at,
  'valid_days', valid_days)
redis.call('HSET', campaign_key, 'name', name, 'kind', kind, 'value', value, 'minimum_order', minimum_order,
  'maximum_discount', maximum_discount, 'quantity', quantity, 'opens_at', opens_at, 'closes_at', closes_at,
  'valid_days', valid_days, 'issued', issued, 'seq', place)
redis.call('ZADD', campaigns, 0, campaign)
return {known and 'updated' or 'created', place, issued}
