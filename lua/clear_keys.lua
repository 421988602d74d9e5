--[[
Remove keys of a partition that is being loaded anew. Repeatable.

KEYS[1] meta              the partition's meta hash
KEYS[2...] key            keys of the partition, at most some hundreds
ARGV[1] server            the recovery's mark: `recovering:<token>:` and the identity of the server
Returns                   in order of precedence
  unverified              it is not this recovery that loads
  cleared
Event none
]]
local meta = KEYS[1]
local key = 2
local server = ARGV[1]

if redis.call('HGET', meta, 'loading') ~= server then
  return {'unverified'}
end
for index = key, #KEYS do
  if KEYS[index] ~= meta then
    redis.call('UNLINK', KEYS[index])
  end
end
return {'cleared'}
