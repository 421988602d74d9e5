--[[
Give users the next issue numbers of a campaign: first come, first served, one for each user, never more than there
are. Asked again it gives the same number. What is issued is bound to the campaign's rule of this moment. Whoever asks
at the same moment is served by one call, in the order given: the campaign is read and written once for all of them.

KEYS[1] meta              the partition's meta hash
KEYS[2] events            the partition's event stream
KEYS[3] campaign_key      the campaign's hash
KEYS[4] issues            user to issue, of this campaign
ARGV[1] server            identity of the server this call was meant for
ARGV[2] generation        the generation the flows began in
ARGV[3] now_ms            the time in ms, or nothing for the server's own clock
ARGV[4] backlog_max       events that may be waiting for the writer
ARGV[5] request           ids of the HTTP requests of the users in turn, or nothing, by commas
ARGV[6] campaign          campaign id
ARGV[7...] user           user ids
Returns                   in order of precedence
  unverified
  stale, generation
  overloaded
  unknown                 no such campaign
  answered, answers       one answer for each user, in turn:
  already_issued, place, issue   has one; the place is the campaign's last, so not before its own
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
local user = 7

-- `unpack` fails at some thousands, and it would after the first events.
local USERS_MAX = 1000

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
if #ARGV - user >= USERS_MAX then
  error('more users than a call may serve')
end
local earlier = redis.call('HMGET', issues, unpack(ARGV, user))
local now = clock_ms(now_ms)
local is_open = now >= tonumber(found[3]) and now < tonumber(found[4])
local quantity, issued = tonumber(found[1]), tonumber(found[2])
local rule = table.concat({int(now), found[5], found[6], found[7], found[8], found[9]}, ',')
local place, given, new = found[10], {}, {}

local function serve(asker, had, own_request)
  local issue = had or given[asker]
  if issue then
    return {'already_issued', place, issue}
  end
  if not is_open then
    return {'not_open', found[3], found[4], int(now)}
  end
  if issued >= quantity then
    return {'exhausted', found[1]}
  end
  issued = issued + 1
  local number = int(issued)
  issue = number .. ',' .. rule
  seq, place = add_event(events, epoch, seq, own_request, 'coupon.issued', now,
    'campaign', campaign, 'user', asker, 'number', number, 'kind', found[5], 'value', found[6],
    'minimum_order', found[7], 'maximum_discount', found[8], 'valid_days', found[9])
  given[asker] = issue
  new[#new + 1], new[#new + 2] = asker, issue
  return {'issued', place, issue}
end

local answers, request_of = {}, string.gmatch(request .. ',', '([^,]*),')
for index, had in ipairs(earlier) do
  answers[index] = serve(ARGV[user + index - 1], had, request_of() or '')
end
if #new > 0 then
  redis.call('HSET', meta, 'seq', int(seq))
  redis.call('HSET', campaign_key, 'issued', int(issued), 'seq', place)
  redis.call('HSET', issues, unpack(new))
end
return {'answered', answers}
