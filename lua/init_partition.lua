--[[
Begin an empty partition: what follows is trusted. The worker calls it when PostgreSQL knows of nothing there either.

KEYS[1] meta              the partition's meta hash
KEYS[2] events            the partition's event stream
ARGV[1] server            identity of the server this call was meant for
ARGV[2] generation        the global generation
ARGV[3] epoch             first epoch
ARGV[4] format            version of the layout of keys and events
Returns                   in order of precedence
  exists                  there is a partition already
  trusted
Event none
]]
local meta = KEYS[1]
local events = KEYS[2]
local server = ARGV[1]
local generation = ARGV[2]
local epoch = ARGV[3]
local format = ARGV[4]

if redis.call('EXISTS', meta, events) > 0 then
  return {'exists'}
end
redis.call('HSET', meta, 'format', format, 'generation', generation, 'epoch', epoch, 'seq', '0', 'durable', '0',
  'server', server)
return {'trusted'}
