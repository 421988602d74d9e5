--[[
Put hashes, or sorted sets, into a partition that is being loaded anew. Repeatable; a large key comes in several calls.

KEYS[1] meta              the partition's meta hash
KEYS[2...] key            the keys, at most some hundreds
ARGV[1] server            the recovery's mark: `recovering:<token>:` and the identity of the server
ARGV[2] command           HSET or ZADD
ARGV[3] names             count of the field names that all these hashes have, or 0
ARGV[4...] content        the names; then each key's values, or, without names, the count of its arguments and these;
                          a hash whose last name is expires_at (ms) ends then
Returns                   in order of precedence
  unverified              it is not this recovery that loads
  loaded
Event none
]]
local meta = KEYS[1]
local key = 2
local server = ARGV[1]
local command = ARGV[2]
local names = tonumber(ARGV[3])
local content = 4

if redis.call('HGET', meta, 'loading') ~= server then
  return {'unverified'}
end
if command ~= 'HSET' and command ~= 'ZADD' then
  error('neither HSET nor ZADD')
end
local at = content + names
local fields = {}
for index = 1, names do
  fields[index * 2 - 1] = ARGV[content - 1 + index]
end
for index = key, #KEYS do
  if names > 0 then
    for field = 1, names do
      fields[field * 2] = ARGV[at]
      at = at + 1
    end
    redis.call(command, KEYS[index], unpack(fields))
    if fields[#fields - 1] == 'expires_at' then
      redis.call('PEXPIREAT', KEYS[index], fields[#fields])
    end
  else
    local last = at + tonumber(ARGV[at])
    redis.call(command, KEYS[index], unpack(ARGV, at + 1, last))
    at = last + 1
  end
end
return {'loaded'}
