-- wrk: sends one request after the other, made from templates in which <n> is a number that is never used twice,
-- <user> a user at random, <product> and <other> two different products at random.
-- Arguments: method, path, body, a header or nothing, first number, users, products, seed, requests a second or 0 for as many as it can.

local ffi = require('ffi')
ffi.cdef('typedef struct { long seconds, microseconds; } moment; int gettimeofday(moment *now, void *zone);')

local number, users, products, pieces, host, header

-- A template as literal texts, each followed by the name of what stands after it.
local function compile(template)
  local parts = {}
  local at = 1
  while true do
    local from, to, name = string.find(template, '<(%a+)>', at)
    if not from then
      parts[#parts + 1] = {string.sub(template, at), false}
      return parts
    end
    parts[#parts + 1] = {string.sub(template, at, from - 1), name}
    at = to + 1
  end
end

local values = {}

local function render(parts)
  local texts = {}
  for index = 1, #parts do
    local part = parts[index]
    texts[#texts + 1] = part[1]
    if part[2] then
      texts[#texts + 1] = values[part[2]]
    end
  end
  return table.concat(texts)
end

function init(args)
  pieces = {method = args[1], path = compile(args[2]), body = compile(args[3])}
  header = args[4] == '' and '' or args[4] .. '\r\n'
  number, users, products = tonumber(args[5]), tonumber(args[6]), tonumber(args[7])
  math.randomseed(tonumber(args[8]))
  host = wrk.host .. ':' .. wrk.port
  if tonumber(args[9]) > 0 then
    pace(1000 / tonumber(args[9]))
  end
end

-- Have wrk send a request every so many ms, by whichever connection is free: it asks each for its delay before it sends.
function pace(every_ms)
  local now = ffi.new('moment')
  local due
  delay = function()
    ffi.C.gettimeofday(now, nil)
    local now_ms = tonumber(now.seconds) * 1000 + tonumber(now.microseconds) / 1000
    due = (due or now_ms) + every_ms
    return math.max(0, math.floor(due - now_ms))
  end
end

function request()
  values.n, values.user = number, math.random(0, users - 1)
  number = number + 1
  local product = math.random(0, products - 1)
  values.product, values.other = product, (product + math.random(1, products - 1)) % products
  local body = render(pieces.body)
  local entity = ''
  if body ~= '' then
    entity = 'Content-Type: application/json\r\nContent-Length: ' .. #body .. '\r\n'
  end
  return pieces.method .. ' ' .. render(pieces.path) .. ' HTTP/1.1\r\nHost: ' .. host .. '\r\n' .. header .. entity
    .. '\r\n' .. body
end

local PERCENTILES = {1, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 98, 99, 99.5, 99.9, 99.99}

-- One line of JSON. Every answer but 2xx and 3xx counts as status error.
function done(summary, latency, requests)
  local errors = summary.errors
  local quantiles = {}
  for _, percentile in ipairs(PERCENTILES) do
    quantiles[#quantiles + 1] = '[' .. percentile .. ',' .. latency:percentile(percentile) / 1000 .. ']'
  end
  io.write('\nRESULT ' .. '{"answered":' .. summary.requests .. ',"refused":' .. errors.status
    .. ',"broken":' .. errors.connect + errors.read + errors.write + errors.timeout
    .. ',"seconds":' .. summary.duration / 1e6 .. ',"latency_ms":[' .. table.concat(quantiles, ',') .. ']}\n')
end
