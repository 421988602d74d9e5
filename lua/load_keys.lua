--[[
Put hashes and sorted sets into a partition that is being loaded anew. Repeatable; a large key comes in several calls.

KEYS[1] meta              the partition's meta hash
KEYS[2...] key            the keys, at most some hundreds
ARGV[1] server            the recovery's mark: `recovering:<token>:` and the identity of the server
ARGV[2...] content        for each key: HSET or ZADD, the count of its arguments, and these; at most some thousands
Returns                   in order of precedence
  unverified              it is not this recovery that loads
  loaded
Event none
]]
local meta = KEYS[1]
local key = 2
local server = ARGV[1]
local content = 2

if redis.call('HGET', meta, 'loading') ~= server then
  return {'unverified'}
end
local at = content
for index = key, #KEYS do
  local command, last = ARGV[at], at + 1 + tonumber(ARGV[at + 1])
  if command ~= 'HSET' and command ~= 'ZADD' then
    error('neither HSET nor ZADD')
  end
  redis.call(command, KEYS[index], unpack(ARGV, at + 2, last))
  at = last + 1
end
return {'loaded'}
