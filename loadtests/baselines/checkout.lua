-- Order and pay at once: every line or none. KEYS: balance, order, orders of the user, sold, then a product per line.
-- ARGV: user, order, time in ms, highest payment, then product, stock item and quantity of each line.
local lines = {}
local total = 0
for index = 5, #KEYS do
  local at = 5 + (index - 5) * 3
  local stock, quantity = ARGV[at + 1], tonumber(ARGV[at + 2])
  local found = redis.call('HMGET', KEYS[index], 'available:' .. stock, 'price', 'name')
  if not found[1] then
    return {'unknown-reference'}
  end
  if tonumber(found[1]) < quantity then
    return {'out-of-stock', ARGV[at], stock}
  end
  total = total + tonumber(found[2]) * quantity
  lines[#lines + 1] = {ARGV[at], stock, quantity, tonumber(found[2]), found[3]}
end
if total > tonumber(ARGV[4]) then
  return {'payment-limit'}
end
local balance = tonumber(redis.call('GET', KEYS[1]) or '0')
if balance < total then
  return {'insufficient-balance', balance, total}
end
local packed = {}
for index, line in ipairs(lines) do
  redis.call('HINCRBY', KEYS[4 + index], 'available:' .. line[2], -line[3])
  redis.call('HINCRBY', KEYS[4], line[1] .. ':' .. line[2], line[3])
  packed[index] = line[1] .. ':' .. line[2] .. ':' .. line[3] .. ':' .. line[4]
end
redis.call('DECRBY', KEYS[1], total)
redis.call('HSET', KEYS[2], 'user', ARGV[1], 'at', ARGV[3], 'total', total, 'lines', table.concat(packed, ','))
redis.call('RPUSH', KEYS[3], ARGV[2])
redis.call('INCR', 'orders')
return {'completed', total, lines}
