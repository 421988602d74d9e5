--[[
Claim an idempotency key for a flow of several scripts, so that no other flow of the same key begins meanwhile. A claim
whose time is over belongs to a flow that has ended without a word: the next one of the same request takes it over.
Only the script with the effect spends the key, and it asks whose the key is by then.

KEYS[1] meta              the partition's meta hash
KEYS[2] key_record        the idempotency key's hash
ARGV[1] server            identity of the server this call was meant for
ARGV[2] generation        the generation the flow began in
ARGV[3] now_ms            the time in ms, or nothing for the server's own clock
ARGV[4] backlog_max       events that may be waiting for the writer
ARGV[5] request           not used: there is no event
ARGV[6] fingerprint       fingerprint of the request
ARGV[7] claim             names the flow
ARGV[8] lease_ms          how long the claim holds
Returns                   in order of precedence
  unverified
  stale, generation
  overloaded
  key_reused              the key belongs to another request
  replayed, place, result   the request has had its effect: where, and what it was
  key_in_progress         another flow of this request is under way
  resumed                 claimed; an earlier flow had claimed it and ended without a word
  claimed
Event none
]]
local meta = KEYS[1]
local key_record = KEYS[2]
local server = ARGV[1]
local generation = ARGV[2]
local now_ms = ARGV[3]
local backlog_max = ARGV[4]
local request = ARGV[5]
local fingerprint = ARGV[6]
local claim = ARGV[7]
local lease_ms = tonumber(ARGV[8])

--- @include guard
--- @include clock
--- @include idempotency

local refusal = guard(meta, server, generation, backlog_max)
if refusal then
  return refusal
end
local now = clock_ms(now_ms)
local earlier = redis.call('HMGET', key_record, 'claim', 'until')
local over = earlier[1] and now >= tonumber(earlier[2])
local verdict = key_verdict(key_record, fingerprint, over and earlier[1] or claim)
if verdict then
  return verdict
end
redis.call('HSET', key_record, 'fingerprint', fingerprint, 'claim', claim, 'until', int(now + lease_ms))
redis.call('PEXPIRE', key_record, 86400000)
return {over and 'resumed' or 'claimed'}
