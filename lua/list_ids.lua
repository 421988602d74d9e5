--[[
List the ids of a sorted set in their order, from a trusted partition.

KEYS[1] meta              the partition's meta hash
KEYS[2] ids               sorted set of ids, all of score 0
ARGV[1] server            identity of the server this call was meant for
ARGV[2] generation        the generation the flow began in
ARGV[3] after             the id before the first one wanted, or nothing
ARGV[4] count_max         most ids to return
Returns                   in order of precedence
  unverified
  stale, generation
  read, ids
Event none
]]
local meta = KEYS[1]
local ids = KEYS[2]
local server = ARGV[1]
local generation = ARGV[2]
local after = ARGV[3]
local count_max = ARGV[4]

--- @include guard_read

local refusal = guard_read(meta, server, generation)
if refusal then
  return refusal
end
local from = after == '' and '-' or '(' .. after
return {'read', redis.call('ZRANGEBYLEX', ids, from, '+', 'LIMIT', 0, count_max)}
