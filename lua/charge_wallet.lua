--[[
Add money to a wallet. Repeatable with an idempotency key; without one every call is a charge of its own.

KEYS[1] meta              the partition's meta hash
KEYS[2] events            the partition's event stream
KEYS[3] wallet            the user's hash
KEYS[4] key_record        the idempotency key's hash, left out without a key
ARGV[1] server            identity of the server this call was meant for
ARGV[2] generation        the generation the flow began in
ARGV[3] now_ms            the time in ms, or nothing for the server's own clock
ARGV[4] backlog_max       events that may be waiting for the writer
ARGV[5] request           id of the HTTP request that this is for, or nothing
ARGV[6] user              user id
ARGV[7] amount            minor units, positive
ARGV[8] balance_max       highest balance allowed, minor units
ARGV[9] key               hash of the idempotency key, or nothing
ARGV[10] fingerprint      fingerprint of the request, or nothing
Returns                   in order of precedence
  unverified
  stale, generation
  overloaded
  key_reused              the key belongs to another request
  replayed, place, result   this request has had its effect before: where, and what it was
  key_in_progress         another flow of this request is under way
  balance_limit, balance
  charged, place, balance, charged_at_ms
Event wallet.charged
]]
local meta = KEYS[1]
local events = KEYS[2]
local wallet = KEYS[3]
local key_record = KEYS[4]
local server = ARGV[1]
local generation = ARGV[2]
local now_ms = ARGV[3]
local backlog_max = ARGV[4]
local request = ARGV[5]
local user = ARGV[6]
local amount = ARGV[7]
local balance_max = tonumber(ARGV[8])
local key = ARGV[9]
local fingerprint = ARGV[10]

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
local sum = whole(amount, 1)
local balance = tonumber(redis.call('HGET', wallet, 'balance') or '0')
if balance + sum > balance_max then
  return {'balance_limit', int(balance)}
end
local now = clock_ms(now_ms)
local after = int(balance + sum)
local result = key_record and 'charged ' .. after .. ' ' .. int(now) or ''
local place = append(events, meta, epoch, seq, request, 'wallet.charged', now,
  'user', user, 'amount', amount, 'balance', after, 'key', key, 'fingerprint', fingerprint, 'result', result)
redis.call('HINCRBY', wallet, 'balance', amount)
redis.call('HSET', wallet, 'seq', place)
spend_key(key_record, fingerprint, place, result)
return {'charged', place, after, int(now)}
