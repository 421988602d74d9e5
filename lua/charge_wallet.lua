--[[
Add money to a wallet. Without an idempotency key this is not repeatable: every call is a charge of its own.

KEYS[1] meta              the partition's meta hash
KEYS[2] events            the partition's event stream
KEYS[3] wallet            the user's hash
ARGV[1] server            identity of the server this call was meant for
ARGV[2] generation        the generation the flow began in
ARGV[3] now_ms            the time in ms, or nothing for the server's own clock
ARGV[4] backlog_max       events that may be waiting for the writer
ARGV[5] user              user id
ARGV[6] amount            minor units, positive
ARGV[7] balance_max       highest balance allowed, minor units
ARGV[8] key               hash of the idempotency key, or nothing
ARGV[9] fingerprint       fingerprint of the request, or nothing
Returns                   in order of precedence
  unverified
  stale, generation
  overloaded
  balance_limit, balance
  charged, place, balance, charged_at_ms
Event wallet.charged
]]
local meta = KEYS[1]
local events = KEYS[2]
local wallet = KEYS[3]
local server = ARGV[1]
local generation = ARGV[2]
local now_ms = ARGV[3]
local backlog_max = ARGV[4]
local user = ARGV[5]
local amount = ARGV[6]
local balance_max = tonumber(ARGV[7])
local key = ARGV[8]
local fingerprint = ARGV[9]

--- @include guard
--- @include clock
--- @include events

local refusal, epoch, seq = guard(meta, server, generation, backlog_max)
if refusal then
  return refusal
end
local sum = whole(amount, 1)
local balance = tonumber(redis.call('HGET', wallet, 'balance') or '0')
if balance + sum > balance_max then
  return {'balance_limit', int(balance)}
end
local now = clock_ms(now_ms)
local after = int(balance + sum)
local place = append(events, meta, epoch, seq, 'wallet.charged', now,
  'user', user, 'amount', amount, 'balance', after, 'key', key, 'fingerprint', fingerprint)
redis.call('HINCRBY', wallet, 'balance', amount)
redis.call('HSET', wallet, 'seq', place)
return {'charged', place, after, int(now)}
