-- First come, one per user, while there are any. KEYS: campaign, issued, coupons of the user.
-- ARGV: user, day, time in ms. Returns status and what goes with it.
local campaign = redis.call('HMGET', KEYS[1], 'opens_ms', 'closes_ms', 'issued', 'quantity', 'value')
if not campaign[1] then
  return {'unknown-reference'}
end
local now = tonumber(ARGV[3])
if now < tonumber(campaign[1]) or now >= tonumber(campaign[2]) then
  return {'campaign-not-open'}
end
local earlier = redis.call('HGET', KEYS[2], ARGV[1])
if earlier then
  return {'coupon-already-issued', earlier}
end
if tonumber(campaign[3]) >= tonumber(campaign[4]) then
  return {'coupons-exhausted'}
end
local number = redis.call('HINCRBY', KEYS[1], 'issued', 1)
local coupon = ARGV[1] .. '-' .. ARGV[2] .. '-' .. number
redis.call('HSET', KEYS[2], ARGV[1], coupon)
redis.call('HSET', KEYS[3], coupon, 'free:' .. campaign[5] .. ':' .. ARGV[3])
return {'issued', coupon, number, tonumber(campaign[5])}
